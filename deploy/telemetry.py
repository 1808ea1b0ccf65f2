"""The time-series database."""

from deploy import layer
from roles.target import Target

ROLES = ("influxdb",)


def apply(target: Target) -> None:
    """Deploys the layer."""
    layer(ROLES, target)
