"""Installs, configures and activates the collector."""

from __future__ import annotations

from pyinfra.api import deploy

from roles import lifecycle
from roles.collector import files, service
from roles.intake.files import PACKAGES
from roles.target import Target


@deploy("The gateway's own numbers")
def apply(target: Target) -> None:
    """Install, configure, activate."""
    install()
    configure(target)
    activate()


def install() -> None:
    """Debian's Python, and a user of the collector's own."""
    lifecycle.packages(*service.packages, name="Install what the collector asks")
    lifecycle.accounts(service.user, name="Make the collector's user")


def configure(target: Target) -> None:
    """The program, what it reads, and how many devices there are."""
    lifecycle.files(
        lifecycle.Directory(files.FOLDER),
        *(lifecycle.Directory(path) for path in PACKAGES),
        lifecycle.Directory(f"{files.LIBRARY}/gatehouse/collector"),
        *files.program(),
        *files.configuration(target),
        files.registry(target),
        name="Configure the collector",
    )


def activate() -> None:
    """Each reading is a start of its own: only the timer must be armed, and systemd know the unit as it is now."""
    lifecycle.known(files.UNIT, name="Have systemd read the collector's unit")
    lifecycle.running(files.TIMER, name="Arm the collector's timer")
