"""What goes with the broker: checks that fall with it, and sabotages that hide each other."""

from __future__ import annotations

NOT_THE_BROKER = {
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
}
FOR_PROGRAMS_TOO = {"{programs,psk}.confined": "these rules are for every name, a program's or a key's too"}
# Sabotages of the broker itself: they would be hidden where it does not run, and some would start it again.
OTHERS = ("plain-*", "broker-*", "broken-*", "no-broker", "no-revocation", "no-rights", "impostor*", "anybody")
NEED_THE_BROKER = (
    *OTHERS,
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
