"""Who may reach what, derived from a site and nothing else: the firewall is rendered from it, the checks ask for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gatehouse.site.declaration import Listener, Transport
from gatehouse.site.model import INTERNET, Destination, IPAddress, IPNetwork, Site


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
    addresses: tuple[IPNetwork, ...] = ()
    port: int | None = None
    transport: Transport | None = None
    destination: str = ""


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
    """The policy of one gateway: what is not in it is dropped."""

    gateway: str
    segments: tuple[str, ...]
    input: tuple[InputRule, ...]
    forward: tuple[ForwardRule, ...]
    masquerade: tuple[str, ...]
    local: tuple[LocalRule, ...] = ()

    def admits(self, segment: str, port: int, transport: Transport, at: str) -> bool:
        """Whether `segment` may reach `port` of the gateway at its address in segment `at`."""
        return segment == at and any(
            r.segment == segment and r.listener.port == port and r.listener.transport == transport for r in self.input
        )

    def forwards(self, segment: str, towards: str) -> bool:
        """Whether `segment` may open any connection into segment `towards`."""
        return any(r.segment == segment and r.towards == towards and not r.addresses for r in self.forward)

    def forwards_to(self, segment: str, address: IPAddress, port: int, transport: Transport) -> bool:
        """Whether `segment` may connect to that address and port on the internet."""
        return self.forwards(segment, INTERNET) or any(
            r.segment == segment
            and r.port == port
            and r.transport == transport
            and any(address in a for a in r.addresses)
            for r in self.forward
        )


def derive(site: Site, gateway: str) -> Policy:
    """The policy of a gateway of a site."""
    here = site.gateways[gateway]
    segments = tuple(name for name in site.segments if name in here.networks)
    return Policy(
        gateway=gateway,
        segments=segments,
        input=tuple(_input(site, gateway, segments)),
        forward=tuple(_forward(site, segments)),
        # IPv6 is routed, not translated; IPv4 leaves with the gateway's own address.
        masquerade=tuple(s for s in segments if s != INTERNET),
        local=tuple(LocalRule(s.name, o) for s in site.services_of(gateway) for o in s.listeners if o.accounts),
    )


def _input(site: Site, gateway: str, segments: tuple[str, ...]) -> Iterator[InputRule]:
    networks = site.gateways[gateway].networks
    for service in site.services_of(gateway):
        for listener in service.listeners:
            for segment in segments:
                if segment in listener.reachable_from:
                    yield InputRule(segment, service.name, listener, networks[segment].addresses)


def _forward(site: Site, segments: tuple[str, ...]) -> Iterator[ForwardRule]:
    for segment in segments:
        for towards in site.segments[segment].reaches:
            if towards in segments and towards != segment:
                yield ForwardRule(segment, towards)
    for name, destination in site.destinations.items():
        for segment in segments:
            if segment in destination.segments and INTERNET not in site.segments[segment].reaches:
                yield _towards(name, destination, segment)


def _towards(name: str, destination: Destination, segment: str) -> ForwardRule:
    return ForwardRule(segment, INTERNET, destination.addresses, destination.port, destination.transport, name)
