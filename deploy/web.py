"""The device API, the update server, the HTTPS front, and certificates from a public CA."""

from deploy import layer
from roles.target import Target

ROLES = ("api", "updates", "nginx", "certbot")


def apply(target: Target) -> None:
    """Deploys the layer."""
    layer(ROLES, target)
