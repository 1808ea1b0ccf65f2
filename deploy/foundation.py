"""Operating system, time, SSH, updates, and what the proof needs."""

from deploy import layer
from roles.target import Target

ROLES = ("base", "kernel", "bootloader", "apparmor", "auditd", "journald", "chrony", "ssh", "upgrades", "probe")


def apply(target: Target) -> None:
    """Deploys the layer."""
    layer(ROLES, target)
