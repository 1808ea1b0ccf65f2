"""Every mutant of a ruleset: each rule removed, each that lets something through widened, each set emptied or widened.

A rule that leads packets to chains by a map of its own loses one of its keys after the other.

A mutant is one change. It is made of the ruleset as the kernel lists it, so that a rule which is added tomorrow has its
mutants without anybody's doing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lab.sabotage.rules import EVERYTHING, FAMILY, TABLE, MutationError, Rule, Ruleset, elements, left_of

_AT = f"{FAMILY} {TABLE}"


@dataclass(frozen=True)
class Mutant:
    """One change of a ruleset.

    `name` is `CHAIN: RULE / removed`. `touches` is what is changed: of two mutants that touch the same, only one can be
    made at a time. `mutated` is the ruleset with it.
    """

    name: str
    touches: str
    rule: Rule | None
    mutated: Callable[[Ruleset], Ruleset] = field(repr=False, compare=False)
    command: Callable[[Ruleset], str] = field(repr=False, compare=False)
    """What nft is told, of a ruleset with the handles that its rules have now."""


def mutants(ruleset: Ruleset) -> list[Mutant]:
    """All of them, in the order of the ruleset. Raises `MutationError` where two have the same name."""
    found = [
        *(m for rule in ruleset.rules for m in _of_rule(ruleset, rule)),
        *_of_sets(ruleset),
        *_of_policies(ruleset),
    ]
    names = [mutant.name for mutant in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise MutationError(f"the ruleset has the same rule twice: {twice[0]}")
    return found


def _of_rule(ruleset: Ruleset, rule: Rule) -> Iterator[Mutant]:
    yield _changed(rule, "removed", None)
    yield from _less(rule)
    if not ruleset.lets_through(rule):
        return
    for number, each in enumerate(rule.expr):
        rest = (*rule.expr[:number], *rule.expr[number + 1 :])
        if "match" in each:
            yield _changed(rule, f"without {left_of(each['match'])}", rest)
        elif "limit" in each and not each["limit"].get("inv"):
            yield _changed(rule, "without limit", rest)
        elif "vmap" in each:
            for target in ruleset.targets(rule):
                to = {"jump": {"target": target}}
                yield _changed(rule, f"{target} for everybody", (*rule.expr[:number], to, *rule.expr[number + 1 :]))


def _less(rule: Rule) -> Iterator[Mutant]:
    """A rule that leads each to its own chain, with one of them left out in turn."""
    for number, each in enumerate(rule.expr):
        if "vmap" in each and not isinstance(each["vmap"]["data"], str):
            entries = each["vmap"]["data"]["set"]
            for entry in entries if len(entries) > 1 else ():
                rest = {"vmap": {**each["vmap"], "data": {"set": [other for other in entries if other is not entry]}}}
                yield _changed(rule, f"without {entry[0]}", (*rule.expr[:number], rest, *rule.expr[number + 1 :]))


def _changed(rule: Rule, what: str, expr: tuple[Mapping[str, Any], ...] | None) -> Mutant:
    def mutated(ruleset: Ruleset) -> Ruleset:
        return ruleset.with_rule(rule, expr)

    def command(now: Ruleset) -> str:
        handle = now.chains[rule.chain][rule.place].handle
        delete = f"delete rule {_AT} {rule.chain} handle {handle}"
        if expr is None:
            return delete
        # nft 1.0.6 falls over `replace rule` with an interval in it.
        text = Rule(rule.chain, rule.place, handle, expr, rule.comment).text
        return f"insert rule {_AT} {rule.chain} handle {handle} {text}; {delete}"

    return Mutant(f"{rule.chain}: {rule.label} / {what}", f"{rule.chain} {rule.place}", rule, mutated, command)


def _of_sets(ruleset: Ruleset) -> Iterator[Mutant]:
    """What a set holds decides who is dropped, or who is let through: by the rules that look at it."""
    for name, described in ruleset.sets.items():
        uses = [(rule, op) for rule in ruleset.rules for op in _looks_at(rule, name)]
        passing = any(ruleset.lets_through(rule) == (op == "==") for rule, op in uses)
        barring = any(not ruleset.lets_through(rule) and op == "==" for rule, op in uses)
        if barring and described.get("elem"):
            yield _refilled(name, "emptied", [])
        if passing and "interval" in described.get("flags", ()) and described["type"] in EVERYTHING:
            yield _refilled(name, "widened", [EVERYTHING[described["type"]]])


def _looks_at(rule: Rule, name: str) -> Iterator[str]:
    for each in rule.expr:
        if "match" in each and each["match"]["right"] == f"@{name}":
            yield each["match"]["op"]


def _refilled(name: str, what: str, content: list[Any]) -> Mutant:
    def mutated(ruleset: Ruleset) -> Ruleset:
        return ruleset.with_elements(name, content)

    def command(_: Ruleset) -> str:
        filled = f"; add element {_AT} {name} {elements(content)}" if content else ""
        return f"flush set {_AT} {name}{filled}"

    return Mutant(f"set {name} / {what}", f"set {name}", None, mutated, command)


def _of_policies(ruleset: Ruleset) -> Iterator[Mutant]:
    for chain, described in ruleset.base.items():
        if described.get("policy") == "drop":
            yield _open(chain)


def _open(chain: str) -> Mutant:
    def mutated(ruleset: Ruleset) -> Ruleset:
        return ruleset.with_policy(chain, "accept")

    def command(_: Ruleset) -> str:
        return f"chain {_AT} {chain} {{ policy accept; }}"

    return Mutant(f"chain {chain} / policy accept", f"policy {chain}", None, mutated, command)
