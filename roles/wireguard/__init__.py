"""Remote management: a WireGuard tunnel that ends in the management segment, and nowhere else.

Only where the site has `remote`. What of management is encrypted is reached through it, and the hosts there.
"""

from gatehouse.site import Listener, Secret, Service

service = Service(
    name="wireguard",
    title="Remote management (WireGuard)",
    packages=("wireguard-tools",),
    units=("gatehouse-tunnel.service",),
    only_with="remote",
    network_facing=True,
    listeners=(
        Listener(
            name="tunnel",
            port=51820,
            transport="udp",
            encryption="wireguard",
            authentication="a peer's key and the key that it shares with the gateway",
            reachable_from=("internet",),
            data="administration",
            compromise="who has a peer's keys stands in the management segment until the peer is removed",
        ),
    ),
    secrets=(
        Secret(name="gateway's key", kind="key", rotation_days=365, consumers=("peers",), kept="wireguard/gateways/*"),
        Secret(name="peers' keys", kind="key", rotation_days=365, consumers=("peers",), kept="wireguard/peers/*"),
        Secret(name="shared keys", kind="key", rotation_days=365, consumers=("peers",), kept="wireguard/shared/*"),
    ),
)
