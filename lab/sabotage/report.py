"""What came of a sabotage run: as a table for people, and as JSON for machines."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import state
from lab.sabotage.catalogue import OUT_OF_REACH, SABOTAGES
from lab.sabotage.judge import Checks, Outcome, changed
from lab.sabotage.model import expanded

_HEAD = ("sabotage", "checks that should fail", "did", "fell with it", "by accident")
_WIDTHS = (30, 78, 8, 12, 11)


@dataclass(frozen=True)
class Report:
    """What became of all sabotages, round by round; `before` and `after` are what the suite said first and last.

    `passing` is what happened once and did not when the same round was made again, a line each.
    """

    rounds: tuple[tuple[Outcome, ...], ...]
    before: Checks
    after: Checks
    seconds: float
    passing: tuple[str, ...] = ()

    @property
    def outcomes(self) -> list[Outcome]:
        """All of them, in the catalogue's order."""
        order = {sabotage.name: number for number, sabotage in enumerate(SABOTAGES)}
        found = [outcome for group in self.rounds for outcome in group]
        return sorted(found, key=lambda outcome: order[outcome.sabotage.name])

    @property
    def seen(self) -> set[str]:
        """The checks that failed under a sabotage that names them."""
        return {i for outcome in self.outcomes for group in outcome.failed.values() for i in group}

    @property
    def never_failed(self) -> list[str]:
        """The checks that failed under no sabotage that names them, and of which nothing says why.

        None unless every sabotage was made: a part of them says nothing of the other checks.
        """
        if len(self.outcomes) < len(SABOTAGES):
            return []
        return sorted(set(self.before) - self.seen - set(OUT_OF_REACH))

    @property
    def left(self) -> dict[str, str]:
        """The checks that say something else at the end than at the beginning, and what."""
        return changed(self.before, self.after)

    @property
    def caught(self) -> int:
        """How many sabotages were caught."""
        return sum(outcome.caught for outcome in self.outcomes)

    @property
    def repaired(self) -> int:
        """After how many the next deploy left nothing to change."""
        return sum(not outcome.unrepaired for outcome in self.outcomes)

    @property
    def accidents(self) -> int:
        """How many checks fell by accident, counted once a round."""
        return sum(len(group[0].accidents) for group in self.rounds)

    @property
    def succeeded(self) -> bool:
        """Whether every one was caught and repaired, and nothing fell by accident."""
        return bool(self.rounds) and all(outcome.clean for outcome in self.outcomes) and not self.left


def table(report: Report) -> str:
    """A row for each pattern of each sabotage, then what is wrong, and the verdict last."""
    lines = [_row(*_HEAD)]
    for outcome in report.outcomes:
        rest = (str(len(outcome.consequences) or "-"), str(len(outcome.accidents) or "-"))
        name = outcome.sabotage.name
        for pattern in outcome.sabotage.catches:
            met = [bool(outcome.failed[each]) for each in expanded((pattern,))]
            lines.append(_row(name, pattern, f"{sum(met)} of {len(met)}", *rest))
            name, rest = "", ("", "")
    lines += ["", *dict.fromkeys(problem for outcome in report.outcomes for problem in outcome.problems())]
    lines += [f"changed for good: {identity}: {said}" for identity, said in report.left.items()]
    lines += [f"did not recur: {said}" for said in report.passing]
    lines += [f"never seen to fail: {identity}" for identity in report.never_failed]
    lines += [f"out of reach: {identity}: {reason}" for identity, reason in OUT_OF_REACH.items()]
    return "\n".join([*lines, "", conclusion(report)])


def conclusion(report: Report) -> str:
    """`50 sabotages, 50 caught, 0 false alarms`, and how long it took."""
    return (
        f"{len(report.outcomes)} sabotages, {report.caught} caught, {report.accidents} false alarms"
        f" ({len(report.passing)} more did not recur), {report.repaired} repaired; {len(report.seen)} of {len(report.before)} checks seen to fail"
        f" ({len(report.rounds)} rounds, {report.seconds / 60:.1f} min)"
    )


def _row(*cells: str) -> str:
    return "  ".join(f"{cell:{width}}" for cell, width in zip(cells, _WIDTHS, strict=True)).rstrip()


def as_dict(report: Report) -> dict[str, Any]:
    """What stands in sabotage.json."""
    numbers = {o.sabotage.name: number for number, group in enumerate(report.rounds, start=1) for o in group}
    return {
        "summary": {
            "sabotages": len(report.outcomes),
            "caught": report.caught,
            "repaired": report.repaired,
            "false_alarms": report.accidents,
            "did_not_recur": len(report.passing),
            "checks": len(report.before),
            "succeeded": report.succeeded,
            "seconds": round(report.seconds),
        },
        "sabotages": [
            {
                "name": outcome.sabotage.name,
                "title": outcome.sabotage.title,
                "round": numbers[outcome.sabotage.name],
                "caught": outcome.caught,
                "should_fail": {pattern: list(failed) for pattern, failed in outcome.failed.items()},
                "fell_with_it": list(outcome.consequences),
                "by_accident": dict(outcome.accidents),
                "unmade": outcome.unmade,
                "unrepaired": outcome.unrepaired,
            }
            for outcome in report.outcomes
        ],
        "never_failed": report.never_failed,
        "out_of_reach": OUT_OF_REACH,
        "changed_for_good": report.left,
        "did_not_recur": list(report.passing),
    }


def write(report: Report, folder: Path) -> Path:
    """Writes sabotage.json into the site's reports; returns its path."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / "sabotage.json"
    state.write(path, (json.dumps(as_dict(report), indent=1) + "\n").encode(), 0o644)
    return path
