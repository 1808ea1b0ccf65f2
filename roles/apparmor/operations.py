"""Starts anew what runs without the profile that is loaded for it."""

from __future__ import annotations

import shlex
from collections.abc import Generator

from pyinfra import host
from pyinfra.api import StringCommand, operation

from roles.apparmor.facts import Confinement
from roles.differences import differs


@operation()
def held() -> Generator[StringCommand, None, None]:
    """A process takes a profile when it is started: restarts the units that began before theirs was loaded."""
    without = host.get_fact(Confinement).without
    for unit in without:
        differs(host.connector_data, "unit", unit, "runs without its AppArmor profile")
    if without:
        yield StringCommand(f"systemctl try-restart -- {shlex.join(without)}")
