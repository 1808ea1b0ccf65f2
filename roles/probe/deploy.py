"""Installs what the compliance suite runs on the gateway. Nothing stays running, nothing is to be configured."""

from __future__ import annotations

from pyinfra.api import deploy

from roles import lifecycle
from roles.probe import service
from roles.target import Target


@deploy("Probes")
def apply(_: Target) -> None:
    """Install; the probes themselves come with each run of the suite and leave nothing behind."""
    lifecycle.packages(*service.packages, name="Install the programs that probes need")
