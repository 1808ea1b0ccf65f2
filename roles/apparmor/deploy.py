"""Installs AppArmor, configures and loads the profiles of the kit's services."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import deploy

from roles import lifecycle
from roles.apparmor import CONFINED, FOLDER, UNIT, profile, service
from roles.apparmor.facts import Confinement
from roles.apparmor.operations import held
from roles.rendering import File
from roles.target import Target

# The parser alone: nothing is given to the kernel, and nothing kept.
CHECK = f'apparmor_parser --skip-kernel-load --skip-cache --base {FOLDER} -- "$STAGED"{FOLDER}/gatehouse-* >/dev/null'


@deploy("Confinement")
def apply(target: Target) -> None:
    """Install, configure, activate."""
    install()
    configure(target)
    activate(target)


def install() -> None:
    """The program that reads profiles, and what loads them before anything else starts."""
    lifecycle.packages(*service.packages, name="Install AppArmor")


def configure(target: Target) -> None:
    """A profile for each service that runs here and has one."""
    files = profiles(target)
    lifecycle.files(
        *files,
        lifecycle.stamped(UNIT, [file.path for file in files]),
        name="Configure AppArmor's profiles",
        check=CHECK,
    )


def activate(target: Target) -> None:
    """Loaded before their services start; what runs by a profile already is held to the new one from then on."""
    if host.get_fact(Confinement).confines:
        loads = [file.path for file in profiles(target)]
        lifecycle.running(UNIT, loads=loads, reload=f"systemctl reload -- {UNIT}", name="Load AppArmor's profiles")
        held(name="Start anew what runs without its profile")
    else:
        lifecycle.enabled(UNIT, name="Load AppArmor's profiles at the start")


def profiles(target: Target) -> list[File]:
    """The profiles of the services that this gateway runs."""
    here = {service.name for service in target.site.services_of(target.name)}
    return [
        lifecycle.template("apparmor", f"{FOLDER}/{profile(name)}", profile=profile(name), unit=unit)
        for name, unit in CONFINED.items()
        if name in here
    ]
