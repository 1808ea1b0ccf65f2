"""Destinations that are data: `inventories/destinations/SITE.toml`, one table each, beside those in the site's file."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gatehouse.site.problems import Problem, SiteError

LARGEST = 4 << 20

_tried: dict[Path, bytes] = {}


def read(path: Path, what: str = "destinations") -> dict[str, Any]:
    """The tables as they stand, not yet validated: `Site` does that. No file, no tables. Raises `SiteError`."""
    try:
        raw = _tried[path.absolute()] if path.absolute() in _tried else path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SiteError([Problem(what, f"can't be read: {error.strerror}", "check the file", str(path))]) from None
    try:
        content = tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SiteError([Problem(what, f"is no TOML: {error}", "mend that line", str(path))]) from None
    if stray := sorted(name for name, entry in content.items() if not isinstance(entry, dict)):
        raise SiteError([Problem(stray[0], "is no table", f"write [NAME] above each of the {what}", str(path))])
    return content


@contextmanager
def tried(path: Path, raw: bytes) -> Iterator[None]:
    """Within it, `read` finds `raw` in that file: to see whether a site would be valid with it."""
    _tried[path.absolute()] = raw
    try:
        yield
    finally:
        del _tried[path.absolute()]


def tables(entries: Mapping[str, Mapping[str, Any]]) -> str:
    """The tables of these destinations, TOML."""
    return "\n".join(
        f"[{name}]\n" + "".join(f"{key} = {_toml(value)}\n" for key, value in entry.items())
        for name, entry in entries.items()
    )


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, int):
        return str(value)
    # Basic strings of TOML are those of JSON but for a few escapes that no name or model has here.
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
