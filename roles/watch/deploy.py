"""Installs, configures and activates the nightly verification."""

from __future__ import annotations

from pyinfra.api import deploy

from roles import lifecycle
from roles.target import Target
from roles.watch import files, service


@deploy("Nightly verification")
def apply(target: Target) -> None:
    """Install, configure, activate."""
    install()
    configure(target)
    activate()


def install() -> None:
    """Debian's Python, and a user of its own."""
    lifecycle.packages(*service.packages, name="Install what the nightly verification asks")
    lifecycle.accounts(service.user, name="Make the nightly verification's user")


def configure(target: Target) -> None:
    """The program, and what it shall find."""
    lifecycle.files(
        lifecycle.Directory("/etc/gatehouse"),
        *files.configuration(target),
        name="Configure the nightly verification",
        check=files.CHECK,
    )


def activate() -> None:
    """Each night is a start of its own: only the timer must be armed, and systemd know the unit as it is now.

    It is run once when it is armed, so that whoever looks at the result finds one.
    """
    lifecycle.known(files.UNIT, name="Have systemd read the nightly verification's unit")
    lifecycle.running(
        files.TIMER, prove=f"systemctl start {files.UNIT}", name="Arm the timer of the nightly verification"
    )
