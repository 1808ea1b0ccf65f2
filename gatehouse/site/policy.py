"""Who may reach what, derived from a site and nothing else: the firewall is rendered from it, the checks ask for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from gatehouse.site.declaration import Listener, Transport
from gatehouse.site.egress import HTTPS_PORT, RESOLVER_PORTS, Destination
from gatehouse.site.model import INTERNET, MANAGEMENT, Device, IPAddress, IPNetwork, Site
from gatehouse.site.remote import SERVICE, Tunnel


@dataclass(frozen=True)
class InputRule:
    """A segment may reach a listener of the gateway, at the gateway's addresses in that same segment."""

    segment: str
    service: str
    listener: Listener
    addresses: tuple[IPAddress, ...]

    @property
    def comment(self) -> str:
        """What the rule is for, as it stands in the ruleset."""
        return f"{self.service} {self.listener.name}"


@dataclass(frozen=True)
class ForwardRule:
    """A segment may open connections into another one, or only to a destination there."""

    segment: str
    towards: str
    destination: str = ""


@dataclass(frozen=True)
class Profile:
    """Destinations beyond those of their segment, and the active devices that may use just these."""

    destinations: tuple[str, ...]
    devices: tuple[Device, ...]


@dataclass(frozen=True)
class LocalRule:
    """On the gateway itself only these accounts may connect to a listener over loopback; `root` is one where named."""

    service: str
    listener: Listener

    @property
    def comment(self) -> str:
        """What the rule is for, as it stands in the ruleset."""
        return f"{self.service} {self.listener.name}"


@dataclass(frozen=True)
class Policy:
    """The policy of one gateway: what is not in it is dropped.

    `remote` are the rules for who comes through the `tunnel`: management's, of those listeners that encrypt. Besides,
    it leads into the management segment, and nowhere else.
    """

    gateway: str
    segments: tuple[str, ...]
    input: tuple[InputRule, ...]
    forward: tuple[ForwardRule, ...]
    masquerade: tuple[str, ...]
    local: tuple[LocalRule, ...] = ()
    destinations: Mapping[str, Destination] = field(default_factory=dict)
    profiles: tuple[Profile, ...] = ()
    own_resolver: tuple[str, ...] = ()
    foreign_resolvers: tuple[IPNetwork, ...] = ()
    tunnel: Tunnel | None = None
    remote: tuple[InputRule, ...] = ()

    def admits(self, segment: str, port: int, transport: Transport, at: str) -> bool:
        """Whether `segment` may reach `port` of the gateway at its address in segment `at`."""
        return segment == at and any(
            r.segment == segment and r.listener.port == port and r.listener.transport == transport for r in self.input
        )

    def forwards(self, segment: str, towards: str) -> bool:
        """Whether `segment` may open any connection into segment `towards`."""
        return any(r.segment == segment and r.towards == towards and not r.destination for r in self.forward)

    def forwards_to(self, segment: str, address: IPAddress, port: int, transport: Transport) -> bool:
        """Whether anybody in `segment` may connect to that address and port on the internet."""
        if self.is_foreign_resolver(segment, address, port):
            return False
        return self.forwards(segment, INTERNET) or any(
            r.segment == segment and r.destination and self.destinations[r.destination].covers(address, port, transport)
            for r in self.forward
        )

    def is_foreign_resolver(self, segment: str, address: IPAddress, port: int) -> bool:
        """Whether names could be asked there, by a segment that has to ask the gateway."""
        return segment in self.own_resolver and (
            port in RESOLVER_PORTS or (port == HTTPS_PORT and any(address in n for n in self.foreign_resolvers))
        )


def derive(site: Site, gateway: str) -> Policy:
    """The policy of a gateway of a site."""
    here = site.gateways[gateway]
    segments = tuple(name for name in site.segments if name in here.networks)
    rules = tuple(_input(site, gateway, segments))
    runs = any(service.name == SERVICE for service in site.services_of(gateway))
    tunnel = site.remote.tunnels.get(gateway) if site.remote and runs else None
    return Policy(
        gateway=gateway,
        segments=segments,
        input=rules,
        forward=tuple(_forward(site, segments)),
        # IPv6 is routed, not translated; IPv4 leaves with the gateway's own address.
        masquerade=tuple(s for s in segments if s != INTERNET),
        destinations=site.destinations,
        profiles=tuple(_profiles(site, gateway, segments)),
        own_resolver=tuple(s for s in segments if site.segments[s].own_resolver),
        foreign_resolvers=site.foreign_resolvers,
        tunnel=tunnel,
        remote=tuple(_remote(rules)) if tunnel else (),
        local=tuple(LocalRule(s.name, o) for s in site.services_of(gateway) for o in s.listeners if o.accounts),
    )


def _input(site: Site, gateway: str, segments: tuple[str, ...]) -> Iterator[InputRule]:
    networks = site.gateways[gateway].networks
    for service in site.services_of(gateway):
        for listener in service.listeners:
            for segment in segments:
                if segment in listener.reachable_from:
                    yield InputRule(segment, service.name, listener, networks[segment].addresses)


def _remote(rules: tuple[InputRule, ...]) -> Iterator[InputRule]:
    """The tunnel carries IPv4."""
    for rule in rules:
        if rule.segment == MANAGEMENT and rule.listener.encryption != "none":
            yield replace(rule, addresses=tuple(a for a in rule.addresses if a.version == 4))


def _forward(site: Site, segments: tuple[str, ...]) -> Iterator[ForwardRule]:
    for segment in segments:
        for towards in site.segments[segment].reaches:
            if towards in segments and towards != segment:
                yield ForwardRule(segment, towards)
    for name, destination in site.destinations.items():
        for segment in segments:
            if segment in destination.segments and INTERNET not in site.segments[segment].reaches:
                yield ForwardRule(segment, INTERNET, name)


def _profiles(site: Site, gateway: str, segments: tuple[str, ...]) -> Iterator[Profile]:
    """Devices with the same list share a profile: ten thousand of a few models are a few profiles."""
    by_model: dict[str, list[str]] = {}
    by_device: dict[str, list[str]] = {}
    for name, destination in site.destinations.items():
        for model in destination.models:
            by_model.setdefault(model, []).append(name)
        for listed in destination.devices:
            by_device.setdefault(listed, []).append(name)
    if not (by_model or by_device):
        return
    found: dict[tuple[str, ...], list[Device]] = {}
    for device in site.devices_of(gateway):
        own = {*by_model.get(device.model, ()), *by_device.get(device.name, ())}
        if own and device.status == "active" and device.segment in segments:
            found.setdefault(tuple(sorted(own)), []).append(device)
    for destinations, devices in sorted(found.items()):
        yield Profile(destinations, tuple(devices))
