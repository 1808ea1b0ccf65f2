"""What to ask of a gateway, and what its site's policy has one expect: derived from the declarations alone."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any

from gatehouse.proof.sockets import Connection
from gatehouse.site import INTERNET, Listener, Policy, Service, Site

Probe = dict[str, Any]
Work = dict[str, list[Probe]]

GATEWAY = "gateway"  # the position of the gateway itself
LOOPBACK = "127.0.0.1"
INTERFACE = "probe0"
_LOCAL = ip_network("fc00::/7")


@dataclass(frozen=True)
class Place:
    """A position in a segment: its own addresses there, and those of the gateway; both IPv4 first, without lengths."""

    segment: str
    addresses: tuple[str, ...]
    gateway: tuple[str, ...]

    def family(self, address: str) -> bool:
        """Whether the position can speak to that address: it has one of the same family."""
        return any((":" in own) == (":" in address) for own in self.addresses)

    @property
    def has_only_local_ipv6(self) -> bool:
        """Whether its IPv6 addresses are unique local ones, which the internet does not route (RFC 4193)."""
        return all(ip_address(own) in _LOCAL for own in self.addresses if ":" in own)


@dataclass(frozen=True)
class Offer:
    """A listener of a service that runs on a gateway."""

    service: Service
    listener: Listener

    @property
    def name(self) -> str:
        """`mosquitto.mqtts`."""
        return f"{self.service.name}.{self.listener.name}"


def offers(site: Site, gateway: str) -> list[Offer]:
    """Everything that the services of a gateway listen on."""
    return [Offer(service, listener) for service in site.services_of(gateway) for listener in service.listeners]


def at_gateway(offer: Offer, address: str) -> str:
    """The id of the probe of a listener at one of the gateway's addresses."""
    return f"{offer.name}@{'*' if offer.listener.broadcast else address}"


def closed_at(label: str, address: str) -> str:
    """The id of the probe of a port that must be closed."""
    return f"closed:{label}@{address}"


def pinged(address: str) -> str:
    """The id of the ping to one of the gateway's addresses."""
    return f"ping@{address}"


def across(label: str, address: str) -> str:
    """The id of the probe of a listener in another segment; also of a named service on the internet."""
    return f"across:{label}@{address}"


def split(label: str) -> tuple[int, str]:
    """`"8883/tcp"` → `(8883, "tcp")`."""
    port, _, transport = label.partition("/")
    return int(port), transport


def labels(site: Site, gateway: str) -> list[str]:
    """The ports that cross-segment probes use: all that mean something on this site, whether open or to stay closed."""
    services = site.services_of(gateway)
    found = {listener.label for service in services for listener in service.listeners}
    found |= {f"{port.port}/{port.transport}" for service in services for port in service.closed}
    found |= {f"{d.port}/{d.transport}" for d in site.destinations.values()}
    return sorted(found, key=split)


def closed_labels(site: Site, gateway: str) -> list[str]:
    """The ports that must stay closed."""
    return sorted({f"{c.port}/{c.transport}" for s in site.services_of(gateway) for c in s.closed}, key=split)


def client(site: Site, listener: Listener, address: str) -> Probe | None:
    """The probe that a listener's protocol understands; None where the kit has no client for it."""
    if listener.transport == "tcp":
        return {"kind": "tcp", "address": address, "port": listener.port}
    if listener.name == "dns":
        return {"kind": "dns", "address": address, "port": listener.port, "name": f"gateway.{site.domain}"}
    if listener.encryption == "dtls":
        return {"kind": "dtls", "address": address, "port": listener.port}
    if listener.name == "ntp":
        return {"kind": "ntp", "address": address, "port": listener.port}
    if listener.name == "dhcp":
        return {"kind": "dhcp", "interface": INTERFACE, "port": listener.port}
    return None


def gateway_work(site: Site, gateway: str, places: Mapping[str, Place]) -> Work:
    """From every segment, at every address of the gateway: every listener, every port that must stay closed, a ping."""
    work: Work = {segment: [] for segment in places}
    addresses = [address for place in places.values() for address in place.gateway]
    for segment, place in places.items():
        reachable = [address for address in addresses if place.family(address)]
        for offer in offers(site, gateway):
            targets = reachable[:1] if offer.listener.broadcast else reachable
            for address in targets:
                probe = client(site, offer.listener, address)
                if probe is not None:
                    work[segment].append({"id": at_gateway(offer, address), **probe})
        work[segment] += _closed(site, gateway, reachable)
        work[segment] += [{"id": pinged(address), "kind": "ping", "address": address} for address in reachable]
    work[GATEWAY] = _closed(site, gateway, ["127.0.0.1", "::1", *addresses])
    for offer in offers(site, gateway):
        if offer.listener.transport == "tcp":
            for address in [LOOPBACK, *(a for place in places.values() for a in place.gateway)]:
                probe = client(site, offer.listener, address) or {}
                work[GATEWAY].append({"id": at_gateway(offer, address), **probe})
    return work


