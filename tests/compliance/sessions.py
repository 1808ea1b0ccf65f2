"""Sessions with the broker that a case of the suite had, one at each address, and what of them is evidence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gatehouse.proof.observation import Observation
from gatehouse.proof.plugin import cannot_prove

Step = Mapping[str, Any]
Evidence = Callable[[Mapping[str, Any]], None]
Played = Callable[[str], list[Observation]]

_SHOWN = ("do", "topic", "outcome", "code", "reason", "version", "cipher", "ms")


def of_cases(found: Mapping[str, Observation], kind: str, nowhere: str) -> Played:
    """Looks up the sessions of a case among those by `KIND:CASE@ADDRESS`; without any it `cannot_prove`."""

    def of(case: str) -> list[Observation]:
        sessions = [seen for name, seen in found.items() if name.startswith(f"{kind}:{case}@")]
        if not sessions:
            cannot_prove(nowhere)
        return sessions

    return of


def note_step(evidence: Evidence, seen: Observation, step: Step) -> None:
    """A step of a session, as evidence."""
    shown = {key: step[key] for key in _SHOWN if key in step}
    evidence({"from": seen.position, "to": seen.target, "at": seen.result["at"], **shown})


def connected(played: Played, evidence: Evidence, case: str) -> Iterator[tuple[Observation, Step]]:
    """The sessions of a case, each with how its CONNECT ended."""
    for seen in played(case):
        step = seen.result["steps"][0]
        note_step(evidence, seen, step)
        yield seen, step
