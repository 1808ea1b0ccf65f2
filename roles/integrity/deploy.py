"""Installs, configures and activates the nightly search for files of nobody."""

from __future__ import annotations

from pyinfra.api import deploy

from roles import lifecycle
from roles.integrity import files, operations, service
from roles.target import Target


@deploy("Files of nobody")
def apply(target: Target) -> None:
    """Install, configure, activate."""
    install()
    configure(target)
    activate()


def install() -> None:
    """Debian's AIDE without Debian's own jobs and rules, and a user who may read everything and write nothing."""
    lifecycle.packages(*service.packages, name="Install AIDE")
    lifecycle.accounts(service.user, name="Make the user of AIDE")


def configure(target: Target) -> None:
    """What is looked at, and what the kit has put there itself."""
    lifecycle.files(
        lifecycle.Directory("/etc/aide"),
        *files.configuration(target),
        name="Configure AIDE",
        check=files.CHECK,
    )
    operations.declared(*files.later(target), name="Note what the kit has put on the gateway")


def activate() -> None:
    """Each night is a start of its own. The database is made once; after that, what was found is looked at again."""
    lifecycle.known(files.UNIT, name="Have systemd read AIDE's unit")
    lifecycle.running(files.TIMER, name="Arm the timer of AIDE")
    operations.looked(name="Have AIDE's database of this gateway")
