"""Sabotages of the broker: programs with a password, devices with a key."""

from __future__ import annotations

from lab.sabotage.model import Sabotage

SABOTAGES = (
    Sabotage(
        name="forgotten-program",
        title="The broker does not know a program's password",
        breaks="""
            edit $CREDENTIALS/passwords '/^program\\.gatehouse_probe:/d'
            systemctl reload mosquitto.service
        """,
        catches=("programs.accepts-password",),
        may={"programs.{refuses-*,confined}": "their own success is gone"},
    ),
    Sabotage(
        name="any-password",
        title="Programs need no password: a name is enough",
        breaks="broker '/^password_file/d; s/^allow_anonymous false/allow_anonymous true/'",
        catches=("programs.refuses-{wrong-password,empty-password,no-password,another-name,default}",),
        may={"programs.confined": "who says its name ends its session"},
        # both let clients in without a name, and so does an id of their own choice
        apart_from=("no-name-needed", "take-over"),
    ),
    Sabotage(
        name="broker-default-password",
        title="The broker knows a user with a password out of a tutorial",
        breaks="""
            mosquitto_passwd -b $CREDENTIALS/passwords admin admin
            chown root:mosquitto $CREDENTIALS/passwords
            chmod 0640 $CREDENTIALS/passwords
            systemctl reload mosquitto.service
            sleep 1
        """,
        catches=("programs.refuses-default",),
    ),
    Sabotage(
        name="no-name-needed",
        title="Programs need neither name nor password",
        breaks="broker 's/^allow_anonymous false/allow_anonymous true/; 0,/^use_username_as_clientid true/{//d}'",
        catches=("programs.refuses-no-name",),
        # both let clients in without a name, and so does an id of their own choice
        apart_from=("any-password", "take-over"),
    ),
    Sabotage(
        name="program-everywhere",
        title="A program may read and write everything",
        breaks="rights 'user program.gatehouse_probe'; rights 'topic readwrite #'",
        catches=("programs.confined",),
    ),
    Sabotage(
        name="forgotten-key",
        title="The broker does not know a device's key",
        breaks="""
            edit $CREDENTIALS/psk '/^gatehouse-probe-psk:/d'
            systemctl reload mosquitto.service
        """,
        catches=("psk.accepts-key",),
        may={"psk.*": "their own success is gone"},
    ),
    Sabotage(
        name="known-key",
        title="The broker takes a key that everybody can guess",
        breaks=f"""
            edit $CREDENTIALS/psk 's/^(gatehouse-probe-psk):.*/\\1:{"5a" * 32}/'
            systemctl reload mosquitto.service
        """,
        catches=("psk.refuses-wrong-key",),
        may={"psk.*": "the right key is good no more"},
    ),
    Sabotage(
        name="key-for-nobody",
        title="The broker takes a key from somebody who is no device",
        breaks="""
            edit $CREDENTIALS/psk 's/^(gatehouse-probe-psk)(:.*)/\\1\\2\\n\\1-nobody\\2/'
            systemctl reload mosquitto.service
        """,
        catches=("psk.refuses-unknown-name",),
    ),
    Sabotage(
        name="device-everywhere",
        title="A device with a key may read and write everything",
        breaks="rights 'user gatehouse-probe-psk'; rights 'topic readwrite #'",
        catches=("psk.confined",),
    ),
    Sabotage(
        name="no-forward-secrecy",
        title="With a device's key all that it ever said can be read: TLS 1.2 without a fresh key exchange",
        breaks="""
            broker '/^listener 8884/,/^$/s/^tls_version .*/tls_version tlsv1.2\\nciphers PSK-AES256-GCM-SHA384/'
        """,
        catches=("psk.forward-secrecy",),
    ),
    Sabotage(
        name="key-instead-of-certificate",
        title="Where certificates are to be asked for, it is pre-shared keys",
        breaks="""
            broker '/^listener 8883/,/^$/{
                /^(certfile|keyfile|cafile|crlfile|require_certificate)/d; s/^ciphers_tls1.3 .*/psk_hint gatehouse/
            }'
        """,
        catches=("psk.refuses-elsewhere", "broker.accepts-devices"),
        may={
            "{broker,quarantine,intake}.*": "who has a certificate is not let in",
            "keys.known": "no certificate is shown",
        },
    ),
)
