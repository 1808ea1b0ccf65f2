"""The layers of a gateway, each a module that names the roles that it is made of."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable

from pyinfra import host

# pyinfra turns it off, so as to leave none of the files that it runs itself; without it a good part of the time of a
# deploy that changes nothing goes into compiling the kit.
sys.dont_write_bytecode = bool(sys.flags.dont_write_bytecode)

from roles.target import Target  # noqa: E402


def layer(roles: Iterable[str], target: Target) -> None:
    """Deploys the roles in order, except those that this gateway goes without."""
    runs = {service.name for service in target.site.services_of(target.name)}
    for role in host.loop([role for role in roles if role in runs]):
        importlib.import_module(f"roles.{role}.deploy").apply(target)
