"""Sabotages of the broker: who gets in, and what each may do there."""

from __future__ import annotations

import shlex
from pathlib import Path

from lab.sabotage.model import Sabotage

_IMPOSTOR = shlex.quote(Path(__file__).with_name("impostor.py").read_text())
_AT = "$CREDENTIALS/server.crt $CREDENTIALS/server.key 8883 $gw4_iot $gw6_iot"
_NOT_THE_BROKER = {
    "broker.*": "what answers is no broker: it lets clients in and does nothing for them",
    "quarantine.broker": "the same for a device in quarantine",
    "host.runs-mosquitto": "the broker is stopped, so that something else can take its place",
    "programs.*": "nothing answers programs",
    "gateway.mosquitto.passwords-from-*": "nothing answers programs",
    "psk.*": "nothing answers devices with a key",
    "limits.*": "the connections that are asked for are those to the broker",
    "gateway.mosquitto.psk-from-*": "nothing answers devices with a key",
    "scan.tcp-from-{iot,internal}": "a declared port is closed",
    "intake.*": "the intake has no broker that it trusts",
    "dashboards.live-data": "so nothing new is shown",
}
_FOR_PROGRAMS_TOO = {"{programs,psk}.confined": "these rules are for every name, a program's or a key's too"}
# Other sabotages of the broker itself: they would be hidden where it does not run, or lets everybody in.
_OTHERS = ("plain-*", "broker-*", "broken-*", "no-broker", "no-revocation", "no-rights", "impostor*", "anybody")
_NEED_THE_BROKER = (
    *_OTHERS,
    "names-believed",
    "weak-tls",
    "tls-1.2",
    "take-over",
    "endless-packets",
    "telemetry-of-others",
    "commands-to-others",
    "listening-in",
    "nothing-delivered",
    "forgotten-program",
    "any-password",
    "no-name-needed",
    "program-everywhere",
    "passwords-for-all",
    "keys-for-all",
    "forgotten-key",
    "known-key",
    "key-for-nobody",
    "device-everywhere",
    "no-forward-secrecy",
    "key-instead-of-certificate",
    "requests-of-others",
    "answers-to-others",
    "no-requests",
)
_RIGHTS = (
    *(
        "*-rights",
        "telemetry-of-others",
        "commands-to-others",
        "listening-in",
        "nothing-delivered",
        "program-*",
        "device-*",
    ),
    *("requests-of-others", "answers-to-others", "no-requests"),
)

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
            "dashboards.live-data": "so nothing new is shown",
        },
        apart_from=_NEED_THE_BROKER,
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
        may=_NOT_THE_BROKER,
        ends="gone impostor",
        apart_from=_NEED_THE_BROKER,
    ),
    Sabotage(
        name="impostor-of-old",
        title="Something in front of the broker ends TLS, and knows nothing newer than 1.2",
        breaks=f"""
            systemctl stop mosquitto.service
            stray impostor {_IMPOSTOR} 1.2 1.2 {_AT}
        """,
        catches=("broker.tls-{1.2,1.3}",),
        may=_NOT_THE_BROKER,
        ends="gone impostor",
        apart_from=_NEED_THE_BROKER,
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
        may={**_NOT_THE_BROKER, "keys.known": "its key is none that the site knows"},
        ends="gone impostor; rm -f /run/impostor.key /run/impostor.crt",
        apart_from=_NEED_THE_BROKER,
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
            "dashboards.live-data": "so nothing new is shown",
            "psk.*": "nor has a device with a key a name",
        },
        apart_from=_NEED_THE_BROKER,
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
            "dashboards.live-data": "so nothing new is shown",
            "psk.*": "the same where keys are shown",
        },
        apart_from=_NEED_THE_BROKER,
    ),
    Sabotage(
        name="no-revocation",
        title="The broker does not look at the list of revoked devices",
        breaks="broker '/^crlfile/d'",
        catches=("broker.refuses-revoked", "broker.revocation-list"),
    ),
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
            "dashboards.live-data": "so nothing new is shown",
        },
        apart_from=_NEED_THE_BROKER,
    ),
    Sabotage(
        name="weak-tls",
        title="The broker speaks TLS 1.1, and suites without authenticated encryption",
        breaks="broker 's/^tls_version .*/tls_version tlsv1.1\\nciphers ALL:@SECLEVEL=0/'",
        catches=("broker.tls-{1.1,1.2}", "broker.tls-suites"),
        may={"psk.forward-secrecy": "where keys are shown, too"},
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
    Sabotage(
        name="no-rights",
        title="The broker has no access rules: everybody may do everything",
        breaks="broker '/^acl_file/d'",
        catches=(
            "broker.denies-{others-telemetry,own-commands,others-commands,listening-in,state}",
            "broker.denies-{others-requests,own-answers,others-answers}",
            "broker.identity-from-certificate",
            "quarantine.broker",
        ),
        may=_FOR_PROGRAMS_TOO,
        apart_from=_RIGHTS,
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
            **_FOR_PROGRAMS_TOO,
        },
        apart_from=_NEED_THE_BROKER,
    ),
    Sabotage(
        name="telemetry-of-others",
        title="A device may write other devices' telemetry",
        breaks="rights 'pattern write devices/+/telemetry/#'",
        catches=("broker.denies-others-telemetry",),
        may={
            "broker.identity-from-certificate": "whoever says another's name may now write in it",
            "quarantine.broker": "so may a device in quarantine",
            **_FOR_PROGRAMS_TOO,
        },
    ),
    Sabotage(
        name="commands-to-others",
        title="A device may command other devices",
        breaks="rights 'pattern write devices/+/commands/#'",
        catches=("broker.denies-others-commands", "broker.denies-own-commands"),
        may={
            "broker.identity-from-certificate": "so may a name that has no rights",
            "broker.denies-own-answers": "an answer is a command",
            **_FOR_PROGRAMS_TOO,
        },
    ),
    Sabotage(
        name="listening-in",
        title="A device may read what the others write, and the broker's state",
        breaks="rights 'pattern read devices/#'; rights 'pattern readwrite $SYS/#'",
        catches=("broker.denies-listening-in", "broker.denies-state"),
        may={
            "broker.identity-from-certificate": "so may a name that has no rights",
            "broker.denies-others-answers": "what is answered to others as well",
            **_FOR_PROGRAMS_TOO,
        },
    ),
    Sabotage(
        name="requests-of-others",
        title="A device may ask for a certificate in another device's name",
        breaks="rights 'pattern write devices/+/identity/+'",
        catches=("broker.denies-others-requests",),
        may=_FOR_PROGRAMS_TOO,
    ),
    Sabotage(
        name="answers-to-others",
        title="A device may read the certificates that others are sent, and send itself one",
        breaks="rights 'pattern readwrite devices/+/commands/identity/certificate'",
        catches=("broker.denies-others-answers", "broker.denies-own-answers"),
        may={
            "broker.denies-listening-in": "that is listening in, too",
            "broker.identity-from-certificate": "so may a name that has no rights",
            **_FOR_PROGRAMS_TOO,
        },
    ),
    Sabotage(
        name="no-requests",
        title="The rule by which devices ask for their next certificate is gone",
        breaks="""
            edit $CREDENTIALS/acl '/^pattern write .*identity/d'
            systemctl reload mosquitto.service
        """,
        catches=("broker.takes-requests",),
        may={"broker.denies-others-requests": "its own success is gone"},
        apart_from=_RIGHTS,
    ),
    Sabotage(
        name="nothing-delivered",
        title="The rule by which devices publish is gone",
        breaks="""
            edit $CREDENTIALS/acl '/^pattern write .*telemetry/d'
            systemctl reload mosquitto.service
        """,
        catches=("broker.delivers",),
        may={
            "broker.{denies-*,identity-from-certificate,limits-packets}": "their own success is gone",
            "intake.*": "nothing of a device's comes to the intake",
            "dashboards.live-data": "so nothing new is shown",
            "psk.confined": "a device with a key publishes by the same rule",
        },
        apart_from=_RIGHTS,
    ),
    Sabotage(
        name="forgotten-program",
        title="The broker does not know a program's password",
        breaks="""
            edit $CREDENTIALS/passwords '/^program\\.gatehouse_probe:/d'
            systemctl reload mosquitto.service
        """,
        catches=("programs.accepts-password",),
        may={"programs.{refuses-*,confined}": "their own success is gone"},
        apart_from=_NEED_THE_BROKER,
    ),
    Sabotage(
        name="any-password",
        title="Programs need no password: a name is enough",
        breaks="broker '/^password_file/d; s/^allow_anonymous false/allow_anonymous true/'",
        catches=("programs.refuses-{wrong-password,empty-password,no-password,another-name,default}",),
        may={"programs.confined": "who says its name ends its session"},
        apart_from=_NEED_THE_BROKER,
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
        apart_from=_NEED_THE_BROKER,
    ),
    Sabotage(
        name="no-name-needed",
        title="Programs need neither name nor password",
        breaks="broker 's/^allow_anonymous false/allow_anonymous true/; 0,/^use_username_as_clientid true/{//d}'",
        catches=("programs.refuses-no-name",),
        apart_from=_NEED_THE_BROKER,
    ),
    Sabotage(
        name="program-everywhere",
        title="A program may read and write everything",
        breaks="rights 'user program.gatehouse_probe'; rights 'topic readwrite #'",
        catches=("programs.confined",),
        apart_from=_NEED_THE_BROKER,
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
        apart_from=_NEED_THE_BROKER,
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
        apart_from=_NEED_THE_BROKER,
    ),
    Sabotage(
        name="key-for-nobody",
        title="The broker takes a key from somebody who is no device",
        breaks="""
            edit $CREDENTIALS/psk 's/^(gatehouse-probe-psk)(:.*)/\\1\\2\\n\\1-nobody\\2/'
            systemctl reload mosquitto.service
        """,
        catches=("psk.refuses-unknown-name",),
        apart_from=_NEED_THE_BROKER,
    ),
    Sabotage(
        name="device-everywhere",
        title="A device with a key may read and write everything",
        breaks="rights 'user gatehouse-probe-psk'; rights 'topic readwrite #'",
        catches=("psk.confined",),
        apart_from=_NEED_THE_BROKER,
    ),
    Sabotage(
        name="no-forward-secrecy",
        title="With a device's key all that it ever said can be read: TLS 1.2 without a fresh key exchange",
        breaks="""
            broker '/^listener 8884/,/^$/s/^tls_version .*/tls_version tlsv1.2\\nciphers PSK-AES256-GCM-SHA384/'
        """,
        catches=("psk.forward-secrecy",),
        apart_from=_NEED_THE_BROKER,
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
        apart_from=_NEED_THE_BROKER,
    ),
)
