"""What an operator does about a check that failed."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

FILE = Path(__file__).with_name("mends.toml")


def mend(check: str, site: str) -> str:
    """What to do about a check, by its id: the first entry that fits; the last one fits all."""
    fitting = (text for patterns, text in _mends() if any(fnmatchcase(check, pattern) for pattern in patterns))
    return next(fitting).replace("{site}", site)


@cache
def _mends() -> Sequence[tuple[tuple[str, ...], str]]:
    return [(tuple(entry["checks"]), entry["do"]) for entry in tomllib.loads(FILE.read_text())["mend"]]
