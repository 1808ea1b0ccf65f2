"""Segments, firewall, addresses and names."""

from deploy import layer
from roles.target import Target

ROLES = ("networkd", "nftables", "dnsmasq")


def apply(target: Target) -> None:
    """Deploys the layer."""
    layer(ROLES, target)
