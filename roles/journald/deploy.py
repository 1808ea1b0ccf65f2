"""Configures and activates the journal."""

from __future__ import annotations

from pyinfra.api import deploy

from roles import lifecycle
from roles.journald import service
from roles.target import Target

UNIT = service.units[0]
CONFIGURATION = "/etc/systemd/journald.conf.d/50-gatehouse.conf"


@deploy("Log")
def apply(target: Target) -> None:
    """Configure, activate; the journal is part of Debian's systemd."""
    configure()
    activate()


def configure() -> None:
    """Limits of size, age and rate."""
    lifecycle.files(
        lifecycle.template("journald", CONFIGURATION),
        lifecycle.stamped(UNIT, [CONFIGURATION], reloads=False),
        name="Configure the journal",
    )


def activate() -> None:
    """A restart: services keep their connections to the journal over it."""
    lifecycle.running(
        UNIT,
        loads=[CONFIGURATION],
        name="Run the journal",
        prove="journalctl --flush && [ -d /var/log/journal/$(cat /etc/machine-id) ]",
    )
