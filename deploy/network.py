"""Segments, firewall, addresses and names, remote management."""

from deploy import layer
from gatehouse.site.remote import SERVICE as WIREGUARD
from roles.target import Target

ROLES = ("networkd", "nftables", "dnsmasq", "wireguard")


def apply(target: Target) -> None:
    """Deploys the layer."""
    layer(ROLES, target)
    if WIREGUARD not in {service.name for service in target.site.services_of(target.name)}:
        from roles.wireguard.deploy import leave

        leave()