def _closed(site: Site, gateway: str, addresses: Iterable[str]) -> list[Probe]:
    return [
        {"id": closed_at(label, address), "kind": "tcp", "address": address, "port": split(label)[0]}
        for label in closed_labels(site, gateway)
        if split(label)[1] == "tcp"
        for address in addresses
    ]


def said(position: str, label: str, address: str) -> str:
    """What a cross-segment probe says, so that the far side knows whom it heard."""
    return f"{position} asks {label} at {address}"


def crossing(position: str, label: str, address: str) -> Probe:
    """The probe of a listener on the far side, from a position."""
    port, transport = split(label)
    say = said(position, label, address)
    return {"id": across(label, address), "kind": transport, "address": address, "port": port, "say": say}


def outwards(position: str, label: str, address: str) -> Probe:
    """The same for a real host: over TCP a connection alone will do, since what it would say is its own affair."""
    probe = crossing(position, label, address)
    return {key: value for key, value in probe.items() if key != "say" or probe["kind"] == "udp"}


def crossing_work(places: Mapping[str, Place], positions: Iterable[str], ports: Iterable[str]) -> Work:
    """From every position, to the listeners that play a host in every other segment."""
    ports = list(ports)
    work: Work = {}
    for position in positions:
        own = places.get(position)
        work[position] = [
            crossing(position, label, address)
            for segment, place in places.items()
            if segment != position
            for address in place.addresses
            if own is None or own.family(address)
            for label in ports
        ]
    return work


def spoof_work(policy: Policy, places: Mapping[str, Place], label: str) -> Work:
    """From every segment, with the address of each other one: to whatever that other one may reach."""
    port, _ = split(label)
    work: Work = {segment: [] for segment in places}
    for segment, pretended, towards in spoofs(policy, places):
        for source in places[pretended].addresses:
            for address in places[towards].addresses:
                if (":" in source) == (":" in address) and places[segment].family(address):
                    say = said(f"{segment} as {pretended}", label, address)
                    probe = {"kind": "spoof", "address": address, "port": port, "source": source, "say": say}
                    work[segment].append({"id": f"spoof:{source}>{address}", **probe})
    return work


def spoofs(policy: Policy, places: Mapping[str, Place]) -> Iterator[tuple[str, str, str]]:
    """`(who, as whom, towards)`: where a forged sender would gain something if nobody looked."""
    for segment in places:
        for pretended in places:
            for towards in places:
                if len({segment, pretended, towards}) == 3 and policy.forwards(pretended, towards):
                    yield segment, pretended, towards


def permitted(policy: Policy, position: str, towards: str, address: str, label: str) -> bool:
    """Whether a host in `position` may connect to that port of a host in `towards`."""
    port, transport = split(label)
    if towards == INTERNET:
        return policy.forwards_to(position, ip_address(address), port, "udp" if transport == "udp" else "tcp")
    return policy.forwards(position, towards)


def admitted(policy: Policy, segment: str, transport: str) -> set[str]:
    """The ports at which a segment reaches the gateway: what a scan must find, no more and no less."""
    return {
        rule.listener.label for rule in policy.input if rule.segment == segment and rule.listener.transport == transport
    }


def callers(site: Site, gateway: str) -> set[str]:
    """The units, without their kind, that a flow of theirs lets call whom they need outside of the gateway."""
    inside = {service.name for service in site.services_of(gateway)} | {"gateway"}
    return {
        unit.rpartition(".")[0]
        for service in site.services_of(gateway)
        if any(f.source in inside and f.destination not in inside for f in service.flows)
        for unit in service.units
    }


def undeclared(site: Site, gateway: str, own: Collection[str], found: Iterable[Connection]) -> list[Connection]:
    """Connections that neither a listener nor a flow accounts for. `own` are the gateway's addresses."""
    ports = {split(offer.listener.label) for offer in offers(site, gateway)}
    ports |= {split(label) for label in own_clients(site, gateway)}
    units = callers(site, gateway)
    return [
        each
        for each in found
        if (each.port, each.transport) not in ports
        and not (each.peer in own and (each.peer_port, each.transport) in ports)
        and each.unit.rpartition(".")[0] not in units
    ]


def own_clients(site: Site, gateway: str) -> list[str]:
    """The gateway itself is a DHCP client where its provider says its address: its sockets for that."""
    uplink = site.gateways[gateway].networks[INTERNET]
    return [label for asked, label in ((uplink.ipv4 == "dhcp", "68/udp"), (uplink.ipv6 == "ra", "546/udp")) if asked]
