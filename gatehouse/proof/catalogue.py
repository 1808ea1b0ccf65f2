"""The catalogue of controls that checks map to: OWASP IoT Top 10, ETSI EN 303 645, CIS, RFC 9325, …"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from gatehouse.errors import GatehouseError

FILE = Path(__file__).with_name("controls.toml")


class UnknownControl(GatehouseError):
    """A check names a control that is not in the catalogue."""


@dataclass(frozen=True)
class Control:
    """An entry: `reference` is unique (`ETSI-EN-303-645-v3.1.3:5.6-1`); scope is gateway, device or process.

    `reason`: why a gateway can't do (all of) it, where its scope alone doesn't say so. `needs`: what a check
    of it would take, where a gateway can do all of it and no check speaks for it.
    """

    framework: str
    id: str
    title: str
    level: str
    scope: str
    kit: str
    reason: str = ""
    needs: str = ""

    @property
    def reference(self) -> str:
        """Framework and id: what checks name it by."""
        return f"{self.framework}:{self.id}"


@cache
def controls() -> dict[str, Control]:
    """The whole catalogue, by reference."""
    entries = tomllib.loads(FILE.read_text())["control"]
    always, sometimes = ("framework", "id", "title", "level", "scope", "kit"), ("reason", "needs")
    found = [
        Control(**{field: entry[field] for field in always}, **{f: entry[f] for f in sometimes if f in entry})
        for entry in entries
    ]
    return {control.reference: control for control in found}


def checked(references: Iterable[str], where: str) -> tuple[str, ...]:
    """The references, once each is known. Raises `UnknownControl`, which says `where` the wrong one stands."""
    known = controls()
    named = tuple(references)
    for reference in named:
        if reference not in known:
            raise UnknownControl(
                f"{where}: no control {reference!r} in {FILE.name} (write FRAMEWORK:ID as it stands there)"
            )
    return named
