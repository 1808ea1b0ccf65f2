"""The layers of a gateway, each a module that names the roles that it is made of."""

from __future__ import annotations

import importlib
from collections.abc import Iterable

from pyinfra import host

from roles.target import Target


def layer(roles: Iterable[str], target: Target) -> None:
    """Deploys the roles in order, except those that this gateway goes without."""
    runs = {service.name for service in target.site.services_of(target.name)}
    for role in host.loop([role for role in roles if role in runs]):
        importlib.import_module(f"roles.{role}.deploy").apply(target)
