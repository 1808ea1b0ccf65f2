"""What is asked about destinations of devices, about neighbours, and about who wants too much."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from gatehouse.proof import expect
from gatehouse.proof.channel import ProbeError
from gatehouse.proof.observation import Observation
from gatehouse.proof.plugin import cannot_prove
from gatehouse.site import INTERNET
from gatehouse.site.egress import HTTPS_PORT, RESOLVER_PORTS, Destination
from lab.field import PORT as FIELD_PORT
from tests.compliance.line import EAGER, LISTED
from tests.compliance.live import Live
from tests.compliance.looks import PATIENT
from tests.compliance.once import once

# RFC 1112 §4, RFC 3879: nobody has these; RFC 5737, RFC 3849: nor does anybody in a segment have these.
NOWHERE = {4: "240.0.0.66", 6: "fec0::66"}
STRANGER = {4: "192.0.2.99", 6: "2001:db8:beef::66"}
FLOOD_SECONDS = 3.0
HEARING_SECONDS = 3.0
SNIFFING_SECONDS = 3.0


@dataclass
class Grant:
    """One destination: what the resolver said of its names, and who reached what.

    `left` are the IPv6 addresses that a listed one's packets left the gateway for, `leaked` those of others: nobody out
    there may have an answer for a unique local address.
    """

    resolved: list[Observation] = field(default_factory=list)
    may: list[Observation] = field(default_factory=list)
    may_not: list[Observation] = field(default_factory=list)
    other_port: list[Observation] = field(default_factory=list)
    control: dict[str, Observation] = field(default_factory=dict)
    local_only: bool = False
    left: list[str] = field(default_factory=list)
    leaked: list[str] = field(default_factory=list)


def device_of(live: Live) -> str:
    """The device whose place the listed position has. Raises `ProbeError` where it has none."""
    found = live.agent.positions.get(LISTED, {"error": "no device has destinations of its own"})
    if "error" in found:
        raise ProbeError(f"{live.name}: no position as a device with destinations of its own: {found['error']}")
    return str(found["as"])


def askers(live: Live, destination: Destination) -> dict[str, str]:
    """Who may use a destination, and beside them who may not: `{"may": POSITION, "may_not": POSITION}`."""
    found: dict[str, str] = {}
    segments = [s for s in live.places if s in destination.segments]
    if segments:
        found["may"] = segments[0]
    elif destination.models or destination.devices:
        name = device_of(live)
        device = next(d for d in live.site.devices_of(live.name) if d.name == name)
        if device.model not in destination.models and name not in destination.devices:
            raise ProbeError(f"{live.name}: {name} may not use it, and no other device with a list is away")
        found["may"] = LISTED
        found["may_not"] = device.segment
    return found


@once
def grants(live: Live) -> dict[str, Grant | ProbeError]:
    """Asks, for each destination that is for single devices, or has names."""
    return {
        name: _grant(live, destination) for name, destination in live.site.destinations.items() if by_list(destination)
    }


def by_list(destination: Destination) -> bool:
    """Whether it is none that a whole segment may use by address, which `destinations.*` asks for."""
    return bool(destination.names or destination.models or destination.devices)


def _grant(live: Live, destination: Destination) -> Grant | ProbeError:
    try:
        who = askers(live, destination)
    except ProbeError as error:
        return error
    may = who.get("may")
    if may is None:
        return ProbeError(f"{live.name}: nobody here may use it")
    grant, near = Grant(), live.agent.positions[may]["gateway"]
    server = near[0].partition("/")[0]
    asked = [{"kind": "dns", "address": server, "name": name, "type": kind, "timeout": PATIENT}
             for name in destination.names for kind in ("A", "AAAA")]  # fmt: skip
    if asked:
        grant.resolved = live.ask({may: asked})[may]
    addresses = [str(n.network_address) for n in destination.addresses if n.num_addresses == 1]
    addresses += [address for seen in grant.resolved for address in seen.result.get("addresses", ())]
    own = live.agent.positions[may]["addresses"]
    addresses = [a for a in dict.fromkeys(addresses) if any((":" in a) == (":" in mine) for mine in own)]
    label = f"{destination.port}/{destination.transport}"
    other = f"{_another(live, destination.port)}/tcp"

    def asking(position: str, what: str, patient: bool) -> list[dict[str, Any]]:
        probes = [expect.outwards(position, what, address) for address in addresses]
        return [{**_nameless(probe), **({"timeout": PATIENT} if patient else {})} for probe in probes]

    six = [address for address in addresses if ":" in address]
    prefix = next((str(p.network_address) for p in _prefixes(live, may) if p.version == 6), "::")
    sniff = {
        "kind": "leaving",
        "interface": live.site.gateways[live.name].bridge(INTERNET),
        "seconds": SNIFFING_SECONDS,
    }
    sniff |= {"wanted": [[prefix, address, destination.port] for address in six]}
    count = len(addresses)
    grant.local_only = expect.Place(may, tuple(own), tuple(near)).has_only_local_ipv6
    control = asking(expect.GATEWAY, label, True)
    asked_first = live.ask({may: asking(may, label, False), expect.GATEWAY: [*control, sniff]})
    others = {may: asking(may, other, False), expect.GATEWAY: [{**sniff, "seconds": SNIFFING_SECONDS}]}
    if "may_not" in who:
        others[who["may_not"]] = asking(who["may_not"], label, False)
    asked_then = live.ask(others)
    grant.may, grant.other_port = asked_first.get(may, []), asked_then.get(may, [])
    grant.may_not = asked_then.get(who.get("may_not", ""), [])
    grant.control = dict(zip(addresses, asked_first[expect.GATEWAY][:count], strict=True))
    grant.left = [six[n] for n in asked_first[expect.GATEWAY][-1].result.get("left", ())]
    grant.leaked = [six[n] for n in asked_then[expect.GATEWAY][-1].result.get("left", ())]
    return grant


def _prefixes(live: Live, position: str) -> tuple[Any, ...]:
    """The prefixes of the segment that a position is in."""
    if position == LISTED:
        name = device_of(live)
        position = next(d.segment for d in live.site.devices_of(live.name) if d.name == name)
    return live.site.gateways[live.name].networks[position].prefixes


def _nameless(probe: dict[str, Any]) -> dict[str, Any]:
    """A probe that is not remembered by its id: others ask the same."""
    return {key: value for key, value in probe.items() if key != "id"}


def _another(live: Live, port: int) -> int:
    """A port that no destination names."""
    taken = {destination.port for destination in live.site.destinations.values()}
    return next(p for p in range(port + 1, port + 100) if p not in taken)


@dataclass(frozen=True)
class Neighbours:
    """The lab's host in a segment, asked by a probe in that segment and by the gateway; what each heard it pretend."""

    asked: list[Observation]
    control: list[Observation]
    pretended: Observation
    heard: Observation
    heard_by_gateway: Observation


