"""Finds and loads the site that an inventory names."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path

from gatehouse.site.model import Site
from gatehouse.site.problems import Problem, SiteError


def names(root: Path) -> list[str]:
    """The sites of a checkout: inventories that have group data."""
    return sorted(p.stem for p in (root / "inventories" / "group_data").glob("*.py") if p.stem != "all")


def load(name: str, root: Path) -> Site:
    """The site of `inventories/NAME`. Raises `SiteError` that names the file, whatever is wrong with it."""
    inventory = root / "inventories" / name
    file = root / "inventories" / "group_data" / f"{name}.py"
    shown = str(file.relative_to(root))
    if not inventory.is_file() or not file.is_file():
        missing = inventory if not inventory.is_file() else file
        known = ", ".join(names(root)) or "none yet"
        raise SiteError(
            [
                Problem(
                    f"site '{name}'",
                    f"no {missing.relative_to(root)}",
                    f"sites here: {known}; `./kit init {name}` makes one",
                )
            ]
        )
    try:
        site = runpy.run_path(str(file)).get("site")
    except SiteError as error:
        registry = f"inventories/devices/{name}.toml"
        placed = (replace(p, file=registry) if p.field.startswith("device ") else p for p in error.problems)
        raise SiteError(placed).within(shown) from None
    except Exception as error:  # whatever the operator's file raises is the operator's to mend, in one line
        line = _line_in(error, file)
        raise SiteError(
            [Problem(f"line {line}" if line else "file", f"{type(error).__name__}: {error}", "mend it", shown)]
        ) from None
    if not isinstance(site, Site):
        raise SiteError([Problem("site", "is missing or no Site", "end the file with `site = Site(…)`", shown)])
    if site.name != name:
        raise SiteError([Problem("site.name", f"is '{site.name}'", f"call it '{name}' like the inventory", shown)])
    return site


def _line_in(error: Exception, file: Path) -> int | None:
    """The last line of `file` that an error passed through."""
    if isinstance(error, SyntaxError):
        return error.lineno
    line, frame = None, error.__traceback__
    while frame is not None:
        if frame.tb_frame.f_code.co_filename == str(file):
            line = frame.tb_lineno
        frame = frame.tb_next
    return line
