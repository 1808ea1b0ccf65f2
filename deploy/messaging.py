"""The broker."""

from deploy import layer
from roles.target import Target

ROLES = ("mosquitto",)


def apply(target: Target) -> None:
    """Deploys the layer."""
    layer(ROLES, target)
