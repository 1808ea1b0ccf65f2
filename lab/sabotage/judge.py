"""Compares what the suite said before and after a sabotage: caught, what fell with it, and what fell by accident."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from gatehouse.proof.results import Check
from lab.sabotage.model import Sabotage, matching

# The checks of a run of the suite, by id.
Checks = Mapping[str, Check]


@dataclass(frozen=True)
class Outcome:
    """What became of a sabotage. `failed` maps each pattern of its `catches` to the checks that failed.

    `consequences` are checks that may fall with it and did; `accidents` those of its whole round that changed and
    nothing says why, each with what the suite said. `unmade` is why it could not be made, `unrepaired` what a deploy
    would still change after the one that had to repair the round.
    """

    sabotage: Sabotage
    failed: Mapping[str, tuple[str, ...]]
    consequences: tuple[str, ...] = ()
    accidents: Mapping[str, str] = field(default_factory=dict)
    unmade: str = ""
    unrepaired: str = ""

    @property
    def caught(self) -> bool:
        """Whether every pattern was met by a check that failed."""
        return bool(self.failed) and all(self.failed.values())

    @property
    def clean(self) -> bool:
        """Whether it was caught, repaired, and nothing else changed."""
        return self.caught and not (self.accidents or self.unmade or self.unrepaired)

    def problems(self) -> Iterator[str]:
        """What is wrong, a line each."""
        yield from (f"{self.sabotage.name}: not caught by {p}" for p, failed in self.failed.items() if not failed)
        if self.unmade:
            yield f"{self.sabotage.name}: could not be made: {self.unmade}"
        if self.unrepaired:
            yield f"not repaired: {self.unrepaired}"
        yield from (f"by accident: {identity}: {said}" for identity, said in self.accidents.items())


def changed(before: Checks, after: Checks) -> dict[str, str]:
    """The checks whose verdict is another, or that only one of the runs has, each with what the later run said."""
    found = {}
    for identity in sorted({*before, *after}):
        was, now = before.get(identity), after.get(identity)
        if now is None:
            found[identity] = "was not made"
        elif was is None or was.verdict != now.verdict:
            found[identity] = f"{now.verdict}: {now.reason}" if now.reason else now.verdict
    return found


def judged(made: Sequence[Sabotage], before: Checks, after: Checks) -> list[Outcome]:
    """The outcomes of the sabotages of one round."""
    fell = changed(before, after)
    explained = {i for s in made for i in matching((*s.expected, *s.tolerated), fell)}
    accidents = {identity: said for identity, said in fell.items() if identity not in explained}
    failed = {identity for identity in fell if identity in after and after[identity].verdict == "failed"}
    return [_outcome(sabotage, set(fell), failed, accidents) for sabotage in made]


def _outcome(sabotage: Sabotage, fell: set[str], failed: set[str], accidents: Mapping[str, str]) -> Outcome:
    by_pattern = {pattern: tuple(sorted(matching([pattern], failed))) for pattern in sabotage.expected}
    rest = fell - {identity for group in by_pattern.values() for identity in group}
    consequences = matching((*sabotage.expected, *sabotage.tolerated), rest)
    return Outcome(sabotage, by_pattern, tuple(sorted(consequences)), accidents)