@once
def neighbours(live: Live) -> dict[str, Neighbours]:
    """Of each segment with isolated ports. Raises `ProbeError` where there is no other host to be asked."""
    if live.field is None:
        raise ProbeError(f"{live.name}: only a lab has hosts in its segments that the suite may use")
    found = {}
    for segment in isolated(live):
        host = live.field.hosts[segment]
        addresses = [str(a.ip) for a in host.addresses]
        label = f"{FIELD_PORT}/tcp"
        probes = [_nameless(expect.outwards(segment, label, a)) for a in addresses]
        answers = live.ask({segment: probes, expect.GATEWAY: [{**p, "timeout": PATIENT} for p in probes]})
        ears = {segment: expect.INTERFACE, expect.GATEWAY: live.site.gateways[live.name].bridge(segment)}
        listening = {"kind": "overhear", "seconds": HEARING_SECONDS}
        with ThreadPoolExecutor(1) as pool:
            hearing = pool.submit(live.ask, {who: [{**listening, "interface": i}] for who, i in ears.items()})
            time.sleep(0.5 * live.agent.pace)  # until both listen
            (said,) = live.field.probes(segment, [{"kind": "pretend", "interface": "eth0"}])
        heard = hearing.result()
        found[segment] = Neighbours(
            answers[segment], answers[expect.GATEWAY], said, heard[segment][0], heard[expect.GATEWAY][0]
        )
    return found


def isolated(live: Live) -> list[str]:
    """The segments whose ports are isolated from each other."""
    return [s for s in live.places if live.site.segments[s].isolated]


@dataclass(frozen=True)
class Flood:
    """How many connections were asked for and came about, how many may at most, and what the gateway counted of it."""

    asked: int
    at_most: int
    seen: Observation
    counted: Observation


@once
def floods(live: Live) -> dict[str, Flood]:
    """From each segment with limits, a host of the suite's own that wants more than it may."""
    found = {}
    for segment in live.places:
        limits = live.site.segments[segment].limits
        offers = [r for r in live.policy.input if r.segment == segment and r.listener.transport == "tcp"]
        offers.sort(key=lambda rule: rule.service != "mosquitto")
        if limits is None or not offers:
            continue
        rate = min(limits.broker, limits.syns) if offers[0].service == "mosquitto" else limits.syns
        position = eager(segment)
        if "error" in live.agent.positions[position]:
            raise ProbeError(f"{live.name}: {live.agent.positions[position]['error']}")
        number = min(900, int(rate * (11 + FLOOD_SECONDS) * live.agent.pace))
        probe = {"kind": "flood", "address": live.place(segment).gateway[0], "port": offers[0].listener.port}
        probe |= {"number": number, "seconds": FLOOD_SECONDS}
        seen = live.ask({position: [probe]})[position][0]
        # five seconds' worth at once, and what comes back meanwhile, with a second for a busy machine
        at_most = int(rate * (5 + max(FLOOD_SECONDS, seen.result.get("ms", 0) / 1000) + 1))
        listing = {"kind": "run", "argv": ["nft", "-j", "list", "set", "inet", "gatehouse", "over_limit"]}
        counted = live.ask({expect.GATEWAY: [listing]})[expect.GATEWAY][0]
        found[segment] = Flood(number, at_most, seen, counted)
    return found


