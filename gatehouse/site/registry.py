"""Reads the device registry, `inventories/devices/SITE.toml`: public facts only.

What `registry_writer` writes is one simple line a fact, and such files are read by a scanner of our own, several times
faster than the standard library's parser: with 10,000 devices every command waits for it. Whatever else TOML allows is
left to `tomllib`, and what is wrong is wrong in its words.
"""

from __future__ import annotations

import datetime
import re
import tomllib
from pathlib import Path
from typing import Any

from gatehouse.site.problems import Problem, SiteError

# A string without escapes holds no quote, no backslash and no control character but the tab (TOML 1.0, "String").
_STRING = r'"[^"\\\x00-\x08\x0a-\x1f\x7f]*"'
_LINE = re.compile(
    rf"""
      [ ]*\[\[device\]\][ ]*                                        # the next device
    | ([A-Za-z0-9_]+)[ ]*=[ ]*                                      # 1: a key, and as its value …
      (?: ({_STRING})                                               # 2: a string
        | (\[(?:{_STRING}(?:,[ ]{_STRING})*)?\])                    # 3: strings
        | ([0-9]{{4}}-[01][0-9]-[0-3][0-9][T ][0-2][0-9]:[0-5][0-9]:[0-5][0-9]Z)  # 4: a moment, UTC
        | (0|[1-9][0-9]{{0,17}})                                    # 5: a number
      )[ ]*(?:\#[^\x00-\x08\x0a-\x1f\x7f]*)?
    | ([ \t]*(?:\#[^\x00-\x08\x0a-\x1f\x7f]*)?)                     # 6: nothing, or a comment
    """,
    re.VERBOSE,
)


_last: tuple[bytes, list[dict[str, Any]]] = (b"", [])
"""What was read last: one command reads the same ten thousand devices several times. Nobody changes an entry."""


def read(path: Path) -> list[dict[str, Any]]:
    """The `[[device]]` entries as they stand, not yet validated: `Site` does that. Raises `SiteError`."""
    try:
        return parse(path.read_bytes(), path)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise SiteError(
            [Problem("registry", f"can't be read: {error.strerror}", "check the file", str(path))]
        ) from None


def parse(raw: bytes, path: Path) -> list[dict[str, Any]]:
    """The entries of a registry's bytes; `path` is for messages. Raises `SiteError`."""
    global _last
    if raw == _last[0]:
        return list(_last[1])
    try:
        text = raw.decode()
        found = scan(text)
        content = {"device": found} if found is not None else tomllib.loads(text)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SiteError([Problem("registry", f"is no TOML: {error}", "mend that line", str(path))]) from None
    unknown = sorted(content.keys() - {"device"})
    if unknown:
        raise SiteError([Problem(unknown[0], "unknown key", "a registry holds [[device]] tables only", str(path))])
    devices = content.get("device", [])
    if not isinstance(devices, list) or not all(isinstance(entry, dict) for entry in devices):
        raise SiteError([Problem("device", "is no list of tables", "write [[device]] above each device", str(path))])
    _last = raw, list(devices)
    return devices


def scan(text: str) -> list[dict[str, Any]] | None:
    """The entries of a registry in which every line is a simple one; None when one is not, for `tomllib` to judge."""
    devices: list[dict[str, Any]] = []
    # Most lines are those of other devices, too: the same model, gateway, segment, day. None starts a device.
    known: dict[str, tuple[str, Any] | None] = {"[[device]]": None}
    for line in text.split("\n"):
        if line in known:
            fact = known[line]
        else:
            try:
                fact = known[line] = _fact(line)
            except ValueError:  # no simple line, or no such day
                return None
        if fact is None:
            devices.append({})
        elif fact[0]:
            key, value = fact
            if not devices or key in devices[-1]:
                return None
            devices[-1][key] = value
    return devices


def _fact(line: str) -> tuple[str, Any] | None:
    """Key and value of a line, None for the header of a device, an empty key for no fact. Raises ValueError."""
    found = _LINE.fullmatch(line)
    if found is None:
        raise ValueError
    group = found.lastindex
    if group is None:
        return None
    return ("", None) if group == 6 else (found[1], _value(group, found[group]))


def _value(group: int, text: str) -> Any:
    if group == 2:
        return text[1:-1]
    if group == 3:
        return text[2:-2].split('", "') if len(text) > 2 else []
    if group == 4:
        return datetime.datetime.fromisoformat(text)
    return int(text)
