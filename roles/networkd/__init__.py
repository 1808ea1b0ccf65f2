"""Segments: each a bridge that carries the gateway's address, with an untagged port or a VLAN interface as its member.

The bridges and their addresses exist without any cable plugged in, so that services find their addresses at boot.
"""

from gatehouse.site import Service, Site

service = Service(
    name="networkd",
    title="Segments and addresses",
    packages=("iproute2",),
    units=("systemd-networkd.service",),
    user="systemd-network",
)


def port(site: Site, gateway: str, segment: str) -> str:
    """The port of a segment: an interface, or the VLAN of a trunk: `trunk.10`."""
    network = site.gateways[gateway].networks[segment]
    return network.interface or f"{network.trunk}.{site.segments[segment].vlan}"


def ports(site: Site, gateway: str) -> dict[str, str]:
    """`{port: its bridge}` of a gateway."""
    here = site.gateways[gateway]
    return {port(site, gateway, segment): here.bridge(segment) for segment in here.networks}
