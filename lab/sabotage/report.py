"""The table of a sabotage run for people, and the same for machines."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from lab.sabotage.catalogue import OUT_OF_REACH
from lab.sabotage.model import expanded
from lab.sabotage.run import Report

_HEAD = ("sabotage", "checks that should fail", "did", "fell with it", "by accident")
_WIDTHS = (30, 78, 8, 12, 11)


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
    lines += [f"never seen to fail: {identity}" for identity in report.never_failed]
    lines += [f"out of reach: {identity}: {reason}" for identity, reason in OUT_OF_REACH.items()]
    return "\n".join([*lines, "", conclusion(report)])


def conclusion(report: Report) -> str:
    """`50 sabotages, 50 caught, 0 false alarms`, and how long it took."""
    checks = len(report.before)
    seen = checks - len(report.never_failed) - len(OUT_OF_REACH.keys() & report.before.keys())
    return (
        f"{len(report.outcomes)} sabotages, {report.caught} caught, {report.accidents} false alarms,"
        f" {report.repaired} repaired; {seen} of {checks} checks seen to fail"
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
    }


def write(report: Report, folder: Path) -> Path:
    """Writes sabotage.json into the site's reports; returns its path."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / "sabotage.json"
    beside = path.with_name(".sabotage.json.new")
    beside.write_text(json.dumps(as_dict(report), indent=1) + "\n")
    shutil.move(beside, path)
    return path
