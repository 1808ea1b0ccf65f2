"""The update server: signed firmware for devices, each model's for its own devices alone, over mutual TLS.

Only where the site says `updates=True`. `https://updates.DOMAIN`, on a port of its own, served by the HTTPS front's
nginx: it holds what was signed elsewhere, and no key that signs. Who takes the gateway can keep updates from devices,
and can make none.
"""

from gatehouse.site import Listener, Secret, Service
from roles.nginx import USER

service = Service(
    name="updates",
    title="Update server",
    packages=("nginx",),
    user=USER,
    only_with="updates",
    listeners=(
        Listener(
            name="updates",
            port=8444,
            encryption="tls",
            authentication="mutual: the server by its certificate, the device by one that the registry knows",
            reachable_from=("iot",),
            data="signed manifests and images of firmware, those of its own model to each device",
            compromise="updates can be withheld, and images read; none can be forged, their keys are elsewhere",
        ),
    ),
    secrets=(
        Secret(
            name="update server's key", kind="key", rotation_days=365, consumers=("nginx",), kept="server/updates-*/key"
        ),
        Secret(
            name="update server's certificate",
            kind="certificate",
            rotation_days=245,
            consumers=("nginx",),
            kept="server/updates-*/certificate",
            replaced_by="harden",
        ),
    ),
)
