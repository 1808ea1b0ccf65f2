"""Installs, configures and activates the intake."""

from __future__ import annotations

from pyinfra.api import deploy

from roles import lifecycle
from roles.intake import files, service
from roles.target import Target


@deploy("Message intake")
def apply(target: Target) -> None:
    """Install, configure, activate."""
    install()
    configure(target)
    activate()


def install() -> None:
    """Debian's Python, and a user of the intake's own."""
    lifecycle.packages(*service.packages, name="Install Python")
    lifecycle.accounts(service.user, name="Make the intake's user")


def configure(target: Target) -> None:
    """The program, what it reads, and the keys of the active devices."""
    lifecycle.files(
        lifecycle.Directory("/etc/gatehouse"),
        lifecycle.Directory(files.FOLDER, group=service.user, mode=0o750),
        *(lifecycle.Directory(path) for path in files.PACKAGES),
        *files.program(),
        *files.configuration(target),
        files.keys(target),
        lifecycle.stamped(files.UNIT, files.loads(), reloads=False),
        name="Configure the intake",
        check=files.CHECK,
    )


def activate() -> None:
    """A restart: what it has not stored by then, the broker delivers again. Then it must be connected to the broker."""
    lifecycle.running(files.UNIT, loads=files.loads(), prove=files.CONNECTED, name="Run the intake")
