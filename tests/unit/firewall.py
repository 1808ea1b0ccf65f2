"""A small firewall as `nft -j list table` says it, for tests of its mutants."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lab.sabotage.mutants import Mutant, mutants
from lab.sabotage.rules import Ruleset
from roles.rendering import File

ACCEPT, DROP, COUNTER = {"accept": None}, {"drop": None}, {"counter": {"packets": 0, "bytes": 0}}
LIMIT = {"limit": {"rate": 20, "burst": 20, "per": "second"}}
OVER = {"set": {"op": "update", "elem": {"payload": {"protocol": "ether", "field": "saddr"}}, "set": "@many",
                "stmt": [{"limit": {"rate": 5, "burst": 25, "per": "second", "inv": True}}]}}  # fmt: skip


def by(interface: str, key: str = "iifname") -> dict[str, Any]:
    return {"match": {"op": "==", "left": {"meta": {"key": key}}, "right": interface}}


def match(protocol: str, field: str, right: Any, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": {"payload": {"protocol": protocol, "field": field}}, "right": right}}


def state(*states: str) -> dict[str, Any]:
    return {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": list(states)}}


def led(to: Mapping[str, str]) -> dict[str, Any]:
    """To a chain, by the interface."""
    entries = [[bridge, {"goto": {"target": chain}}] for bridge, chain in to.items()]
    return {"vmap": {"key": {"meta": {"key": "iifname"}}, "data": {"set": entries}}}


RULES: dict[str, list[list[Any]]] = {
    "spoofing": [
        [by("br-guest"), match("ip", "saddr", "@from_guest", "!="), COUNTER, DROP],
        [by("br-net"), match("ip", "saddr", "@bogons"), COUNTER, DROP],
    ],
    "input": [
        [state("established", "related"), COUNTER, ACCEPT],
        [by("br-guest"), match("ip", "daddr", "10.0.3.1"), match("tcp", "dport", 53), COUNTER, ACCEPT],
        [by("br-iot"), match("ip", "daddr", "10.0.1.1"), match("tcp", "dport", {"set": [53, 8883]}),
         {"goto": {"target": "let_in"}}],
        [match("icmp", "type", "echo-request"), LIMIT, ACCEPT],
        [by("br-iot"), {"log": {"prefix": "iot in: ", "level": "info"}}],
        [COUNTER, DROP],
    ],
    "let_in": [[by("br-iot"), OVER, COUNTER, DROP], [ACCEPT]],
    "to_cloud": [[match("ip", "daddr", "@cloud"), match("tcp", "dport", 443), ACCEPT]],
    "forward": [
        [state("established", "related"), ACCEPT],
        [by("br-guest"), by("br-net", "oifname"), ACCEPT],
        [by("br-iot"), by("br-net", "oifname"),
         {"vmap": {"key": {"payload": {"protocol": "ether", "field": "saddr"}}, "data": "@own"}}],
        [COUNTER, DROP],
    ],
    "translate": [[by("br-net", "oifname"), {"masquerade": None}]],
}  # fmt: skip
# The same where the interface leads to chains of its own.
LED: dict[str, list[list[Any]]] = {
    "senders": [[match("ip", "saddr", "@from_guest", "!="), COUNTER, DROP]],
    "strangers": [[match("ip", "saddr", "@bogons"), COUNTER, DROP]],
    "guests": [[match("ip", "daddr", "10.0.3.1"), match("tcp", "dport", 53), COUNTER, ACCEPT], [COUNTER, DROP]],
    "things": [[match("ip", "daddr", "10.0.1.1"), match("tcp", "dport", 8883), ACCEPT]],
    "spoofing": [[led({"br-guest": "senders", "br-net": "strangers"})]],
    "input": [[led({"br-guest": "guests", "br-iot": "things"})], [COUNTER, DROP]],
}
HOOKS = {
    "spoofing": ("filter", "prerouting", "accept"),
    "input": ("filter", "input", "drop"),
    "forward": ("filter", "forward", "drop"),
    "translate": ("nat", "postrouting", "accept"),
}


def listing(rules: Mapping[str, list[list[Any]]] = RULES, *more: dict[str, Any]) -> str:
    at = {"family": "inet", "table": "gatehouse"}
    entries: list[dict[str, Any]] = [{"metainfo": {"version": "1.0.6"}}, {"table": {"name": "gatehouse"}}]
    for chain in rules:
        kind, hook, policy = HOOKS.get(chain, ("", "", ""))
        base = {"type": kind, "hook": hook, "prio": 0, "policy": policy} if kind else {}
        entries.append({"chain": {**at, "name": chain, **base}})
    four, interval = {**at, "type": "ipv4_addr"}, {"flags": ["interval"]}
    entries += [
        {"set": {**four, **interval, "name": "from_guest", "elem": [{"prefix": {"addr": "10.0.3.0", "len": 24}}]}},
        {"set": {**four, **interval, "name": "bogons", "elem": [{"prefix": {"addr": "240.0.0.0", "len": 4}}]}},
        {"set": {**four, **interval, "name": "cloud", "elem": ["192.0.2.80"]}},
        {"set": {**at, "type": "ether_addr", "name": "many", "flags": ["timeout"]}},
        {"map": {**at, "type": "ether_addr", "map": "verdict", "name": "own",
                 "elem": [["02:00:00:00:00:01", {"jump": {"target": "to_cloud"}}]]}},
    ]  # fmt: skip
    handle = 100
    for chain, several in rules.items():
        for expr in several:
            handle += 1
            entries.append({"rule": {**at, "chain": chain, "handle": handle, "expr": expr}})
    return json.dumps({"nftables": [*entries, *more]})


def chains(made: File) -> dict[str, list[str]]:
    """The rules of each chain, as a ruleset for a gateway says them."""
    found: dict[str, list[str]] = {}
    place = ""
    for line in made.content.decode().splitlines():
        if line.endswith("{"):
            kind, _, name = line.removesuffix(" {").strip().partition(" ")
            place = name if kind == "chain" else ""
        elif place and line.startswith("\t\t"):
            found.setdefault(place, []).append(line.strip())
    return found


def names(ruleset: Ruleset) -> list[str]:
    return [mutant.name for mutant in mutants(ruleset)]


def named(ruleset: Ruleset, name: str) -> Mutant:
    return next(mutant for mutant in mutants(ruleset) if mutant.name == name)
