"""The message intake: what devices report is verified, and what is signed, new and whole is stored."""

from gatehouse.site import Flow, Secret, Service

service = Service(
    name="intake",
    title="Message intake",
    packages=("python3",),
    units=("gatehouse-intake.service",),
    user="gatehouse-intake",
    network_facing=True,
    flows=(
        Flow(
            source="mosquitto",
            destination="intake",
            data="signed telemetry of all devices",
            encryption="tls",
            authentication="client certificate of the site's PKI; each message by its device's HMAC key",
            compromise="telemetry is read, or kept from the database; it can't be forged without a device's key",
            integrity="TLS, and an HMAC over each message from the device to here",
        ),
        Flow(
            source="intake",
            destination="influxdb",
            data="telemetry that was verified",
            encryption="tls",
            authentication="a credential that may write one database and read nothing",
            compromise="false telemetry in the database",
        ),
    ),
    secrets=(
        Secret(
            name="devices' HMAC keys",
            kind="key",
            rotation_days=365,
            consumers=("intake", "the device"),
            kept="devices/*/hmac/*",
        ),
        Secret(
            name="client key",
            kind="key",
            rotation_days=365,
            consumers=("intake", "mosquitto"),
            kept="client/gatehouse-intake/key",
        ),
        Secret(
            name="client certificate",
            kind="certificate",
            rotation_days=245,
            consumers=("intake", "mosquitto"),
            kept="client/gatehouse-intake/certificate",
            replaced_by="harden",
        ),
    ),
)
