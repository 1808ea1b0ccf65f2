"""Time: the gateway keeps its clock right and serves the segments; without time no device can check a certificate."""

from gatehouse.site import Flow, Listener, Service

service = Service(
    name="chrony",
    title="Time (NTP)",
    packages=("chrony",),
    units=("chrony.service",),
    user="_chrony",
    network_facing=True,
    listeners=(
        Listener(
            name="ntp",
            port=123,
            transport="udp",
            encryption="none",
            authentication="none",
            reachable_from=("iot", "management", "guest", "internal"),
            data="time",
            compromise="a forged answer shifts a device's clock, and with it what it thinks of certificates",
        ),
    ),
    flows=(
        Flow(
            source="gateway",
            destination="internet",
            data="time",
            encryption="none",
            authentication="several servers must agree",
            compromise="a provider that forges all of them shifts the gateway's clock",
        ),
    ),
)
