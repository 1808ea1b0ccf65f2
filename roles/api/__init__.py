"""The device API: the list of devices for people's and cloud services' programs, read-only, by short-lived tokens.

Only where the site says `api=True`. `GET /api/devices` at the gateway's own name, behind the HTTPS front.
"""

from gatehouse.site import Listener, Page, Secret, Service
from roles.nginx import USER as FRONT

service = Service(
    name="api",
    title="Device API",
    packages=("python3", "python3-jwt", "python3-cryptography"),
    units=("gatehouse-api.service",),
    user="gatehouse-api",
    only_with="api",
    network_facing=True,
    listeners=(
        Listener(
            name="http",
            port=8110,
            encryption="none",
            authentication="token of the site (JWT, ES256), at most 24 hours old",
            accounts=("root", FRONT),
            data="names, models, segments and status of the devices, and when their certificates end",
            compromise="who has a token reads that until it ends; nothing can be changed",
        ),
    ),
    pages=(Page(path="/api/", listener="http"),),
    secrets=(
        Secret(
            name="key that signs tokens",
            kind="key",
            rotation_days=180,
            consumers=("operator",),
            kept="api/jwt/key",
            replaced_by="token.rotate",
        ),
    ),
)
