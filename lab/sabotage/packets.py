"""What a ruleset does with a packet, worked out: which of the suite's questions can tell a mutant from the ruleset.

It decides what is asked, and which mutants can be made at the same time; never whether one was caught: that is seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from lab.sabotage.rules import Rule, Ruleset

NEW, ESTABLISHED = "new", "established"
BROADCAST = "255.255.255.255"


@dataclass(frozen=True)
class Packet:
    """The first packet of a question, or of its answer. `towards` is the interface it leaves by, empty at its end."""

    by: str
    towards: str
    source: str
    target: str
    transport: str
    port: int
    hardware: str = ""
    state: str = NEW
    here: bool = False
    """Whether the target is an address of the interface that it came by."""
    kind: str = ""
    """ICMP's type."""

    @property
    def version(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.target else 4

    @property
    def answer(self) -> Packet:
        """The first packet back."""
        return replace(
            self, by=self.towards, towards=self.by, source=self.target, target=self.source, hardware="",
            state=ESTABLISHED, port=0, here=False,
        )  # fmt: skip


@dataclass(frozen=True)
class Question:
    """A probe of the suite's: from where, its id there, and its way.

    `there` is the packet out, None where it only leaves the gateway; `back` the answer, where that crosses the gateway,
    too. `areas` are what has to be asked anew to have it asked, empty for one that can be asked by itself.
    """

    position: str
    identity: str
    there: Packet | None
    back: Packet | None = None
    areas: frozenset[str] = field(default_factory=frozenset)


Way = tuple[str, ...]


def passes(ruleset: Ruleset, question: Question) -> Way:
    """What becomes of a question: for each of its packets `accept`, `translated` or `drop`, up to the first drop."""
    found: list[str] = []
    for packet in (question.there, question.back):
        if packet is not None and "drop" not in found:
            found.append(fate(ruleset, packet))
    return tuple(found)


def fate(ruleset: Ruleset, packet: Packet) -> str:
    """`accept`, `translated` (and accepted), or `drop`."""
    hooks = ["prerouting", "forward" if packet.towards else "input"]
    for chain, base in ruleset.base.items():
        if base["hook"] in hooks and base.get("type") == "filter":
            verdict = _through(ruleset, chain, packet) or base.get("policy", "accept")
            if verdict == "drop":
                return "drop"
    if packet.towards and packet.state == NEW:
        for chain, base in ruleset.base.items():
            if base["hook"] == "postrouting" and _through(ruleset, chain, packet) == "masquerade":
                return "translated"
    return "accept"


def _through(ruleset: Ruleset, chain: str, packet: Packet) -> str | None:
    """The verdict of a chain; None where it comes to its end."""
    for rule in ruleset.chains[chain]:
        if rule.by is not None and packet.by not in rule.by:
            continue
        verdict = _meets(ruleset, rule, packet)
        if verdict is None:
            continue
        verb, target = verdict
        if verb in ("jump", "goto"):
            deeper = _through(ruleset, target, packet)
            if deeper is not None:
                return deeper
            if verb == "goto":
                return None
            continue
        return "drop" if verb == "reject" else verb
    return None


def meets(ruleset: Ruleset, rule: Rule, packet: Packet) -> bool:
    """Whether a packet meets a rule that has a verdict."""
    return (rule.by is None or packet.by in rule.by) and _meets(ruleset, rule, packet) is not None


def _meets(ruleset: Ruleset, rule: Rule, packet: Packet) -> tuple[str, str] | None:
    for each in rule.expr:
        kind, what = next(iter(each.items()))
        if kind == "match":
            if not _matches(ruleset, what, packet):
                return None
        elif kind == "limit":
            if what.get("inv"):
                return None
        elif kind == "set":
            if any(stmt.get("limit", {}).get("inv") for stmt in what.get("stmt", ())):
                return None  # nobody is beyond a limit who asks once
        elif kind == "vmap":
            own = _of(what["key"], packet)
            for key, verdict in ruleset.pairs(what["data"]):
                if own is not None and _key(key) == own:
                    verb, to = next(iter(verdict.items()))
                    return verb, to["target"]
            return None
        elif kind in ("accept", "drop", "masquerade", "reject"):
            return kind, ""
        elif kind in ("jump", "goto"):
            return kind, what["target"]
    return None


def _key(key: Any) -> Any:
    return tuple(key["concat"]) if isinstance(key, dict) and "concat" in key else key


def _matches(ruleset: Ruleset, match: Mapping[str, Any], packet: Packet) -> bool:
    own = _of(match["left"], packet)
    if own is None:
        return False
    return _among(ruleset, own, match["right"]) != (match["op"] == "!=")


def _of(left: Mapping[str, Any], packet: Packet) -> Any:
    """What a match looks at, of a packet; None where it has no such thing, and the rule is not met."""
    kind, inner = next(iter(left.items()))
    if kind == "concat":
        parts = [_of(each, packet) for each in inner]
        return None if None in parts else tuple(map(str, parts))
    if kind == "meta":
        meta = {
            "iifname": packet.by,
            "oifname": packet.towards,
            "l4proto": {"icmp6": "ipv6-icmp"}.get(packet.transport, packet.transport),
            "nfproto": f"ipv{packet.version}",
        }
        return meta.get(inner["key"])
    if kind == "ct":
        return packet.state
    if kind == "fib":
        return "local" if packet.here else "unicast"
    if kind == "&":
        return "syn" if packet.transport == "tcp" and packet.state == NEW else None
    if kind == "payload":
        return _payload(inner["protocol"], inner["field"], packet)
    return None


def _payload(protocol: str, what: str, packet: Packet) -> Any:
    if protocol == "ether":
        return packet.hardware or "somebody's"
    if protocol in ("ip", "ip6"):
        if packet.version != {"ip": 4, "ip6": 6}[protocol]:
            return None
        return {"saddr": packet.source, "daddr": packet.target}.get(what)
    if protocol in ("icmp", "icmpv6"):
        return packet.kind if packet.transport == {"icmp": "icmp", "icmpv6": "icmp6"}[protocol] else None
    return packet.port if what == "dport" and protocol in ("th", packet.transport) and packet.port else None


def _among(ruleset: Ruleset, own: Any, right: Any) -> bool:
    if isinstance(right, str) and right.startswith("@"):
        return any(_is(own, each) for each in ruleset.sets[right[1:]].get("elem", ()))
    if isinstance(right, dict) and "set" in right:
        return any(_is(own, each) for each in right["set"])
    if isinstance(right, list):
        return own in right
    return _is(own, right)


def _is(own: Any, wanted: Any) -> bool:
    if isinstance(wanted, dict):
        if "elem" in wanted:  # one that ends by itself
            return _is(own, wanted["elem"]["val"])
        if "prefix" in wanted:
            network = _network(f"{wanted['prefix']['addr']}/{wanted['prefix']['len']}")
            return _address(own) in network
        if "range" in wanted:
            first, last = (_address(end) for end in wanted["range"])
            return first.version == _address(own).version and int(first) <= int(_address(own)) <= int(last)
    return bool(own == wanted)


@lru_cache(4096)
def _network(text: str) -> IPv4Network | IPv6Network:
    return ip_network(text, strict=False)


@lru_cache(4096)
def _address(text: str) -> IPv4Address | IPv6Address:
    return ip_address(text)


@dataclass(frozen=True)
class Surroundings:
    """The gateway as packets meet it: its bridges by segment, its addresses and prefixes by bridge."""

    bridges: Mapping[str, str]
    addresses: Mapping[str, tuple[str, ...]]
    prefixes: Mapping[str, tuple[str, ...]]
    uplink: str

    def leads(self, address: str) -> str:
        """The bridge that a packet to an address leaves by; empty where it is the gateway's own."""
        if address == BROADCAST or any(address in own for own in self.addresses.values()):
            return ""
        found = _address(address)
        for bridge, prefixes in self.prefixes.items():
            if any(found in _network(prefix) for prefix in prefixes):
                return bridge
        return self.uplink


_ICMP = ("icmp", "icmp6")
_TRANSPORT = {"tcp": "tcp", "flood": "tcp"}


def question(
    around: Surroundings, position: str, place: Mapping[str, Any], probe: Mapping[str, Any], areas: frozenset[str]
) -> Question | None:
    """The question that a probe is; None for one that sends nothing. `place`: `bridge`, `addresses`, `hardware`."""
    target = BROADCAST if probe["kind"] == "dhcp" else probe.get("address")
    pings = probe["kind"] == "ping"
    port = 0 if pings else probe.get("port")
    if target is None or port is None:
        return None
    transport = (_ICMP[":" in target]) if pings else _TRANSPORT.get(probe["kind"], "udp")
    identity = str(probe.get("id") or f"{probe['kind']}:{port}@{target}")
    towards = around.leads(target)
    if not place.get("bridge"):  # the gateway itself
        if not towards:
            return None
        own = next((a for a in around.addresses[towards] if (":" in a) == (":" in target)), "")
        return Question(
            position, identity, None, Packet(towards, "", target, own, transport, 0, state=ESTABLISHED), areas
        )
    family = [a for a in place["addresses"] if (":" in a) == (":" in target)]
    if not family:
        return None
    here = target == BROADCAST or target in around.addresses.get(place["bridge"], ())
    source = probe.get("source", family[0])
    there = Packet(place["bridge"], towards, source, target, transport, port, place.get("hardware", ""), here=here,
                   kind="echo-request" if pings else "")  # fmt: skip
    forged = probe["kind"] == "spoof"
    return Question(position, identity, there, there.answer if towards and not forged else None, areas)
