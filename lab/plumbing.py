"""Wires a lab up: which cable goes where, and what makes each host ready once it has its cables."""

from __future__ import annotations

from docker.models.containers import Container

from lab import provider
from lab.containers import SWITCH, execute
from lab.errors import LabError
from lab.topology import INTERNET, MANAGEMENT, OPERATOR, FieldHost, GatewayHost, Topology, neighbour
from lab.wires import Namespace, bridges, cable, configure, operator, short


def plumb(topology: Topology, containers: dict[str, Container]) -> int:
    """Make every cable that is missing or broken, and the field hosts' addresses; returns how many cables were made.

    `containers` are the lab's by host name, all of them running. Raises LabError.
    """
    names = {host: _namespace(containers, host) for host in [SWITCH, *_hosts(topology)]}
    switch = names[SWITCH]
    carried = {_bridge(None, INTERNET): INTERNET}
    for gateway in topology.gateways:
        for port in gateway.ports:
            if port.segment != INTERNET:
                carried[_bridge(gateway.name, port.segment)] = f"{gateway.name}/{port.segment}"
    bridges(switch, carried)

    made = 0
    for gateway in topology.gateways:
        for port in gateway.ports:
            owner = None if port.segment == INTERNET else gateway.name
            made += _plug(switch, _bridge(owner, port.segment), names, gateway.name, port.interface, topology.name)
    for host in topology.hosts:
        made += _plug(switch, _bridge(host.gateway, host.segment), names, host.name, "eth0", topology.name)
        configure(names[host.name], "eth0", host.addresses, host.routers)
    internet = topology.internet
    made += _plug(switch, _bridge(None, INTERNET), names, internet.name, provider.INTERFACE, topology.name)
    configure(names[internet.name], provider.INTERFACE, (*internet.addresses, *topology.services), internet.routers)
    for gateway in topology.gateways:
        # Whoever sits on the uplink's wire can send a gateway what it likes: only then its firewall is put to the test.
        names[internet.name].ip(*routes_behind(gateway))
        plug_in_the_operator(topology, gateway, switch)
    status, said = execute(containers[internet.name], ["sh", "-c", provider.START])
    if status:
        raise LabError(f"lab {topology.name}: internet: {said.strip()}")
    return made


def refuse_taken_prefixes(topology: Topology) -> None:
    """Raise LabError if this machine reaches a management prefix by another interface, where SSH would go astray."""
    for gateway in topology.gateways:
        own = operator_interface(topology, gateway)
        for network in gateway.port(MANAGEMENT).networks:
            others = {str(route.get("dev")) for route in Namespace().routes_within(network)} - {own}
            if others:
                raise LabError(
                    f"lab {topology.name}: {network} is already reached through {', '.join(sorted(others))} "
                    "(take down the other lab, or give this one other prefixes)"
                )


def plug_in_the_operator(topology: Topology, gateway: GatewayHost, switch: Namespace) -> None:
    """Give this machine an address in a gateway's management segment."""
    operator(
        operator_interface(topology, gateway),
        switch,
        _bridge(gateway.name, MANAGEMENT),
        short("op-", gateway.name),
        tuple(neighbour(address, OPERATOR) for address in gateway.port(MANAGEMENT).addresses),
        f"{topology.name}:{gateway.name}",
    )


def routes_behind(gateway: GatewayHost) -> list[str]:
    """ip(8) commands that lead the provider to what is behind a gateway, though no provider would know."""
    uplink = {address.version: address.ip for address in gateway.port(INTERNET).addresses}
    inside = [n for port in gateway.ports if port.segment != INTERNET for n in port.networks if n.version in uplink]
    return [f"route replace {n} via {uplink[n.version]} dev {provider.INTERFACE}" for n in inside]


def operator_interface(topology: Topology, gateway: GatewayHost) -> str:
    """The name of this machine's interface to a gateway: `gh-lab-1`, or a hash where that is too long."""
    name = f"gh-{topology.name}-{topology.gateways.index(gateway) + 1}"
    return name if len(name) <= 15 else short("gh-", topology.name, gateway.name)


def _bridge(gateway: str | None, segment: str) -> str:
    return short("br-", gateway or "", segment)


def _plug(switch: Namespace, bridge: str, names: dict[str, Namespace], host: str, interface: str, lab: str) -> bool:
    return cable(switch, bridge, short("sw-", host, interface), names[host], interface, f"{lab}:{host}/{interface}")


def _hosts(topology: Topology) -> list[str]:
    members: tuple[GatewayHost | FieldHost, ...] = (*topology.gateways, *topology.hosts, topology.internet)
    return [member.name for member in members]


def _namespace(containers: dict[str, Container], host: str) -> Namespace:
    container = containers.get(host)
    pid = container.attrs["State"]["Pid"] if container else 0
    if not pid:
        raise LabError(f"lab: {host} isn't running (run 'invoke lab.up')")
    return Namespace(pid)