def eager(segment: str) -> str:
    """The position of the host that wants too much."""
    return f"{EAGER}{segment}"[:12]


@once
def routers(live: Live) -> dict[str, Observation]:
    """Who says in each segment that it is a router."""
    asked = {s: [{"kind": "routers", "interface": expect.INTERFACE}] for s in live.places if s != INTERNET}
    return {segment: answers[0] for segment, answers in live.ask(asked).items()}


@once
def resolvers(live: Live) -> dict[str, tuple[list[Observation], list[Observation]]]:
    """Foreign resolvers, asked by each segment that has to ask the gateway; and by the gateway itself."""
    found = {}
    addresses = [str(n.network_address) for n in live.policy.foreign_resolvers if n.num_addresses == 1]
    for segment in live.policy.own_resolver:
        if segment not in live.places:
            continue
        near = [a for a in addresses if live.place(segment).family(a)][:4]
        labels = [f"{port}/tcp" for port in (*RESOLVER_PORTS, HTTPS_PORT)]
        probes = [_nameless(expect.outwards(segment, label, a)) for a in near for label in labels]
        answers = live.ask({segment: probes, expect.GATEWAY: [{**p, "timeout": PATIENT} for p in probes]})
        found[segment] = answers[segment], answers[expect.GATEWAY]
    return found


@dataclass(frozen=True)
class Forged:
    """A datagram whose sender can't be, and by how much the count of those that are dropped for it has risen."""

    sent: Observation
    risen: int


@once
def forged(live: Live) -> dict[str, Forged]:
    """To the gateway's own address: from each segment a sender that is not of it, from the internet one from inside and
    one that nobody has. By the sets that the firewall looks senders up in: `from_iot_4`, `inside_6`, `bogons_4`."""
    work: dict[str, dict[str, str]] = {}
    for segment, place in live.places.items():
        for target in {a.count(":") > 0: a for a in reversed(place.gateway) if place.family(a)}.values():
            version = 6 if ":" in target else 4
            for name, source in _senders(live, segment, version).items():
                work[name] = {"segment": segment, "address": target, "source": source}
    before = _dropped(live)
    probes: dict[str, list[dict[str, Any]]] = {}
    for each in work.values():
        probe = {
            "kind": "spoof",
            "address": each["address"],
            "port": 123,
            "source": each["source"],
            "say": "from nowhere",
        }
        probes.setdefault(each["segment"], []).append(probe)
    sent = {segment: iter(several) for segment, several in live.ask(probes).items()}
    seen = {name: next(sent[each["segment"]]) for name, each in work.items()}
    after = _dropped(live)
    return {name: Forged(found, after.get(name, 0) - before.get(name, 0)) for name, found in seen.items()}


def _senders(live: Live, segment: str, version: int) -> dict[str, str]:
    if segment != INTERNET:
        return {f"from_{segment}_{version}": STRANGER[version]}
    inside = [a for s, p in live.places.items() if s != INTERNET for a in p.addresses if (":" in a) == (version == 6)]
    found = {f"inside_{version}": inside[0]} if inside else {}
    return {**found, f"bogons_{version}": NOWHERE[version]}


def _dropped(live: Live) -> dict[str, int]:
    """The packets that were dropped for their senders, by the set that these are, or are not, in."""
    listing = ["nft", "-j", "list", "chain", "inet", "gatehouse"]
    listings = [{"kind": "run", "argv": [*listing, f"senders_{segment}"]} for segment in live.places]
    found: dict[str, int] = {}
    for seen in live.ask({expect.GATEWAY: listings})[expect.GATEWAY]:
        if seen.result.get("status") != 0:
            continue
        for entry in json.loads(str(seen.result["output"]))["nftables"]:
            parts = {kind: what for part in entry.get("rule", {}).get("expr", ()) for kind, what in part.items()}
            if "counter" in parts and "match" in parts:
                name = str(parts["match"]["right"]).removeprefix("@")
                found[name] = found.get(name, 0) + int(parts["counter"]["packets"])
    return found


def is_dropped_for_its_sender(live: Live, evidence: Callable[[Any], None], name: str) -> None:
    """Asserts, of both families, that a datagram with a sender that can't be was dropped for that."""
    told = [forged(live)[key] for version in (4, 6) if (key := f"{name}_{version}") in forged(live)]
    for found in told:
        evidence(found.sent)
        if found.sent.outcome != "sent":
            cannot_prove(f"could not be sent: {found.sent}")
        chain = f"senders_{found.sent.position}"
        evidence({"from": "gateway", "sent": f"nft list chain {chain}", "got": f"{found.risen} more dropped"})
        assert found.risen >= 1, f"not dropped for its sender: {found.sent}"
