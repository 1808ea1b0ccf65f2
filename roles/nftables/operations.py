"""Loads a ruleset: checked by nft first, in one transaction, only when the kernel's differs."""

from __future__ import annotations

import shlex
from collections.abc import Generator

from pyinfra import host
from pyinfra.api import StringCommand

from roles.differences import differs
from roles.lifecycle import UnitState, unit_differences
from roles.nftables.facts import RulesetLoaded


def loaded(unit: str, file: str) -> Generator[StringCommand, None, None]:
    """Makes the kernel's table the one of `file`, and `unit` load it at boot, before the network is up."""
    state = host.get_fact(UnitState, unit=unit, loads=[])
    same = host.get_fact(RulesetLoaded, file=file)
    for how in unit_differences(state):
        differs(host.connector_data, "unit", unit, how)
    if not same:
        differs(host.connector_data, "firewall", "inet gatehouse", "not what was loaded from the file on the disk")
    if state.get("UnitFileState") != "enabled":
        # It has systemd read all units again, too.
        yield StringCommand(f"systemctl enable -- {unit}")
    elif state.get("NeedDaemonReload") == "yes":
        yield StringCommand("systemctl daemon-reload")
    if state.get("ActiveState") != "active" or not same:
        # A unit whose file had gone, by an undo or by hand, stays unknown to systemd until it reads all of them again.
        again = f"systemctl daemon-reload && systemctl reload-or-restart -- {unit}"
        yield StringCommand(f"nft -c -f {shlex.quote(file)} && {again}")
