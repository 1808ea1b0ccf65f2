"""Makes room for firmware; the HTTPS front, which comes after it, serves it."""

from __future__ import annotations

from pyinfra.api import deploy

from roles import lifecycle
from roles.target import Target
from roles.updates import files, service


@deploy("Update server")
def apply(target: Target) -> None:
    """Install and configure; there is no unit of its own to activate."""
    lifecycle.packages(*service.packages, name="Install the update server")
    lifecycle.files(*map(lifecycle.Directory, files.FOLDERS), files.proof(), name="Make room for firmware")
