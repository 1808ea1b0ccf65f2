"""The firewall: one table of the kit's own, derived from who may reach what. It touches nothing else."""

from gatehouse.site import Service

service = Service(
    name="nftables",
    title="Firewall",
    packages=("nftables",),
    units=("gatehouse-firewall.service",),
)
