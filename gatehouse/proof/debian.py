"""Debian's version numbers, in their order (Debian Policy Manual §5.6.12, deb-version(7))."""

from __future__ import annotations

import re

_PARTS = re.compile(r"(\D*)(\d*)")
_NOTHING = ((0,), 0)
Key = tuple[int, tuple[tuple[tuple[int, ...], int], ...], tuple[tuple[tuple[int, ...], int], ...]]


def key(version: str) -> Key:
    """What versions are sorted by: epoch, upstream version, revision."""
    epoch, colon, rest = version.partition(":")
    if not colon or not epoch.isdecimal():
        epoch, rest = "0", version
    upstream, _, revision = rest.rpartition("-") if "-" in rest else (rest, "", "")
    return int(epoch), _part(upstream), _part(revision)


def _part(text: str) -> tuple[tuple[tuple[int, ...], int], ...]:
    parts = [((*map(_order, letters), 0), int(digits or 0)) for letters, digits in _PARTS.findall(text)]
    while parts and parts[-1] == _NOTHING:
        parts.pop()
    return (*parts, _NOTHING)


def _order(letter: str) -> int:
    """A tilde comes before the end (0), letters before all others."""
    return -1 if letter == "~" else ord(letter) if letter.isalpha() else ord(letter) + 256
