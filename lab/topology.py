"""What a lab consists of: gateways, the hosts around them, and the wires between, as plain data."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network, ip_interface
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from lab.errors import LabError

if TYPE_CHECKING:
    from gatehouse.site.model import Site

Address = IPv4Address | IPv6Address
Interface = IPv4Interface | IPv6Interface
Network = IPv4Network | IPv6Network

INTERNET = "internet"
MANAGEMENT = "management"

# Host parts of the addresses that the lab takes in each prefix; hexadecimal in IPv6, so that .50 goes with ::50.
OPERATOR = "9"
FIELD = "50"
NAMED_SERVICE = "80"
OTHER_SERVICE = "90"

# The host that stands for a segment; further segments get a host of their own name.
HOST_OF = {"iot": "device", MANAGEMENT: "station", "guest": "guest", "internal": "server"}


@dataclass(frozen=True)
class Port:
    """A gateway's way into a segment: the interface's name, the gateway's addresses there, and the tag on the wire.

    Without `vlan` the port is untagged; with it, `interface` is the trunk.
    """

    segment: str
    interface: str
    addresses: tuple[Interface, ...]
    vlan: int | None = None

    @property
    def link(self) -> str:
        """The interface that carries the segment's untagged frames: `port-lan`, `trunk.10`."""
        return self.interface if self.vlan is None else f"{self.interface}.{self.vlan}"

    @property
    def networks(self) -> tuple[Network, ...]:
        """The prefixes of the segment behind this gateway, IPv4 first."""
        return tuple(address.network for address in self.addresses)


@dataclass(frozen=True)
class GatewayHost:
    """A gateway as a fresh machine: its ports, its default routers, its resolver, and the TCP ports SSH may be on.

    `debian` overrides the lab's release for this one. `public_names` lead to it on the internet.
    """

    name: str
    ports: tuple[Port, ...]
    routers: tuple[Address, ...]
    resolver: Address
    ssh_ports: tuple[int, ...] = (22,)
    debian: str | None = None
    public_names: tuple[str, ...] = ()

    def port(self, segment: str) -> Port:
        """The port in a segment; LabError if the gateway has none."""
        for port in self.ports:
            if port.segment == segment:
                return port
        raise LabError(f"lab: {self.name} has no port in segment {segment!r} (add the network to the gateway)")

    @property
    def management(self) -> Address:
        """Where SSH goes."""
        return self.port(MANAGEMENT).addresses[0].ip


@dataclass(frozen=True)
class FieldHost:
    """A host beside the gateways, with one interface `eth0`; `gateway` is None on the internet."""

    name: str
    segment: str
    addresses: tuple[Interface, ...]
    routers: tuple[Address, ...]
    resolver: Address | None
    gateway: str | None


@dataclass(frozen=True)
class Topology:
    """A lab: its name, the gateways, the field hosts, and the internet that the gateways share.

    `internet` is the provider: its addresses are the gateways' default routers, `services` are further addresses on it
    that play one named internet service (the first of each family) and some other internet host (the second).
    `machines`: of virtual machines, not of containers.
    """

    name: str
    gateways: tuple[GatewayHost, ...]
    hosts: tuple[FieldHost, ...]
    internet: FieldHost
    services: tuple[Interface, ...] = ()
    machines: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", self.name):
            raise LabError(f"lab {self.name!r}: is no usable name (use a-z, 0-9 and '-', at most 32 characters)")

    @property
    def private_networks(self) -> tuple[Network, ...]:
        """Every prefix behind a gateway: no packet to or from them belongs on the internet."""
        return tuple(n for g in self.gateways for p in g.ports if p.segment != INTERNET for n in p.networks)


def neighbour(address: Interface, host: str) -> Interface:
    """Another address in the same prefix: `neighbour(10.10.10.1/24, "50")` is 10.10.10.50/24, in IPv6 `::50`."""
    number = int(host, 10 if address.version == 4 else 16)
    network = address.network
    if number >= network.num_addresses - 1:
        raise LabError(f"lab: {network} is too small for the lab's host .{host} (use a /24)")
    return ip_interface(f"{network.network_address + number}/{network.prefixlen}")


