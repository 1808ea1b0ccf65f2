"""Installs, configures and activates the alerts."""

from __future__ import annotations

from pyinfra.api import deploy

from roles import lifecycle
from roles.alerts import files, service
from roles.intake.files import LIBRARY, PACKAGES
from roles.target import Target


@deploy("Alerts")
def apply(target: Target) -> None:
    """Install, configure, activate."""
    install()
    configure(target)
    activate()


def install() -> None:
    """Debian's Python, whom Debian trusts, and a user of its own."""
    lifecycle.packages(*service.packages, name="Install what alerts need")
    lifecycle.accounts(service.user, name="Make the alerts' user")


def configure(target: Target) -> None:
    """The program, and what it reads."""
    lifecycle.files(
        lifecycle.Directory("/etc/gatehouse"),
        lifecycle.Directory(files.FOLDER, group=service.user, mode=0o750),
        *(lifecycle.Directory(path) for path in (*PACKAGES, f"{LIBRARY}/gatehouse/alerts")),
        *files.program(),
        *files.configuration(target),
        name="Configure the alerts",
        check=files.CHECK,
    )


def activate() -> None:
    """Each look is a start of its own: only the timer must be armed, and systemd know the unit as it is now.

    It is run once when it is armed: it must be able to keep its book, whether or not somebody takes its alerts.
    """
    lifecycle.known(files.UNIT, name="Have systemd read the alerts' unit")
    proof = f"systemctl start {files.UNIT}; [ -e {files.STATUS} ]"
    lifecycle.running(files.TIMER, prove=proof, name="Arm the alerts' timer")
