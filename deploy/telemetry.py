"""The time-series database, the gateway's own numbers in it, and the dashboards that show both."""

from deploy import layer
from roles.target import Target

ROLES = ("influxdb", "collector", "grafana")


def apply(target: Target) -> None:
    """Deploys the layer."""
    layer(ROLES, target)
