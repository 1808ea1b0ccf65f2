"""Installs, configures and activates the CoAP endpoint."""

from __future__ import annotations

from pyinfra.api import deploy

from roles import lifecycle
from roles.coap import files, service
from roles.target import Target


@deploy("CoAP endpoint")
def apply(target: Target) -> None:
    """Install, configure, activate."""
    install()
    configure(target)
    activate()


def install() -> None:
    """Debian's Python with its OpenSSL, and a user of the endpoint's own."""
    lifecycle.packages(*service.packages, name="Install what speaks DTLS")
    lifecycle.accounts(service.user, name="Make the CoAP endpoint's user")


def configure(target: Target) -> None:
    """The program, what it reads, and whom it lets in."""
    lifecycle.files(
        lifecycle.Directory("/etc/gatehouse"),
        lifecycle.Directory(files.FOLDER, group=service.user, mode=0o750),
        *(lifecycle.Directory(path) for path in files.PACKAGES),
        *files.program(),
        *files.configuration(target),
        *files.certificate(target),
        *files.admission(target),
        lifecycle.stamped(files.UNIT, files.loads(), reloads=False),
        name="Configure the CoAP endpoint",
        check=files.CHECK,
    )


def activate() -> None:
    """A restart; it must then be connected to the broker."""
    lifecycle.running(files.UNIT, loads=files.loads(), prove=files.CONNECTED, name="Run the CoAP endpoint")
