"""The time-series database, the gateway's own numbers in it, what they warn of, and the dashboards that show both."""

from deploy import layer
from roles.target import Target

ROLES = ("influxdb", "collector", "alerts", "grafana")


def apply(target: Target) -> None:
    """Deploys the layer."""
    layer(ROLES, target)
