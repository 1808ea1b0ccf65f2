"""What a site's waivers make of a run: a failure that is waived stays one, and is shown as waived."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import date

from gatehouse.proof.results import Check, Run
from gatehouse.site.waivers import Waiver


def settle(run: Run, waivers: Mapping[str, Waiver], today: date, whole: bool) -> None:
    """Marks the failures that are waived, and notes in `run.problems` each waiver that doesn't count.

    `whole`: every check of the site was made, so that a waiver for one that is not there is for an unknown check.
    """
    by_id: dict[str, list[Check]] = {}
    for check in run.checks:
        by_id.setdefault(check.id, []).append(check)
    for name, waiver in waivers.items():
        problem = _problem(name, waiver, by_id, today, whole)
        if problem:
            run.problems.append(f"waiver '{name}': {problem}")
        elif name in by_id:
            run.checks = [_waived(check, waiver) if check.id == name else check for check in run.checks]


def _problem(name: str, waiver: Waiver, by_id: Mapping[str, list[Check]], today: date, whole: bool) -> str | None:
    if waiver.expires < today:
        return f"expired on {waiver.expires} (mend what {waiver.owner} waived, then remove it)"
    if name not in by_id:
        return "there is no such check (write the id as it stands in results.json)" if whole else None
    if waiver.compensated_by == name:
        return "is compensated by the check that it waives (name another)"
    others = by_id.get(waiver.compensated_by, [])
    if not others:
        return f"there is no compensating check {waiver.compensated_by!r}" if whole else None
    failing = any(check.verdict == "failed" for check in by_id[name])
    if failing and any(check.verdict != "proven" for check in others):
        return f"its compensating check {waiver.compensated_by} is not proven"
    return None


def _waived(check: Check, waiver: Waiver) -> Check:
    return replace(check, waiver=waiver.model_dump(mode="json")) if check.verdict == "failed" else check
