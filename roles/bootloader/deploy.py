"""Has the boot loader ask for a password before it does anything else than start the gateway."""

from __future__ import annotations

from pyinfra.api import deploy

from roles import lifecycle
from roles.bootloader import service
from roles.bootloader.operations import protected
from roles.target import Target


@deploy("Boot loader")
def apply(target: Target) -> None:
    """Install, configure, activate; where there is no GRUB, nothing of it."""
    lifecycle.packages(*service.packages, name="Install what judges the boot loader's menu")
    protected(target, name="Have the boot loader ask who changes how the gateway starts")
