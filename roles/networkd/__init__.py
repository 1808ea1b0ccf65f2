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


def ports(site: Site, gateway: str) -> dict[str, str]:
    """`{port: its bridge}` of a gateway: an interface, or the VLAN of a trunk that is named as `ip link` names it."""
    here = site.gateways[gateway]
    return {
        network.interface or f"{network.trunk}.{site.segments[segment].vlan}": here.bridge(segment)
        for segment, network in here.networks.items()
    }
