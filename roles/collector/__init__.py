"""The gateway's own numbers, once a minute: what was refused and dropped, days left, devices; for the dashboards."""

from gatehouse.site import Flow, Service

service = Service(
    name="collector",
    title="The gateway's own numbers",
    packages=("dbus", "python3", "nftables", "openssl"),
    units=("gatehouse-collector.timer",),
    user="gatehouse-collector",
    flows=(
        Flow(
            source="collector",
            destination="influxdb",
            data="how much was refused and dropped, days left of certificates, devices by status",
            encryption="tls",
            authentication="a credential that may write one database and read nothing",
            compromise="false numbers about the gateway; no measurement of a device",
        ),
    ),
)
