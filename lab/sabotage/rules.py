"""A ruleset as `nft -j list table` says it, and its rules in nft's own words (libnftables-json(5), nft(8))."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from gatehouse.errors import GatehouseError

FAMILY, TABLE = "inet", "gatehouse"
EVERYTHING = {
    "ipv4_addr": {"prefix": {"addr": "0.0.0.0", "len": 0}},  # noqa: S104  no address to bind to
    "ipv6_addr": {"prefix": {"addr": "::", "len": 0}},
}
_KNOWN = {"metainfo", "table", "chain", "rule", "set", "map"}


class MutationError(GatehouseError):
    """A ruleset that can't be mutated."""


@dataclass(frozen=True)
class Rule:
    """A rule: its chain, its place there from 0, the kernel's handle of it, and what it consists of."""

    chain: str
    place: int
    handle: int
    expr: tuple[Mapping[str, Any], ...]
    comment: str = ""

    @property
    def text(self) -> str:
        """As nft takes it."""
        words = " ".join(map(said, self.expr))
        return f'{words} comment "{self.comment}"' if self.comment else words

    @property
    def label(self) -> str:
        """The same without counters, comments, and what a map of its own holds, for people."""
        return " ".join(_in_short(each) for each in self.expr if "counter" not in each)

    @property
    def key(self) -> tuple[str, int]:
        """Where it is."""
        return self.chain, self.place

    @cached_property
    def by(self) -> frozenset[str] | None:
        """The interfaces that its packets come by; None for all."""
        for each in self.expr:
            if (
                "match" in each
                and each["match"]["left"] == {"meta": {"key": "iifname"}}
                and each["match"]["op"] == "=="
            ):
                right = each["match"]["right"]
                return frozenset(right["set"] if isinstance(right, dict) else [right])
        return None


@dataclass(frozen=True)
class Ruleset:
    """The kit's table: its chains with their rules in order, the hooks and policies of base chains, sets and maps."""

    chains: Mapping[str, tuple[Rule, ...]]
    base: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    sets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    maps: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, listing: str) -> Ruleset:
        """From the output of `nft -j list table inet gatehouse`. Raises `MutationError` for what it doesn't know."""
        try:
            entries = [next(iter(entry.items())) for entry in json.loads(listing)["nftables"]]
        except (ValueError, KeyError, TypeError, AttributeError, StopIteration):
            raise MutationError("nft -j list table: no ruleset (is the gateway hardened?)") from None
        if unknown := sorted({kind for kind, _ in entries} - _KNOWN):
            raise MutationError(f"nft -j list table: nobody knows how to mutate a {unknown[0]} (lab/sabotage/rules.py)")
        chains: dict[str, list[Rule]] = {entry["name"]: [] for kind, entry in entries if kind == "chain"}
        for kind, entry in entries:
            if kind == "rule":
                of = chains[entry["chain"]]
                of.append(
                    Rule(entry["chain"], len(of), entry["handle"], tuple(entry["expr"]), entry.get("comment", ""))
                )
        if not any(chains.values()):
            raise MutationError("nft -j list table: not one rule (is the gateway hardened?)")
        return cls(
            {name: tuple(rules) for name, rules in chains.items()},
            {entry["name"]: entry for kind, entry in entries if kind == "chain" and "hook" in entry},
            {entry["name"]: entry for kind, entry in entries if kind == "set"},
            {entry["name"]: entry for kind, entry in entries if kind == "map"},
        )

    @cached_property
    def rules(self) -> list[Rule]:
        """All of them."""
        return [rule for rules in self.chains.values() for rule in rules]

    def lets_through(self, rule: Rule) -> bool:
        """Whether a packet that meets a rule may pass because of it."""
        return any("accept" in each or "masquerade" in each for each in rule.expr) or any(
            self.chain_accepts(target) for target in self.targets(rule)
        )

    def targets(self, rule: Rule) -> Iterator[str]:
        """The chains that a rule leads to."""
        for each in rule.expr:
            for verb in ("jump", "goto"):
                if verb in each:
                    yield each[verb]["target"]
            if "vmap" in each:
                yield from dict.fromkeys(verdict_target(v) for _, v in self.pairs(each["vmap"]["data"]))

    def pairs(self, data: str | Mapping[str, Any]) -> list[tuple[Any, Any]]:
        """The keys of a verdict map, each with its verdict: of one that is named, or of a rule's own."""
        found = self.maps[data.removeprefix("@")].get("elem", ()) if isinstance(data, str) else data["set"]
        return [(key, verdict) for key, verdict in found]

    def chain_accepts(self, chain: str) -> bool:
        """Whether anything in a chain, or in those that it leads to, accepts."""
        return any(self.lets_through(rule) for rule in self.chains[chain])

    def at(self, hook: str) -> frozenset[str]:
        """The chains that packets come to at a hook: its own, and those that these lead to."""
        found: set[str] = set()
        ahead = [chain for chain, base in self.base.items() if base["hook"] == hook]
        while ahead:
            chain = ahead.pop()
            if chain not in found:
                found.add(chain)
                ahead += [target for rule in self.chains[chain] for target in self.targets(rule)]
        return frozenset(found)

    def with_rule(self, rule: Rule, expr: tuple[Mapping[str, Any], ...] | None) -> Ruleset:
        """The same with another rule in its place; None: one that does nothing."""
        rules = list(self.chains[rule.chain])
        rules[rule.place] = replace(rule, expr=expr or ())
        return replace(self, chains={**self.chains, rule.chain: tuple(rules)})

    def with_elements(self, name: str, elements: list[Any]) -> Ruleset:
        """The same with other elements in a set."""
        return replace(self, sets={**self.sets, name: {**self.sets[name], "elem": elements}})

    def with_policy(self, chain: str, policy: str) -> Ruleset:
        """The same with another policy of a base chain."""
        return replace(self, base={**self.base, chain: {**self.base[chain], "policy": policy}})


