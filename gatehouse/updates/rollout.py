"""How a release fares: what devices have reported of their firmware, beside what their update servers offer them.

As signed telemetry of the kind `firmware` a device tells `version`, `counter`, `failed` (the counter of a release that
was rolled back there, 0: none) and `update` (what came of its last look for one, a word of `device/src/result.c`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal, get_args

from gatehouse.updates.judgement import turn_of
from gatehouse.updates.manifest import HIGHEST_COUNTER, Manifest

KIND = "firmware"

State = Literal[
    "current",  # runs what is offered to it
    "ahead",  # has a later one than is offered
    "waiting",  # the roll-out has not come to it
    "pending",  # it is its turn, and it has not taken it yet
    "hindered",  # nor could it: the update server or its own clock did not let it
    "refuses",  # it looked at what is offered and does not take it
    "failed",  # it took the release, and rolled it back
    "lost",  # was heard of until it was its turn, or had it, and is silent since
    "silent",  # nothing from it for too long
    "unreadable",  # what it reports is not what a device reports
    "no release",  # nothing is offered to it
]
STATES: tuple[State, ...] = get_args(State)
HARMED: frozenset[State] = frozenset({"failed", "lost"})
"""What a roll-out is halted for: the others have taken no harm."""
NOTED: frozenset[State] = HARMED | {"silent", "unreadable", "refuses", "hindered"}
"""What somebody has to look at."""

_HINDERED = frozenset(
    {"no-time", "too-slow", "no-answer", "bad-answer", "not-found", "not-trusted", "bad-identity", "bad-argument"}
)
_REFUSES = frozenset(
    {
        "no-manifest", "unknown-key", "bad-signature", "wrong-model", "wrong-device", "wrong-format", "wrong-chip",
        "rolled-back", "expired", "too-far", "needs-earlier", "too-large", "wrong-place", "wrong-image", "wrong-length",
        "flash",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Report:
    """What a device has said last; `time` is when, in seconds since 1970 by its own clock."""

    time: float
    version: str
    counter: int
    failed: int = 0
    update: str = ""


def read_report(fields: Any) -> Report | None:
    """A report as the database has it; None for what no device of ours reports."""
    if not isinstance(fields, Mapping):
        return None
    time, counter, failed = (_number(fields.get(name, 0)) for name in ("time", "counter", "failed"))
    version, update = fields.get("version"), fields.get("update", "")
    texts = all(isinstance(text, str) and text.isprintable() and len(text) <= 64 for text in (version, update))
    if not texts or not version or "counter" not in fields or None in (time, counter, failed):
        return None
    if not time or any(not 0 <= value <= HIGHEST_COUNTER or value % 1 for value in (counter or 0, failed or 0)):
        return None
    return Report(time, str(version), int(counter or 0), int(failed or 0), str(update))


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


@dataclass(frozen=True)
class Limits:
    """When a roll-out is halted: `share` (0 to 1) of those that had their turn failed, and at least `least` of them.

    After `silent` seconds without a report a device is silent.
    """

    share: float = 0.1
    least: int = 2
    silent: float = 93_600.0


@dataclass(frozen=True)
class Standing:
    """Where one device stands."""

    name: str
    model: str
    gateway: str
    state: State
    report: Report | None
    offered: Manifest | None
    turn: bool = False


def standing(
    name: str, model: str, gateway: str, offers: Sequence[Manifest], said: Any, now: float, limits: Limits
) -> Standing:
    """Of one device, by what its server offers its model (newest first) and by what it said last (None: nothing)."""
    mine = (bytes(32), sha256(name.encode()).digest())
    offered = next((offer for offer in offers if offer.device in mine), None)
    report = read_report(said) if said is not None else None
    turn = offered is not None and turn_of(offered.seed, name) < offered.share
    if said is not None and report is None:
        state: State = "unreadable"
    else:
        state = _state(report, offered, turn, now, limits)
    return Standing(name, model, gateway, state, report, offered, turn)


def _state(report: Report | None, offered: Manifest | None, turn: bool, now: float, limits: Limits) -> State:
    if report is None:
        return "silent" if offered else "no release"
    if report.time < now - limits.silent:
        since = offered is not None and report.time >= offered.issued - limits.silent
        has = offered is not None and report.counter == offered.counter
        return "lost" if since and (turn or has) else "silent"
    if offered is None:
        return "no release"
    if report.counter >= offered.counter:
        return "current" if report.counter == offered.counter else "ahead"
    if report.failed == offered.counter:
        return "failed"
    if not turn:
        return "waiting"
    if report.time >= offered.issued and report.update in _REFUSES | _HINDERED:
        return "refuses" if report.update in _REFUSES else "hindered"
    return "pending"


@dataclass(frozen=True)
class Progress:
    """How one release fares with all devices of its model."""

    model: str
    release: Manifest
    counts: Mapping[State, int]
    harmed: int
    tried: int
    turns: int

    @property
    def halted(self) -> bool:
        """Whether nobody is given it any more."""
        return self.release.share == 0

    def too_many(self, limits: Limits) -> bool:
        """Whether so many have failed that nobody else should be given it.

        A device alone can't stop a release for all, be it broken or somebody's; unless nobody else had a turn.
        """
        least = max(1, min(limits.least, self.turns))
        return self.harmed >= least and self.harmed > limits.share * self.tried


def progress(model: str, release: Manifest, standings: Sequence[Standing]) -> Progress:
    """Of those devices of the model that this release is offered to."""
    of_it = [each for each in standings if each.model == model and each.offered and _same(each.offered, release)]
    counts = Counter(each.state for each in of_it)
    harmed = sum(counts[state] for state in HARMED)
    had = [each for each in of_it if each.turn or each.state in {"current", *HARMED}]
    return Progress(model, release, counts, harmed, harmed + counts["current"], len(had))


def _same(one: Manifest, other: Manifest) -> bool:
    return (one.counter, one.sha256) == (other.counter, other.sha256)
