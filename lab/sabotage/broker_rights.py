"""Sabotages of the broker: what each may write and read."""

from __future__ import annotations

from lab.sabotage.broker_effects import FOR_PROGRAMS_TOO
from lab.sabotage.model import Sabotage

SABOTAGES = (
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
        may=FOR_PROGRAMS_TOO,
        # without rules nobody misses one
        apart_from=("no-requests",),
    ),
    Sabotage(
        name="telemetry-of-others",
        title="A device may write other devices' telemetry",
        breaks="rights 'pattern write devices/+/telemetry/#'",
        catches=("broker.denies-others-telemetry",),
        may={
            "broker.identity-from-certificate": "whoever says another's name may now write in it",
            "quarantine.broker": "so may a device in quarantine",
            **FOR_PROGRAMS_TOO,
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
            **FOR_PROGRAMS_TOO,
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
            **FOR_PROGRAMS_TOO,
        },
    ),
    Sabotage(
        name="requests-of-others",
        title="A device may ask for a certificate in another device's name",
        breaks="rights 'pattern write devices/+/identity/+'",
        catches=("broker.denies-others-requests",),
        may=FOR_PROGRAMS_TOO,
    ),
    Sabotage(
        name="answers-to-others",
        title="A device may read the certificates that others are sent, and send itself one",
        breaks="rights 'pattern readwrite devices/+/commands/identity/certificate'",
        catches=("broker.denies-others-answers", "broker.denies-own-answers"),
        may={
            "broker.denies-listening-in": "that is listening in, too",
            "broker.identity-from-certificate": "so may a name that has no rights",
            **FOR_PROGRAMS_TOO,
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
            "psk.confined": "a device with a key publishes by the same rule",
        },
        # a device in quarantine could publish by the same rule, too
        apart_from=("quarantine-heard",),
    ),
)
