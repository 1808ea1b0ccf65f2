"""What a sabotage is: a control of the gateway broken on purpose, and the checks that must notice."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import translate
from functools import cache

_BRACES = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True)
class Sabotage:
    """One control, broken.

    `breaks` is shell, run as root on the gateway behind `tools.sh`. `catches` are patterns of check ids (`*`, and
    `{a,b}` for alternatives): each must be met by a check that fails. `may` are patterns of checks that fall with it,
    each with the reason. `ends` is shell that takes away what no deploy can know of, such as an intruder's own process.
    `here` and `ends_here` are the same on the operator's side, where the registry is put back by itself; `$REGISTRY`,
    `$BUNDLES`, `$PYTHON`, `$SITE`, `$DOMAIN` and `$GATEWAY` say what is what there.
    `reads` names an authority's key in the vault, or one for firmware, that `breaks` gets on its standard input. `apart_from` are patterns of
    the names of other sabotages that would hide this one, or be hidden by it, if they shared a round.
    """

    name: str
    title: str
    catches: tuple[str, ...]
    breaks: str = ""
    here: str = ""
    may: Mapping[str, str] = field(default_factory=dict)
    ends: str = ""
    ends_here: str = ""
    reads: str = ""
    apart_from: tuple[str, ...] = ()

    @property
    def expected(self) -> tuple[str, ...]:
        """The patterns of `catches`, without braces."""
        return expanded(self.catches)

    @property
    def tolerated(self) -> tuple[str, ...]:
        """The patterns of `may`, without braces."""
        return expanded(self.may)


def expanded(patterns: Iterable[str]) -> tuple[str, ...]:
    """Patterns with each `{a,b}` written out: `x.{a,b}` is `x.a` and `x.b`."""
    found: list[str] = []
    for pattern in patterns:
        braces = _BRACES.search(pattern)
        if braces is None:
            found.append(pattern)
            continue
        head, tail = pattern[: braces.start()], pattern[braces.end() :]
        found += expanded(f"{head}{choice}{tail}" for choice in braces[1].split(","))
    return tuple(dict.fromkeys(found))


def matching(patterns: Iterable[str], identities: Iterable[str]) -> set[str]:
    """The check ids that meet any of the patterns (without braces)."""
    wanted = [_compiled(pattern) for pattern in patterns]
    return {identity for identity in identities if any(pattern.match(identity) for pattern in wanted)}


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(translate(pattern))