def surround(name: str, gateways: tuple[GatewayHost, ...], machines: bool = False) -> Topology:
    """The topology around gateways: one field host a segment and gateway, and one internet for all of them.

    Hosts of the first gateway have plain names (`device`), those of the n-th end in its number (`device-2`).
    """
    hosts = []
    for number, gateway in enumerate(gateways, start=1):
        for port in gateway.ports:
            if port.segment == INTERNET:
                continue
            own = tuple(address.ip for address in port.addresses)
            hosts.append(
                FieldHost(
                    name=HOST_OF.get(port.segment, port.segment) + (f"-{number}" if number > 1 else ""),
                    segment=port.segment,
                    addresses=tuple(neighbour(address, FIELD) for address in port.addresses),
                    routers=own,
                    resolver=own[0],
                    gateway=gateway.name,
                )
            )
    uplinks = [address for gateway in gateways for address in gateway.port(INTERNET).addresses]
    routers = {router for gateway in gateways for router in gateway.routers}
    at_provider = tuple(
        sorted(
            {ip_interface(f"{r}/{u.network.prefixlen}") for r in routers for u in uplinks if r in u.network},
            key=lambda a: (a.version, a),
        )
    )
    if not at_provider:
        raise LabError(f"lab {name}: no gateway names its router on the internet (give router4 on the uplink)")
    internet = FieldHost(INTERNET, INTERNET, at_provider, (), None, None)
    services = tuple(neighbour(address, number) for number in (NAMED_SERVICE, OTHER_SERVICE) for address in at_provider)
    return Topology(name, gateways, tuple(hosts), internet, services, machines)


def standard(name: str = "lab", gateways: int = 1, debian: str | None = None, first: int = 10) -> Topology:
    """The lab's usual layout: the first gateway has 10.10.x.0/24 and fd10:10:x::/64, the next 10.12.x.0/24, and so on.

    `first` replaces the second number of the first gateway, for a lab beside another one.
    """
    made = []
    for number in range(gateways):
        second = first + 2 * number
        ports = [
            Port(segment, interface, (ip_interface(f"10.{second}.{x}.1/24"), ip_interface(f"fd10:{second}:{x}::1/64")))
            for segment, interface, x in (
                ("iot", "port-iot", 10),
                (MANAGEMENT, "port-mgmt", 20),
                ("guest", "port-guest", 30),
                ("internal", "port-lan", 40),
            )
        ]
        outside = (ip_interface(f"198.51.100.{2 + number}/24"), ip_interface(f"2001:db8:51::{2 + number}/64"))
        ports.append(Port(INTERNET, "uplink", outside))
        routers = (IPv4Address("198.51.100.1"), IPv6Address("2001:db8:51::1"))
        label = f"gateway-{number + 1}" if number else "gateway"
        made.append(GatewayHost(label, tuple(ports), routers, routers[0], debian=debian))
    return surround(name, tuple(made))


def from_site(site: Site, name: str, debian: str | None = None) -> Topology:
    """The lab for a site: its gateways as fresh machines, with the ports and addresses that the site names.

    Raises LabError for what a lab can't play: an uplink whose address comes from the provider and, in containers, a
    trunk (no 8021q in a container host's kernel, as a rule).
    """
    made, machines = [], site.lab == "machines"
    for label, gateway in site.gateways.items():
        ports = []
        for segment, network in gateway.networks.items():
            place = f"lab {name}: gateway {label!r}: segment {segment!r}"
            if network.interface is None and not machines:
                raise LabError(
                    f"{place}: is tagged on {network.trunk}, and containers have no VLANs "
                    '(give it an untagged port, or say lab="machines")'
                )
            addresses = tuple(a for a in (network.ipv4, network.ipv6) if isinstance(a, IPv4Interface | IPv6Interface))
            if not addresses:
                raise LabError(f"{place}: has no fixed address (give ipv4 with a prefix length in the lab's site)")
            vlan = None if network.trunk is None else site.segments[segment].vlan
            ports.append(Port(segment, network.interface or network.trunk or "", addresses, vlan))
        for needed in (MANAGEMENT, INTERNET):
            if needed not in gateway.networks:
                raise LabError(f"lab {name}: gateway {label!r}: has no {needed} network (the lab needs one)")
        uplink = gateway.networks[INTERNET]
        routers = tuple(r for r in (uplink.router4, uplink.router6) if r is not None)
        if not routers:
            raise LabError(f"lab {name}: gateway {label!r}: names no router on the internet (give router4)")
        ssh_ports = tuple(dict.fromkeys((gateway.contact.port, site.ssh.port, *site.ssh.former_ports)))
        public = tuple(gateway.public_names.values())
        made.append(GatewayHost(label, tuple(ports), routers, routers[0], ssh_ports, debian, public))
    return surround(name, tuple(made), machines)


def dump(topology: Topology) -> str:
    """The topology as JSON, for a container's label."""
    return TypeAdapter(Topology).dump_json(topology).decode()


def load(text: str) -> Topology:
    """The topology from `dump`; LabError if the text is none of this version's."""
    try:
        return TypeAdapter(Topology).validate_json(text)
    except ValidationError:
        raise LabError("lab: was built by another version of the kit (run 'invoke lab.down', then 'lab.up')") from None
