"""The lab: a site to try things on, built of containers on this machine.

state = lab.up(lab.from_site(site, lab.default_name()))
lab.run("lab", "device", ["ping", "-c1", "10.10.10.1"])
lab.down("lab")
"""

from __future__ import annotations

import os

from lab.errors import LabError
from lab.hosts import Completed, run, shell
from lab.manage import Row, down, plumb, restart, status, up
from lab.state import State
from lab.topology import FieldHost, GatewayHost, Port, Topology, from_site, standard, surround

__all__ = [
    "Completed", "FieldHost", "GatewayHost", "LabError", "Port", "Row", "State", "Topology",
    "default_name", "down", "from_site", "plumb", "restart", "run", "shell", "standard", "status", "surround", "up",
]  # fmt: skip


def default_name() -> str:
    """The lab's name: `GATEHOUSE_LAB`, or `lab`."""
    return os.environ.get("GATEHOUSE_LAB") or "lab"
