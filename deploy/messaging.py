"""The broker, and the intake of what devices report."""

from deploy import layer
from roles.target import Target

ROLES = ("mosquitto", "intake")


def apply(target: Target) -> None:
    """Deploys the layer."""
    layer(ROLES, target)
