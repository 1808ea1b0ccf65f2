"""The report as one HTML page that needs nothing else: for a browser or paper, in light and dark, without scripts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gatehouse.proof import coverage, threat_report
from gatehouse.proof.lives import SHOWN
from gatehouse.proof.mends import mend
from gatehouse.proof.results import Check, Run, conclusion
from gatehouse.proof.templates import ENVIRONMENT, SIGNS
from gatehouse.proof.threats import ThreatModel

_WORDS = {
    "proven": "proven", "failed": "failed", "not_proven": "not proven", "out_of_reach": "out of reach",
    "fine": "fine", "soon": "to be replaced", "over": "over",
}  # fmt: skip
_TALL, _LEAST = 100, 2  # of a bar of the trend, and of a part of one that must be seen
_UPWARDS = ("proven", "not_proven", "waived", "failed")


def render(run: Run, before: Run | None, history: Iterable[Run] = (), models: Iterable[ThreatModel] = ()) -> str:
    """The page of a run. `before` is the run that it is compared with; `history` has earlier ones, the newest first.

    `models`: the threat models of its gateways, with the verdicts of this run; without them the page says so.
    """
    runs = [run, *history]
    order = {"failed": 0, "not_proven": 1, "proven": 2}
    checks = sorted(run.checks, key=lambda check: (order[check.verdict], check.waiver is not None, check.id))
    return ENVIRONMENT.get_template("report.html.j2").render(
        run=run,
        conclusion=conclusion(run),
        before=before,
        changes=changes(run, before),
        failures=[check for check in checks if check.verdict == "failed"],
        unproven=[check for check in checks if check.verdict == "not_proven"],
        warnings=[(check, text) for check in checks for text in check.warnings],
        checks=checks,
        matrices=matrices(run),
        models=[threat_report.view(model) for model in models],
        covered=coverage.covered(run),
        standards=coverage.ROWS,
        standings=coverage.STANDINGS,
        history=runs,
        bars=bars(runs),
        unsteady=unsteady(runs),
        gaps=(without := coverage.gaps(run)),
        number_of_gaps=sum(map(len, without.values())),
        lives=run.lives[:SHOWN],
        lives_left=len(run.lives[SHOWN:]),
        mend=lambda check: mend(check, run.site),
        words=_WORDS,
        signs=SIGNS,
        state=state,
        place=place,
        shown=shown,
    )


def state(check: Check) -> str:
    """The verdict, or `waived`."""
    return "waived" if check.waiver is not None else check.verdict


def place(check: Check) -> str:
    """Gateway and segment of a check, or the site."""
    return " / ".join(part for part in (check.gateway, check.segment) if part) or "site"


def shown(value: Any) -> str:
    """An entry of the evidence as a person reads it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def changes(run: Run, before: Run | None) -> list[tuple[Check, str, str]]:
    """What stands otherwise than before: the check, how it stood, how it stands; checks that are gone come last."""
    if before is None:
        return []
    then, now = ({check.key: check for check in some.checks} for some in (before, run))
    found = [
        (check, state(then[key]) if key in then else "not there", state(check))
        for key, check in now.items()
        if key not in then or state(then[key]) != state(check)
    ]
    return [*found, *((check, state(check), "not there") for key, check in then.items() if key not in now)]


def matrices(run: Run) -> Mapping[str, tuple[list[str], Mapping[tuple[str, str], Check]]]:
    """By gateway: its segments, and for each pair (from, to) the check of what gets from one to the other."""
    found: dict[str, tuple[list[str], dict[tuple[str, str], Check]]] = {}
    for check in run.checks:
        start, between, end = check.id.removeprefix("segments.").partition("-to-")
        if not (check.id.startswith("segments.") and between and check.gateway):
            continue
        names, cells = found.setdefault(check.gateway, ([], {}))
        names += [name for name in (start, end) if name not in names]
        cells[start, end] = check
    return found


def bars(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """A bar a run, the oldest first: its parts by how checks stand, with their place in points."""
    most = max((len(run.checks) for run in runs), default=0) or 1
    found = []
    for number, run in enumerate(reversed(runs)):
        counts = [(which, sum(state(check) == which for check in run.checks)) for which in _UPWARDS]
        parts, top = [], 4.0 + _TALL
        for which, count in counts:
            if count:
                height = max(_LEAST, round(count / most * (_TALL - 4 * _LEAST), 1))
                top = round(top - height, 1)
                parts.append({"verdict": which, "number": count, "y": top, "height": height})
        found.append({"x": number * 24 + 8, "when": run.started.strftime("%Y-%m-%d %H:%M"), "parts": parts})
    return found


def unsteady(runs: Sequence[Run]) -> list[tuple[Check, list[str]]]:
    """The checks of the newest run that did not always stand as now: how they stood, the newest first; at most 30."""
    then = [{check.key: state(check) for check in run.checks} for run in runs]
    found = []
    for check in runs[0].checks:
        past = [states.get(check.key, "not there") for states in then]
        if len({which for which in past if which != "not there"}) > 1:
            found.append((check, past))
    return found[:30]
