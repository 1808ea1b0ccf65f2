"""The nightly verification: what the gateway can prove by itself, without the operator."""

from gatehouse.site import Service

service = Service(
    name="watch",
    title="Nightly verification",
    packages=("dbus", "nftables", "python3"),
    units=("gatehouse-verify.timer",),
    user="gatehouse-watch",
)
