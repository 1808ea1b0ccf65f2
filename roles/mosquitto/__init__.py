"""The MQTT broker: devices say who they are with a certificate, and that name alone decides what they may do.

The tree of topics. NAME is the common name of a device's certificate; nothing else is open to a device, `$SYS` neither:

    devices/NAME/telemetry/…    the device writes: what it measures and reports
    devices/NAME/status         the device writes: `online`, or its last will; may be retained
    devices/NAME/commands/…     the device reads: what it shall do
    devices/NAME/identity/…     the device writes: its request for a new certificate (`request`), and the serial number
                                of the one in use (`serial`), both retained; the answer is the retained command
                                `identity/certificate` (`gatehouse.identity.renewal`)

The kit's own clients have names that no device can have (`gatehouse.identity.names.KIT_PREFIX`):

    gatehouse-intake            reads telemetry and status of all devices
    gatehouse-alerts            writes `gateway/GATEWAY/alerts`, where the site says `alerts={"mqtt": True}`
    gatehouse-coap              writes telemetry of all devices, where the site has `coap`
    gatehouse-control           writes commands to all devices; reads what they ask for, and what waits as an answer

Where the site has `programs`, a second listener takes a user name and a password instead of a certificate. Their names
begin with `program.`, which no certificate's name can, and each has the topics that the site gives it.

Where the site says `psk=True`, a third listener takes devices that know no certificates by a key that they share with
the broker (TLS-PSK). The identity that goes with the key is the device's name, with the same rights as any other's.
"""

from gatehouse.site import ClosedPort, Flow, Listener, Secret, Service

service = Service(
    name="mosquitto",
    title="MQTT broker",
    packages=("mosquitto", "openssl"),
    units=("mosquitto.service",),
    user="mosquitto",
    network_facing=True,
    listeners=(
        Listener(
            name="mqtts",
            port=8883,
            encryption="tls",
            authentication="client certificate of the site's PKI",
            reachable_from=("iot",),
            data="telemetry and status of the devices, commands to them",
            compromise="false telemetry from, and commands to, the device whose key was stolen, until it is revoked",
        ),
        Listener(
            name="passwords",
            port=8885,
            encryption="tls",
            authentication="user name and password, generated, one for each of the site's programs",
            reachable_from=("internal",),
            data="what the site lets its programs read and write",
            compromise="whoever has a program's password does from anywhere in the segment what that program may, until"
            " it is rotated; a password can be copied, guessed at, and is known to the broker when it is shown",
            only_with="programs",
        ),
        Listener(
            name="psk",
            port=8884,
            encryption="tls",
            authentication="pre-shared key of 256 bits, generated, one for each device that knows no certificates",
            reachable_from=("iot",),
            data="telemetry and status of these devices, commands to them",
            compromise="device and gateway have the same key: whoever takes it from either can be the device to the"
            " broker, and the broker to the device, until it is rotated; who takes the gateway has the keys of all its"
            " devices",
            only_with="psk",
        ),
    ),
    flows=(
        Flow(
            source="operator",
            destination="gateway",
            data="the broker's key and certificate, and the list of revoked devices",
            encryption="ssh",
            authentication="SSH key of the administrator",
            compromise="who deploys decides which devices are let in",
        ),
    ),
    secrets=(
        Secret(
            name="server key",
            kind="key",
            rotation_days=1095,
            consumers=("mosquitto", "devices that pin it"),
            kept="server/mosquitto-*/key",
            replaced_by="ca.move-to-backup-key",
        ),
        Secret(
            name="server certificate",
            kind="certificate",
            rotation_days=245,
            consumers=("mosquitto",),
            kept="server/mosquitto-*/certificate",
            replaced_by="harden",
        ),
        Secret(
            name="revocation list",
            kind="certificate",
            rotation_days=61,
            consumers=("mosquitto",),
            kept="pki/devices/crl",
            replaced_by="harden",
        ),
        Secret(
            name="pre-shared key of a device",
            kind="key",
            rotation_days=365,
            consumers=("mosquitto", "the device"),
            kept="devices/*/psk",
        ),
        Secret(
            name="password of a program",
            kind="password",
            rotation_days=180,
            consumers=("mosquitto", "the program"),
            kept="broker/programs/*/password",
        ),
    ),
    closed=(
        ClosedPort(port=1883, reason="MQTT in the clear"),
        ClosedPort(port=8080, reason="MQTT over WebSockets in the clear"),
        ClosedPort(port=9001, reason="MQTT over WebSockets in the clear"),
    ),
)
