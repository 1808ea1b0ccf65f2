"""Installs, configures and activates automatic updates."""

from __future__ import annotations

from pyinfra.api import deploy

from roles import lifecycle
from roles.target import Target
from roles.upgrades import service

CONFIGURATION = "/etc/apt/apt.conf.d/90gatehouse-upgrades"
CHECK = f'apt-config -c "$STAGED"{CONFIGURATION} dump >/dev/null'


@deploy("Updates")
def apply(target: Target) -> None:
    """Install, configure, activate."""
    install()
    configure(target)
    activate()


def install() -> None:
    """Debian's own unattended-upgrades."""
    lifecycle.packages(*service.packages, name="Install unattended-upgrades")


def configure(target: Target) -> None:
    """Which origins, and when the gateway may start again."""
    lifecycle.files(
        configuration(target),
        name="Configure automatic updates",
        check=CHECK,
    )


def activate() -> None:
    """apt reads its configuration at each run: only the timers must be armed."""
    lifecycle.enabled(*service.units, start=True, name="Arm the timers of automatic updates")


def configuration(target: Target) -> lifecycle.File:
    """What apt and unattended-upgrades read."""
    return lifecycle.template("upgrades", CONFIGURATION, reboot=target.site.automatic_reboot)
