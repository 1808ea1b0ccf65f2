"""Installs, configures and activates the broker."""

from __future__ import annotations

from pyinfra.api import deploy

from roles import lifecycle
from roles.mosquitto import service
from roles.mosquitto.files import CHECK, CREDENTIALS, GUARD, LOADS, UNIT, configuration, credentials, tools
from roles.target import Target

# The log is in the journal: nothing to rotate, and nobody would read what the broker says after this job's reload.
NIGHT_JOB = "/etc/logrotate.d/mosquitto"


@deploy("Broker")
def apply(target: Target) -> None:
    """Install, configure, activate."""
    install()
    configure(target)
    activate()


def install() -> None:
    """Debian's broker; its own configuration, which listens in the clear, is never started."""
    lifecycle.packages(*service.packages, name="Install mosquitto")
    lifecycle.absent(NIGHT_JOB, name="Leave the broker's log to the journal")


def configure(target: Target) -> None:
    """The whole set at once: a broker was started on it, in private, before any of it is replaced."""
    lifecycle.files(
        lifecycle.Directory(CREDENTIALS, group=service.user, mode=0o750),
        *tools(),
        *configuration(target),
        *credentials(target),
        name="Configure mosquitto",
        check=CHECK,
    )


def activate() -> None:
    """A reload where that is enough; the broker must then show whom it turns away, or its former files come back."""
    lifecycle.running(
        UNIT,
        loads=LOADS,
        reload=f"{GUARD} reload",
        prove=f"{GUARD} prove",
        undo=f"{GUARD} restore",
        name="Run mosquitto",
    )
