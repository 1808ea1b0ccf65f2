"""The device API, the update server, the HTTPS front, certificates from a public CA; then what watches all of it."""

from deploy import layer
from roles.target import Target

ROLES = ("api", "updates", "nginx", "certbot", "integrity", "watch")


def apply(target: Target) -> None:
    """Deploys the layer."""
    layer(ROLES, target)
