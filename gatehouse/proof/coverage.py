"""How far a run speaks for each standard: what is proven, what failed, what isn't proven, what no gateway can reach."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

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
    """Every control of the standards that are reported on, by framework, in the catalogue's order."""
    by_control: dict[str, list[Check]] = {}
    for check in run.checks:
        for reference in check.controls:
            by_control.setdefault(reference, []).append(check)
    return {
        framework: tuple(
            _covered(control, by_control.get(control.reference, ()))
            for control in controls().values()
            if control.framework == framework
        )
        for framework in STANDARDS
    }


def _covered(control: Control, checks: Iterable[Check]) -> Covered:
    made = tuple(checks)
    if failed := [check for check in made if check.verdict == "failed"]:
        waived = sum(check.waiver is not None for check in failed)
        rest = f" ({waived} waived)" if waived else ""
        return Covered(control, "failed", f"{len(failed)} of {len(made)} checks failed{rest}", made)
    if any(check.verdict == "proven" for check in made):
        part = "" if control.kit == "full" else ", the gateway's part of it"
        number = sum(check.verdict == "proven" for check in made)
        return Covered(control, "proven", f"{number} of {len(made)} checks{part}", made)
    if made:
        return Covered(control, "not_proven", "its checks could not be made here", made)
    if control.kit == "none":
        return Covered(control, "out_of_reach", _ELSEWHERE[control.scope])
    if control.kit == "partial" and control.scope != "gateway":
        return Covered(control, "out_of_reach", _ELSEWHERE[control.scope])
    return Covered(control, "not_proven", "no check speaks for it")


def table(run: Run) -> str:
    """A row a standard: how many of its controls stand how."""
    found = covered(run)
    width = max(len(title) for title in STANDARDS.values())
    lines = [f"{'standard':{width}}  {'proven':>6}  {'failed':>6}  {'not proven':>10}  {'out of reach':>12}"]
    for framework, title in STANDARDS.items():
        counts = [sum(entry.standing == standing for entry in found[framework]) for standing in STANDINGS]
        cells = (f"{count or '-':>{size}}" for count, size in zip(counts, (6, 6, 10, 12), strict=True))
        lines.append(f"{title:{width}}  {'  '.join(cells)}")
    return "\n".join(lines)
