"""CoAP over DTLS for devices that have no MQTT: their signed messages go to the broker under their own topics.

Only where the site has `coap`. A device posts to `coaps://coap.DOMAIN/devices/NAME/telemetry/KIND` what it would have
published there; NAME is the common name of its certificate, the same that the broker would have known it by.
"""

from gatehouse.site import ClosedPort, Flow, Listener, Secret, Service

service = Service(
    name="coap",
    title="CoAP endpoint",
    packages=("python3", "python3-openssl"),
    units=("gatehouse-coap.service",),
    user="gatehouse-coap",
    only_with="coap",
    network_facing=True,
    listeners=(
        Listener(
            name="coaps",
            port=5684,
            transport="udp",
            encryption="dtls",
            authentication="client certificate of the site's PKI",
            reachable_from=("iot",),
            data="signed telemetry of devices that have no MQTT",
            compromise="false telemetry from the device whose keys were stolen, both of them, until it is revoked",
        ),
    ),
    flows=(
        Flow(
            source="coap",
            destination="mosquitto",
            data="signed telemetry of devices that have no MQTT",
            encryption="tls",
            authentication="client certificate of the site's PKI; each message by its device's HMAC key",
            compromise="telemetry is read, or kept from the broker; it can't be forged without a device's HMAC key",
            integrity="TLS, and an HMAC over each message from the device to the intake",
        ),
    ),
    secrets=(
        Secret(
            name="CoAP endpoint's key",
            kind="key",
            rotation_days=365,
            consumers=("coap",),
            kept="server/coap-*/key",
        ),
        Secret(
            name="CoAP endpoint's certificate",
            kind="certificate",
            rotation_days=245,
            consumers=("coap",),
            kept="server/coap-*/certificate",
            replaced_by="harden",
        ),
        Secret(
            name="CoAP endpoint's client key",
            kind="key",
            rotation_days=365,
            consumers=("coap", "mosquitto"),
            kept="client/gatehouse-coap/key",
        ),
        Secret(
            name="CoAP endpoint's client certificate",
            kind="certificate",
            rotation_days=245,
            consumers=("coap", "mosquitto"),
            kept="client/gatehouse-coap/certificate",
            replaced_by="harden",
        ),
    ),
    closed=(
        ClosedPort(port=5683, transport="udp", reason="CoAP in the clear"),
        ClosedPort(port=5683, reason="CoAP in the clear, over TCP"),
        ClosedPort(port=5684, reason="CoAP over TLS, which nobody here speaks"),
    ),
)
