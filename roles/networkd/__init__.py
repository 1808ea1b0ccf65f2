"""Segments: each a bridge that carries the gateway's address, with an untagged port or a VLAN interface as its member.

The bridges and their addresses exist without any cable plugged in, so that services find their addresses at boot.
"""

from gatehouse.site import Service

service = Service(
    name="networkd",
    title="Segments and addresses",
    packages=("iproute2",),
    units=("systemd-networkd.service",),
    user="systemd-network",
)
