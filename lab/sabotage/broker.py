"""Sabotages of the broker: who gets in, and what each may do there."""

from __future__ import annotations

import shlex
from pathlib import Path

from lab.sabotage import broker_logins, broker_rights
from lab.sabotage.broker_effects import FOR_PROGRAMS_TOO, NEED_THE_BROKER, NOT_THE_BROKER
from lab.sabotage.model import Sabotage

_IMPOSTOR = shlex.quote(Path(__file__).with_name("impostor.py").read_text())
_ANY_SUITE = {"tls.weak-suites": "it agrees on whatever suite it is offered"}
_AT = "$CREDENTIALS/server.crt $CREDENTIALS/server.key 8883 $gw4_iot $gw6_iot"

SABOTAGES = (
    Sabotage(
        name="plain-mqtt",
        title="The broker listens in the clear on 1883, too",
        breaks="broker '/^listener 8883 [0-9.]+$/i listener 1883 127.0.0.1'",
        catches=("gateway.closed-ports", "gateway.sockets"),
    ),
    Sabotage(
        name="plain-mqtt-for-all",
        title="The broker listens in the clear on 1883 on every address, and the firewall lets everybody to it",
        breaks="""
            broker '/^listener 8883 [0-9.]+$/i listener 1883'
            admit input 'tcp dport 1883 counter accept'
        """,
        catches=("gateway.closed-ports", "gateway.closed-ports-from-{iot,management,guest,internal,internet}"),
        may={
            "gateway.sockets": "a socket that nobody declared",
            "scan.{tcp,other-addresses}-from-*": "what answers is open to a scan, too",
        },
    ),
    Sabotage(
        name="tickets-of-the-broker",
        title="The broker gives tickets whose key it keeps for as long as it runs",
        breaks="""
            edit /etc/mosquitto/openssl.cnf '/^(Options|NumTickets)/d'
            systemctl restart mosquitto.service
        """,
        catches=("tls.tickets-of-broker",),
    ),
    Sabotage(
        name="broker-for-all",
        title="The broker listens on every address, and the firewall lets everybody to it",
        breaks="""
            broker "/^listener 8883 .*:/,/^\\$/d; s/^(listener 8883) .*/\\1/"
            admit input 'fib daddr . iif type local tcp dport 8883 counter accept'
        """,
        catches=("gateway.mosquitto.mqtts-from-{management,guest,internal,internet}",),
        may={
            "scan.tcp-from-{management,guest,internal,internet}": "what answers is open to a scan, too",
            "limits.*": "a rule in front of the others lets in without measure",
        },
    ),
    Sabotage(
        name="passwords-for-all",
        title="The broker takes passwords on every address, and the firewall lets everybody to it",
        breaks="""
            broker "/^listener 8885 .*:/,/^\\$/d; s/^(listener 8885) .*/\\1/"
            admit input 'fib daddr . iif type local tcp dport 8885 counter accept'
        """,
        catches=("gateway.mosquitto.passwords-from-{iot,management,guest,internet}",),
        may={"scan.tcp-from-{iot,management,guest,internet}": "what answers is open to a scan, too"},
    ),
    Sabotage(
        name="keys-for-all",
        title="The broker takes pre-shared keys on every address, and the firewall lets everybody to it",
        breaks="""
            broker "/^listener 8884 .*:/,/^\\$/d; s/^(listener 8884) .*/\\1/"
            admit input 'fib daddr . iif type local tcp dport 8884 counter accept'
        """,
        catches=("gateway.mosquitto.psk-from-{management,guest,internal,internet}",),
        may={"scan.tcp-from-{management,guest,internal,internet}": "what answers is open to a scan, too"},
    ),
    Sabotage(
        name="no-broker",
        title="The broker is stopped",
        breaks="systemctl stop mosquitto.service",
        catches=(
            "host.runs-mosquitto",
            "gateway.mosquitto.{mqtts-from-iot,psk-from-iot,passwords-from-internal}",
            "broker.accepts-devices",
            "broker.tls-1.3",
            "programs.accepts-password",
            "psk.accepts-key",
        ),
        may={
            "gateway.mosquitto.*": "it answers nobody, so silence elsewhere proves nothing",
            "broker.*": "there is none",
            "quarantine.{isolated,broker}": "a device in quarantine has nothing left to reach",
            "{programs,psk}.*": "there is none",
            "scan.tcp-from-{iot,internal}": "a declared port is closed",
            "intake.*": "nothing comes without a broker",
            "limits.*": "the connections that are asked for are those to the broker",
        },
        apart_from=NEED_THE_BROKER,
    ),
    Sabotage(
        name="impostor",
        title="Something in front of the broker ends TLS, in all versions, and asks nobody for a certificate",
        breaks=f"""
            systemctl stop mosquitto.service
            stray impostor {_IMPOSTOR} 1.0 1.3 {_AT}
        """,
        catches=(
            "broker.refuses-{none,expired,foreign,revoked,server}",
            "broker.tls-{1.0,1.1,1.2}",
            "broker.tls-suites",
        ),
        may={**NOT_THE_BROKER, **_ANY_SUITE},
        ends="gone impostor",
        apart_from=NEED_THE_BROKER,
    ),
    Sabotage(
        name="impostor-of-old",
        title="Something in front of the broker ends TLS, and knows nothing newer than 1.2",
        breaks=f"""
            systemctl stop mosquitto.service
            stray impostor {_IMPOSTOR} 1.2 1.2 {_AT}
        """,
        catches=("broker.tls-{1.2,1.3}",),
        may={**NOT_THE_BROKER, **_ANY_SUITE},
        ends="gone impostor",
        apart_from=NEED_THE_BROKER,
    ),
    Sabotage(
        name="impostor-with-own-certificate",
        title="Something else answers in the broker's place, with a certificate that it made itself",
        breaks=f"""
            systemctl stop mosquitto.service
            openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=broker \\
                -keyout /run/impostor.key -out /run/impostor.crt 2>/dev/null
            stray impostor {_IMPOSTOR} 1.2 1.3 /run/impostor.crt /run/impostor.key 8883 $gw4_iot $gw6_iot
        """,
        catches=("broker.is-genuine", "broker.accepts-devices"),
        may={**NOT_THE_BROKER, **_ANY_SUITE, "keys.known": "its key is none that the site knows"},
        ends="gone impostor; rm -f /run/impostor.key /run/impostor.crt",
        apart_from=NEED_THE_BROKER,
    ),
    Sabotage(
        name="anybody",
        title="The broker asks for no certificate, and takes clients without a name",
        breaks="broker 's/^(require_certificate|use_identity_as_username|use_username_as_clientid) true/\\1 false/;"
        " s/^(allow_anonymous) false/\\1 true/'",
        catches=("broker.refuses-none", "broker.delivers"),
        may={
            "{broker,quarantine}.*": "nobody has a name, so nobody has rights",
            "programs.*": "programs without a name are let in, too",
            "intake.*": "the intake has none either",
            "psk.*": "nor has a device with a key a name",
        },
    ),
    Sabotage(
        name="names-believed",
        title="The broker believes the name that a client says instead of the one in its certificate",
        breaks="broker 's/^(use_identity_as_username) true/\\1 false/; s/^(allow_anonymous) false/\\1 true/;"
        " /^password_file/d'",
        catches=("broker.identity-from-certificate",),
        may={
            "{broker,quarantine}.*": "who says no name is not let in any more",
            "programs.*": "clients without a name are allowed",
            "intake.*": "the intake says none",
            "psk.*": "the same where keys are shown",
        },
    ),
    Sabotage(
        name="no-revocation",
        title="The broker does not look at the list of revoked devices",
        breaks="broker '/^crlfile/d'",
        catches=("broker.refuses-revoked", "broker.revocation-list"),
    ),
    Sabotage(
        name="weak-tls",
        title="The broker speaks TLS 1.1, and suites without authenticated encryption",
        breaks="broker 's/^tls_version .*/tls_version tlsv1.1\\nciphers ALL:@SECLEVEL=0/'",
        catches=("broker.tls-{1.1,1.2}", "broker.tls-suites"),
        may={**_ANY_SUITE, "psk.forward-secrecy": "where keys are shown, too"},
    ),
    Sabotage(
        name="tls-1.2",
        title="The broker speaks TLS 1.2, though the site says 1.3",
        breaks="broker 's/^tls_version .*/tls_version tlsv1.2/'",
        catches=("broker.tls-1.2",),
        may={"{broker.tls-suites,psk.forward-secrecy}": "OpenSSL has such suites by default"},
    ),
    Sabotage(
        name="take-over",
        title="A client chooses its id itself, and can end another device's session with it",
        breaks="broker 's/^(use_username_as_clientid) true/\\1 false/'",
        catches=("broker.denies-takeover",),
    ),
    Sabotage(
        name="endless-packets",
        title="The broker takes packets of any size",
        breaks="broker '/^max_packet_size/d'",
        catches=("broker.limits-packets",),
    ),
    *broker_rights.SABOTAGES,
    *broker_logins.SABOTAGES,
    # The broker does not start with what these leave, so nothing may start it again after them.
    Sabotage(
        name="broken-revocation-list",
        title="The list of revoked devices is broken when the broker reads it again: it goes on without",
        breaks="""
            printf 'none\\n' >$CREDENTIALS/crl.pem
            systemctl reload mosquitto.service
        """,
        catches=("broker.refuses-revoked", "broker.revocation-list"),
        may={
            "intake.*": "sessions that were there have no rights any more, until they are begun anew",
        },
        apart_from=("broken-rights",),
    ),
    Sabotage(
        name="broken-rights",
        title="The access rules are broken when the broker reads them again: everybody may do everything",
        breaks="rights 'nonsense'",
        catches=("broker.denies-{others-telemetry,own-commands,others-commands}",),
        may={
            "broker.{denies-*,identity-from-certificate,delivers}": "how much is open then is the broker's affair",
            "quarantine.broker": "nor is anybody in quarantine then",
            "psk.*": "a broker that can't read its rules lets no keys in",
            **FOR_PROGRAMS_TOO,
        },
        # everybody may ask for a certificate, whether there is a rule or not
        apart_from=("no-requests",),
    ),
)
