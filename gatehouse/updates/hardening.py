"""How ESP-IDF is configured for a device that others can lay their hands on: written, and compared (`esp32.toml`)."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, get_args

from gatehouse.errors import GatehouseError
from gatehouse.updates.image import CHIPS

Profile = Literal["development", "release"]
PROFILES: tuple[Profile, ...] = get_args(Profile)

_LINE = re.compile(r"CONFIG_([A-Z0-9_]+)=(.*)")
_UNSET = re.compile(r"# CONFIG_([A-Z0-9_]+) is not set")


class HardeningError(GatehouseError):
    """A configuration that can't be read, or a profile or chip that there is not."""


@dataclass(frozen=True)
class Option:
    """An option of ESP-IDF without its `CONFIG_`, the value it must have, what for, and what that costs."""

    name: str
    value: str
    profile: str
    why: str
    costs: str
    chips: tuple[str, ...] = ()


@cache
def options() -> tuple[Option, ...]:
    """All of them, in the order in which they are written."""
    entries = tomllib.loads(Path(__file__).with_name("esp32.toml").read_text())["option"]
    return tuple(Option(**{**entry, "chips": tuple(entry.get("chips", ()))}) for entry in entries)


def wanted(profile: str, chip: str, bluetooth: bool = False) -> list[Option]:
    """The options of a profile for a chip. Raises `HardeningError`."""
    if profile not in PROFILES:
        raise HardeningError(f"profile {profile[:40]!r}: use {' or '.join(PROFILES)}")
    if chip not in CHIPS:
        raise HardeningError(f"chip {chip[:40]!r}: use one of {', '.join(CHIPS)}")
    return [
        option
        for option in options()
        if option.profile in ("always", profile)
        and (not option.chips or chip in option.chips)
        and not (bluetooth and option.name == "BT_ENABLED")
    ]


def defaults(model: str, profile: str, chip: str, bluetooth: bool = False) -> str:
    """The text of `sdkconfig.defaults`, with a comment on each line of it. Raises `HardeningError`."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,30}", model):
        raise HardeningError(f"model {model[:40]!r}: use up to 31 of a to z, 0 to 9, '.', '_' and '-'")
    lines = [
        f"# {model}: {profile} profile for {chip}. Made by Gatehouse (`firmware.harden`, `firmware.check-config`).",
        f'CONFIG_IDF_TARGET="{chip}"',
    ]
    for option in wanted(profile, chip, bluetooth):
        lines += ["", f"# {option.why}; costs: {option.costs}", f"CONFIG_{option.name}={option.value}"]
    return "\n".join(lines) + "\n"


def deviations(text: str, profile: str, bluetooth: bool = False) -> Iterator[str]:
    """What an `sdkconfig` has otherwise than the profile, a line each. Raises `HardeningError` when it is none."""
    found = _read(text)
    chip = found.get("IDF_TARGET", "").strip('"')
    if chip not in CHIPS:
        raise HardeningError("names no CONFIG_IDF_TARGET that is known; give the sdkconfig that `idf.py` has written")
    for option in wanted(profile, chip, bluetooth):
        have = found.get(option.name, "n")
        if have != option.value:
            yield f"CONFIG_{option.name}={have}, must be {option.value}: {option.why}"


def _read(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in text.splitlines():
        if match := _LINE.fullmatch(line.strip()):
            found[match[1]] = match[2]
        elif match := _UNSET.fullmatch(line.strip()):
            found[match[1]] = "n"
    return found
