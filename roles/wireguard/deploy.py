"""Installs, configures and activates the tunnel for remote management."""

from __future__ import annotations

from pyinfra.api import deploy

from gatehouse.site.remote import INTERFACE
from roles import lifecycle
from roles.target import Target
from roles.wireguard import files
from roles.wireguard.operations import as_declared, installed, withdrawn


@deploy("Remote management")
def apply(target: Target) -> None:
    """Install, configure, activate."""
    install()
    configure(target)
    activate()


def install() -> None:
    """wg, and what does the kernel's work where the kernel can't: in containers."""
    installed(name="Install WireGuard's tools")


def configure(target: Target) -> None:
    """Keys and peers, readable by root alone."""
    lifecycle.files(
        lifecycle.Directory("/etc/gatehouse"),
        lifecycle.Directory(files.FOLDER, mode=0o700),
        *files.configuration(target),
        lifecycle.stamped(files.UNIT, files.LOADS),
        name="Configure remote management",
    )


def activate() -> None:
    """Peers are exchanged while the tunnel stays; who is gone is cut."""
    lifecycle.running(
        files.UNIT,
        loads=files.LOADS,
        reload=f"systemctl reload {files.UNIT}",
        prove=f"wg show {INTERFACE} listen-port >/dev/null",
        name="Run remote management",
    )
    as_declared(name="Remote management has the declared peers, and no others")


@deploy("No remote management")
def leave() -> None:
    """Where nobody may come any more."""
    withdrawn(name="Take the tunnel down")
