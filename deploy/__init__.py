"""The layers of a gateway, each a module that names the roles that it is made of."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable

# pyinfra turns it off, so as to leave none of the files that it runs itself; without it a good part of the time of a
# deploy that changes nothing goes into compiling the kit.
sys.dont_write_bytecode = bool(sys.flags.dont_write_bytecode)

from gatehouse.errors import GatehouseError  # noqa: E402
from roles.target import Target  # noqa: E402


def layer(roles: Iterable[str], target: Target) -> None:
    """Deploys the roles in order, except those that this gateway goes without."""
    # Here: of the commands that are no deploy, those in a hurry can't wait for its import.
    from pyinfra import host
    from pyinfra.api.exceptions import PyinfraError

    runs = {service.name for service in target.site.services_of(target.name)}
    for role in host.loop([role for role in roles if role in runs]):
        try:
            importlib.import_module(f"roles.{role}.deploy").apply(target)
        except GatehouseError as error:
            raise PyinfraError(str(error)) from None  # it prints that as one line
