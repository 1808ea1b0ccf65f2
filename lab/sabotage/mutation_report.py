"""What came of a run of mutants: a table for people, JSON for machines; and the reviewed list of what no probe tells."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import state
from lab.sabotage.bench import SabotageError
from lab.sabotage.model import matching
from lab.sabotage.mutation import Mutation, Outcome

REVIEWED = Path(__file__).with_name("reviewed_mutants.toml")
EQUIVALENT, UNCOVERED = "equivalent", "uncovered"
_KEYS = {"mutants", "kind", "reason"}


@dataclass(frozen=True)
class Review:
    """Why no probe tells some mutants: they change nothing (`equivalent`), or nobody asks (`uncovered`)."""

    mutants: tuple[str, ...]
    kind: str
    reason: str

    def speaks_of(self, name: str) -> bool:
        """Whether a mutant is one of them."""
        return bool(matching(self.mutants, [name]))


def reviews(path: Path = REVIEWED) -> list[Review]:
    """The reviewed list. Raises `SabotageError` with the entry and the mend."""
    try:
        content = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise SabotageError(f"{path.name}: is not there (it comes with the kit)") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SabotageError(f"{path.name}: no TOML: {error}") from None
    if unknown := sorted(set(content) - {"reviewed"}):
        raise SabotageError(f"{path.name}: unknown '{unknown[0]}' (there is [[reviewed]] alone)")
    entries = content.get("reviewed", [])
    if not isinstance(entries, list):
        raise SabotageError(f"{path.name}: 'reviewed' is no list of tables (write [[reviewed]])")
    return [_review(f"{path.name}: entry {number}", entry) for number, entry in enumerate(entries, start=1)]


def _review(where: str, entry: Any) -> Review:
    if not isinstance(entry, dict):
        raise SabotageError(f"{where}: no table (write [[reviewed]])")
    if wrong := sorted(set(entry) ^ _KEYS):
        raise SabotageError(f"{where}: '{wrong[0]}' is {'unknown' if wrong[0] in entry else 'missing'}"
                            f" (there are {', '.join(sorted(_KEYS))})")  # fmt: skip
    patterns, kind, reason = entry["mutants"], entry["kind"], entry["reason"]
    if not (isinstance(patterns, list) and patterns and all(isinstance(p, str) and p for p in patterns)):
        raise SabotageError(f"{where}: 'mutants' is no list of patterns of names")
    if kind not in (EQUIVALENT, UNCOVERED):
        raise SabotageError(f"{where}: kind {kind!r} (it is '{EQUIVALENT}' or '{UNCOVERED}')")
    if not (isinstance(reason, str) and reason.strip()):
        raise SabotageError(f"{where}: gives no reason (say why no probe tells these)")
    return Review(tuple(patterns), kind, reason.strip())


@dataclass(frozen=True)
class Report:
    """A run beside the reviewed list."""

    run: Mutation
    reviews: tuple[Review, ...]

    def review(self, outcome: Outcome) -> Review | None:
        """What is written about a mutant that no probe told."""
        return next((r for r in self.reviews if r.speaks_of(outcome.name)), None)

    def kind(self, outcome: Outcome) -> str:
        """`probes`, `equivalent`, `uncovered`, `unreviewed` or `unmade`; `nothing` where not even the comparison saw it."""
        if outcome.unmade:
            return "unmade"
        if outcome.checks:
            return "probes"
        if not outcome.compared:
            return "nothing"
        review = self.review(outcome)
        return review.kind if review else "unreviewed"

    def count(self, *kinds: str) -> int:
        """How many mutants are of any of these kinds."""
        return sum(self.kind(outcome) in kinds for outcome in self.run.outcomes)

    @property
    def problems(self) -> list[str]:
        """What is wrong, a line each."""
        said = {"unmade": "could not be loaded", "nothing": "caught by nothing", "unreviewed": "told by no probe"}
        lines = [
            f"{said[kind]}: {o.name}{f': {o.unmade}' if o.unmade else ''}"
            for o in self.run.outcomes
            if (kind := self.kind(o)) in said
        ]
        lines += [
            f"reviewed as equivalent, and told by {next(iter(o.checks))}: {o.name}"
            for o in self.run.outcomes
            if o.checks and (review := self.review(o)) and review.kind == EQUIVALENT
        ]
        lines += [f"failed at the end, with the ruleset as declared: {n}: {why}" for n, why in self.run.left.items()]
        names = [o.name for o in self.run.outcomes]
        if self.run.whole:
            lines += [f"{REVIEWED.name} names no mutant: {p}" for p in _idle(self.reviews, names)]
        return lines

    @property
    def succeeded(self) -> bool:
        """Whether each was caught, by probes or with a reviewed reason why not, and the gateway is as it was."""
        return bool(self.run.outcomes) and not self.problems


def _idle(reviewed: Iterable[Review], names: list[str]) -> list[str]:
    return [pattern for review in reviewed for pattern in review.mutants if not matching([pattern], names)]


def table(report: Report) -> str:
    """A line for each mutant, then the reasons, then what is wrong, and the verdict last."""
    lines = ["mutant / what told it by the network / whether the comparison did", ""]
    for outcome in report.run.outcomes:
        told = list(outcome.checks)
        by = (
            f"{told[0]}{f' and {len(told) - 1} more' if len(told) > 1 else ''}"
            if told
            else f"- ({report.kind(outcome)})"
        )
        lines.append(f"{outcome.name}\n    {by:60}  {'compared' if outcome.compared else '-'}")
    for review in report.reviews:
        about = [o for o in report.run.outcomes if not o.checks and report.review(o) is review]
        if about:
            lines += ["", f"{len(about)} {review.kind}: {review.reason}", *(f"    {o.name}" for o in about)]
    return "\n".join([*lines, "", *report.problems, "", conclusion(report)])


def conclusion(report: Report) -> str:
    """How many, how caught, and how long it took."""
    run = report.run
    return (
        f"{len(run.outcomes)} mutants: {report.count('probes')} caught by probes,"
        f" {report.count(EQUIVALENT, UNCOVERED, 'unreviewed')} by comparison only"
        f" ({report.count(EQUIVALENT)} equivalent, {report.count(UNCOVERED)} uncovered with a reason,"
        f" {report.count('unreviewed')} without), {report.count('nothing', 'unmade')} by nothing"
        f" ({run.rounds} rounds, {run.seconds / 60:.1f} min)"
    )


def as_dict(report: Report) -> dict[str, Any]:
    """What stands in mutants.json."""
    return {
        "summary": {
            "mutants": len(report.run.outcomes),
            "caught_by_probes": report.count("probes"),
            "by_comparison_only": report.count(EQUIVALENT, UNCOVERED, "unreviewed"),
            "equivalent": report.count(EQUIVALENT),
            "uncovered": report.count(UNCOVERED),
            "unreviewed": report.count("unreviewed"),
            "caught_by_nothing": report.count("nothing", "unmade"),
            "rounds": report.run.rounds,
            "seconds": round(report.run.seconds),
            "succeeded": report.succeeded,
        },
        "mutants": [
            {
                "name": o.name,
                "kind": report.kind(o),
                "checks": dict(o.checks),
                "compared": o.compared,
                "unmade": o.unmade,
                "reason": review.reason if not o.checks and (review := report.review(o)) else "",
            }
            for o in report.run.outcomes
        ],
        "problems": report.problems,
    }


def write(report: Report, folder: Path) -> Path:
    """Writes mutants.json into the site's reports; returns its path."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / "mutants.json"
    state.write(path, (json.dumps(as_dict(report), indent=1) + "\n").encode(), 0o644)
    return path
