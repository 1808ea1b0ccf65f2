"""One package a service of the gateway: its declaration (plain data) and its deploy."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from gatehouse.site import Service


@cache
def declared() -> tuple[Service, ...]:
    """What every role declares, by name. Imports no pyinfra."""
    found = (importlib.import_module(f"roles.{m.name}") for m in pkgutil.iter_modules(__path__) if m.ispkg)
    return tuple(sorted((module.service for module in found), key=lambda service: service.name))