def verdict_target(verdict: Mapping[str, Any]) -> str:
    """The chain of a `jump` or `goto`."""
    return str(next(iter(verdict.values()))["target"])


def said(each: Mapping[str, Any]) -> str:
    """A part of a rule in nft's words. Raises `MutationError` for one that is not known."""
    kind, what = next(iter(each.items()))
    match kind:
        case "match":
            return _match(what)
        case "counter":
            return "counter"
        case "accept" | "drop" | "masquerade":
            return str(kind)
        case "goto" | "jump":
            return f"{kind} {what['target']}"
        case "limit":
            over = "over " if what.get("inv") else ""
            return f"limit rate {over}{what['rate']}/{what['per']} burst {what['burst']} packets"
        case "log":
            return f'log prefix "{what["prefix"]}" level {what["level"]}'
        case "reject":
            return f"reject with {what['type']} {what['expr']}" if what else "reject"
        case "set":
            extra = "".join(f" {said(stmt)}" for stmt in what.get("stmt", ()))
            return f"{what['op']} {what['set']} {{ {_left(what['elem'])}{extra} }}"
        case "vmap":
            return f"{_left(what['key'])} vmap {_verdicts(what)}"
    raise MutationError(f"a rule with '{kind}': nobody knows how to say it (lab/sabotage/rules.py)")


def _in_short(each: Mapping[str, Any]) -> str:
    own = "vmap" in each and not isinstance(each["vmap"]["data"], str)
    return f"{_left(each['vmap']['key'])} vmap {{…}}" if own else said(each)


def left_of(match: Mapping[str, Any]) -> str:
    """What a match looks at: `iifname`, `ip daddr`."""
    return _left(match["left"])


def _match(what: Mapping[str, Any]) -> str:
    left, op = _left(what["left"]), what["op"]
    explicit = op == "!=" or "&" in what["left"]
    quoted = left in ("iifname", "oifname")
    return f"{left}{f' {op}' if explicit else ''} {_value(what['right'], quoted)}"


def _verdicts(what: Mapping[str, Any]) -> str:
    if isinstance(what["data"], str):
        return what["data"]
    quoted = _left(what["key"]) in ("iifname", "oifname")
    entries = (f"{_value(key, quoted)} : {said(verdict)}" for key, verdict in what["data"]["set"])
    return f"{{ {', '.join(entries)} }}"


def _left(what: Any) -> str:
    kind, inner = next(iter(what.items()))
    match kind:
        case "meta":
            return inner["key"] if inner["key"] in ("iifname", "oifname") else f"meta {inner['key']}"
        case "payload":
            return f"{inner['protocol']} {inner['field']}"
        case "ct":
            return f"ct {inner['key']}"
        case "fib":
            return f"fib {' . '.join(inner['flags'])} {inner['result']}"
        case "concat":
            return " . ".join(map(_left, inner))
        case "&":
            return f"{_left(inner[0])} & ({' | '.join(inner[1])})"
    raise MutationError(f"a match of '{kind}': nobody knows how to say it (lab/sabotage/rules.py)")


def _value(what: Any, quoted: bool = False) -> str:
    if isinstance(what, list):
        return ",".join(_value(each, quoted) for each in what)
    if isinstance(what, dict):
        kind, inner = next(iter(what.items()))
        if kind == "set":
            return f"{{ {', '.join(_value(each, quoted) for each in inner)} }}"
        if kind == "prefix":
            return f"{inner['addr']}/{inner['len']}"
        if kind == "range":
            return "-".join(map(str, inner))
        raise MutationError(f"a value of '{kind}': nobody knows how to say it (lab/sabotage/rules.py)")
    return f'"{what}"' if quoted else str(what)


def elements(what: list[Any]) -> str:
    """The elements of a set, between braces."""
    return f"{{ {', '.join(map(_value, what))} }}"
