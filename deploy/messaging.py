"""The broker, the intake of what devices report, and the way to it for those that have no MQTT."""

from deploy import layer
from roles.target import Target

ROLES = ("mosquitto", "intake", "coap")


def apply(target: Target) -> None:
    """Deploys the layer."""
    layer(ROLES, target)
