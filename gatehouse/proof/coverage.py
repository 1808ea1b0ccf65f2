"""How far a run speaks for each standard: what is proven, what failed, what isn't proven, what no gateway can reach."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from gatehouse.proof.catalogue import Control, controls
from gatehouse.proof.results import Check, Run

Standing = Literal["proven", "failed", "not_proven", "out_of_reach"]
STANDINGS: tuple[Standing, ...] = get_args(Standing)

STANDARDS = {
    "OWASP-IoT-Top10-2018": "OWASP IoT Top 10 (2018)",
    "ETSI-EN-303-645-v3.1.3": "ETSI EN 303 645 v3.1.3",
    "NISTIR-8259A": "NISTIR 8259A",
    "IEC-62443-3-3/4-2": "IEC 62443-3-3 and 4-2",
    "EU-CRA-2024/2847": "EU CRA, Annex I",
}
CHECKLISTS = {
    "before-deployment": "Checklist: before deployment",
    "in-operation": "Checklist: in operation",
}
ROWS = {**STANDARDS, **CHECKLISTS}
"""What coverage is told for, with its title."""
FILE = Path(__file__).with_name("checklists.toml")
_FORMER = "ETSI-EN-303-645-v2.1.1"
_PRESENT = "ETSI-EN-303-645-v3.1.3"
# What asks for less than the provision of the same number did, and so speaks for itself alone.
_NARROWED = {f"{_PRESENT}:5.3-1", f"{_PRESENT}:5.3-16"}
_ELSEWHERE = {
    "device": "its evidence lies in the device, which a gateway can't look into",
    "process": "its evidence lies in how the maker or operator works, which no test of a gateway shows",
    "gateway": "it takes more than a gateway",
}


@dataclass(frozen=True)
class Covered:
    """A control, how it stands, and why; `checks` are those that speak for it."""

    control: Control
    standing: Standing
    reason: str
    checks: tuple[Check, ...] = ()


def covered(run: Run) -> dict[str, tuple[Covered, ...]]:
    """Every control of the standards that are reported on, and every point of the checklists, in their order."""
    found = controls_of(run)
    listed = {name: tuple(_point(entry, run.checks) for entry in checklists() if entry["list"] == name)
              for name in CHECKLISTS}  # fmt: skip
    return {**{framework: found[framework] for framework in STANDARDS}, **listed}


def controls_of(run: Run) -> dict[str, tuple[Covered, ...]]:
    """Every control of the whole catalogue, by framework, in the catalogue's order.

    What speaks for a provision of ETSI EN 303 645 v3.1.3 speaks for that of the same number in v2.1.1.
    """
    by_control: dict[str, list[Check]] = {}
    for check in run.checks:
        for reference in spoken_for(check.controls):
            by_control.setdefault(reference, []).append(check)
    found: dict[str, list[Covered]] = {}
    for control in controls().values():
        found.setdefault(control.framework, []).append(_covered(control, by_control.get(control.reference, ())))
    return {framework: tuple(entries) for framework, entries in found.items()}


def spoken_for(references: Iterable[str]) -> tuple[str, ...]:
    """The references, and those of the former edition of a standard that they stand for as well."""
    named = tuple(references)
    kept = (r for r in named if r.startswith(_PRESENT) and r not in _NARROWED)
    former = (r.replace(_PRESENT, _FORMER, 1) for r in kept)
    return tuple(dict.fromkeys([*named, *(reference for reference in former if reference in controls())]))


def gaps(run: Run) -> dict[str, tuple[Control, ...]]:
    """By framework: what a gateway alone can do in full (`kit = full`), and no check of the run speaks for."""
    found = {
        framework: tuple(e.control for e in entries if e.control.kit == "full" and not e.checks)
        for framework, entries in controls_of(run).items()
    }
    return {framework: named for framework, named in found.items() if named}


@cache
def checklists() -> Sequence[dict[str, Any]]:
    """The points of the checklists: `list`, `id`, `title`, the patterns of `checks` or where they are, `elsewhere`."""
    points: list[dict[str, Any]] = tomllib.loads(FILE.read_text())["point"]
    return points


def _point(entry: dict[str, Any], checks: Iterable[Check]) -> Covered:
    """A point is proven when each of its patterns has a check that is, and none has failed."""
    patterns: list[str] = entry.get("checks", [])
    scope, kit = ("gateway", "full") if patterns else ("device", "none")
    here = Control(entry["list"], entry["id"], entry["title"], "-", scope, kit)
    if not patterns:
        return Covered(here, "out_of_reach", entry["elsewhere"])
    made = tuple(check for check in checks if any(fnmatchcase(check.id, pattern) for pattern in patterns))
    failed = [check for check in made if check.verdict == "failed"]
    if failed:
        return Covered(here, "failed", f"{len(failed)} of {len(made)} checks failed", made)
    proven = [check.id for check in made if check.verdict == "proven"]
    missing = [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in proven)]
    if missing:
        return Covered(here, "not_proven", f"nothing was proven of {', '.join(missing)}", made)
    return Covered(here, "proven", f"{len(proven)} of {len(made)} checks", made)


def _covered(control: Control, checks: Iterable[Check]) -> Covered:
    made = tuple(checks)
    if failed := [check for check in made if check.verdict == "failed"]:
        waived = sum(check.waiver is not None for check in failed)
        rest = f" ({waived} waived)" if waived else ""
        return Covered(control, "failed", f"{len(failed)} of {len(made)} checks failed{rest}", made)
    if any(check.verdict == "proven" for check in made):
        part = "" if control.kit == "full" else ", the gateway's part of it"
        part += f" ({control.reason})" if control.reason else ""
        number = sum(check.verdict == "proven" for check in made)
        return Covered(control, "proven", f"{number} of {len(made)} checks{part}", made)
    if made:
        return Covered(control, "not_proven", "its checks could not be made here", made)
    if control.kit == "none" or (control.kit == "partial" and control.scope != "gateway"):
        return Covered(control, "out_of_reach", control.reason or _ELSEWHERE[control.scope])
    needs = f": it takes {control.needs}" if control.needs else ""
    return Covered(control, "not_proven", f"no check speaks for it{needs}")


def table(run: Run) -> str:
    """A row a standard: how many of its controls stand how; below, how many of all have no check at all."""
    found = covered(run)
    width = max(len(title) for title in ROWS.values())
    lines = [f"{'standard':{width}}  {'proven':>6}  {'failed':>6}  {'not proven':>10}  {'out of reach':>12}"]
    for framework, title in ROWS.items():
        counts = [sum(entry.standing == standing for entry in found[framework]) for standing in STANDINGS]
        cells = (f"{count or '-':>{size}}" for count, size in zip(counts, (6, 6, 10, 12), strict=True))
        lines.append(f"{title:{width}}  {'  '.join(cells)}")
    without = sum(map(len, gaps(run).values()))
    lines += [f"{without} controls that a gateway can do alone have no check: the report names them"] if without else []
    return "\n".join(lines)
