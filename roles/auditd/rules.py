"""Rules as auditctl(8) reads and lists them, in one form: what is declared can be compared with what is loaded."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

# What a line of a file sets, by the name that `auditctl -s` has for it.
_SETS = {"-e": "enabled", "-f": "failure", "-b": "backlog_limit", "--backlog_wait_time": "backlog_wait_time"}
_SHORT = {"-w": "path=", "-p": "perm=", "-k": "key="}
_FIELD = re.compile(r"(\w+)(!=|<=|>=|&=|=|<|>|&)(.*)")
# The login of what nobody has logged in for: three ways to write the same number.
_NOBODY = ("unset", "4294967295", "-1")
LOCKED = "2"
"""`enabled` of a kernel that takes no other rules until its next start."""


@dataclass(frozen=True)
class Rules:
    """The settings by name, and the rules in their order: of one list the first that fits decides."""

    settings: dict[str, str] = field(default_factory=dict)
    rules: tuple[str, ...] = ()

    @property
    def locked(self) -> bool:
        """Whether they hold until the next start."""
        return self.settings.get("enabled") == LOCKED

    def lacks(self, wanted: Rules) -> list[str]:
        """What of these is not as wanted: each rule that only one has, their order, each setting."""
        found = [
            f"{name} is {self.settings.get(name)}, not {value}"
            for name, value in wanted.settings.items()
            if self.settings.get(name) != value
        ]
        found += [f"not loaded: {rule}" for rule in wanted.rules if rule not in self.rules]
        found += [f"not declared: {rule}" for rule in self.rules if rule not in wanted.rules]
        return found or (["loaded in another order"] if self.rules != wanted.rules else [])


def declared(text: str) -> Rules:
    """What a file of rules asks for."""
    settings, rules = {}, []
    for words in map(str.split, text.splitlines()):
        if words[:1] and words[0] in _SETS:
            settings[_SETS[words[0]]] = words[1]
        elif words[:1] in (["-a"], ["-w"]):
            rules.append(normal(words))
    return Rules(settings, tuple(rules))


def listed(lines: Iterable[str]) -> Rules:
    """What `auditctl -s` and then `auditctl -l` print."""
    settings, rules = {}, []
    for words in map(str.split, lines):
        if words[:1] in (["-a"], ["-w"]):
            rules.append(normal(words))
        elif len(words) > 1:
            settings[words[0]] = words[1]
    return Rules(settings, tuple(rules))


def normal(words: Iterable[str]) -> str:
    """One rule, `always,exit` by default: a watch as the fields that it stands for, syscalls and fields in order."""
    where, calls, fields = "always,exit", set[str](), set[str]()
    for option, value in _pairs(words):
        if option == "-a":
            where = value
        elif option == "-S":
            calls |= {call for call in value.split(",") if call != "all"}
        elif option == "-F":
            fields.add(_field(value))
        else:
            fields.add(_field(_SHORT.get(option, option) + value))
    return " ".join([where, *sorted(calls), *sorted(fields)])


def _pairs(words: Iterable[str]) -> Iterator[tuple[str, str]]:
    each = iter(words)
    return zip(each, each, strict=False)


def _field(text: str) -> str:
    parts = _FIELD.fullmatch(text)
    if parts is None:
        return text
    name, how, value = parts.groups()
    if name in ("dir", "path"):
        return f"watch={value.rstrip('/')}"
    if name == "perm":
        value = "".join(sorted(value))
    return f"{name}{how}{_NOBODY[0] if name == 'auid' and value in _NOBODY else value}"
