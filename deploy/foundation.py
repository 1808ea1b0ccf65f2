"""Operating system, time, SSH, updates."""

from deploy import layer
from roles.target import Target

ROLES = ("base", "kernel", "journald", "chrony", "ssh", "upgrades")


def apply(target: Target) -> None:
    """Deploys the layer."""
    layer(ROLES, target)
