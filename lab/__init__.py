"""The lab: a site to try things on, built on this machine of containers, or of virtual machines.

state = lab.up(lab.from_site(site, lab.default_name()))
lab.run("lab", "device", ["ping", "-c1", "10.10.10.1"])
lab.down("lab")
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gatehouse.site.model import Site
    from lab.errors import LabError
    from lab.hosts import Completed
    from lab.kinds import down, restart, run, shell, status, up
    from lab.manage import Row, plumb
    from lab.state import State
    from lab.topology import FieldHost, GatewayHost, Port, Topology, from_site, standard, surround

__all__ = [
    "Completed", "FieldHost", "GatewayHost", "LabError", "Port", "Row", "State", "Topology",
    "default_name", "down", "from_site", "name_of", "plumb", "restart", "run", "shell", "standard", "status",
    "surround", "up",
]  # fmt: skip


def default_name() -> str:
    """The lab's name: `GATEHOUSE_LAB`, or `lab`."""
    return os.environ.get("GATEHOUSE_LAB") or "lab"


def name_of(site: Site) -> str:
    """The name of the lab that plays a site: its state is kept under it."""
    return site.state.name if site.state else default_name()


_FROM = {
    "errors": ("LabError",),
    "hosts": ("Completed",),
    "kinds": ("down", "restart", "run", "shell", "status", "up"),
    "manage": ("Row", "plumb"),
    "state": ("State",),
    "topology": ("FieldHost", "GatewayHost", "Port", "Topology", "from_site", "standard", "surround"),
}


def __getattr__(name: str) -> Any:
    """Loads what is asked for, when it is: a deploy of the lab's site needs its state, and not the Docker SDK."""
    for module, names in _FROM.items():
        if name in names:
            return getattr(importlib.import_module(f"lab.{module}"), name)
    raise AttributeError(f"module 'lab' has no attribute '{name}'")
