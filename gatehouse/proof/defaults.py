"""The logins that attackers try first, by service: `defaults.toml`."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path


@cache
def of(service: str) -> tuple[tuple[str, str], ...]:
    """User and password of each, those of one user together. KeyError for a service that the list does not know."""
    listed: dict[str, dict[str, list[str]]] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())
    return tuple((user, password) for user, passwords in listed[service].items() for password in passwords)
