"""A change that cuts the operator off, on a machine that boots by itself: undone unasked, and through a power cut."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from commands import labs
from lab.vm import manage
from roles import nftables
from tests.checkout import Checkout, copied
from tests.lab.gateways import PENDING, wait
from tests.vm.machines import GATEWAY, SITE, Machines

pytestmark = pytest.mark.timeout(3600)

SITE_FILE = f"inventories/group_data/{SITE}.py"
RULES = "nft -s -t list table inet gatehouse"
MEMBERS = "ls /sys/class/net/br-management/brif"
# The time that the gateway gives the operator to confirm, and some for its timer and services, emulated.
UNDONE_WITHIN = 240


@pytest.fixture
def elsewhere(tmp_path: Path) -> Checkout:
    """A copy of this checkout whose site has the operator in a VLAN that no access port of the field's switch is in."""
    changed = copied(tmp_path / "checkout")
    changed.edit(SITE_FILE, ('"management": {"vlan": 20', '"management": {"vlan": 21'))
    return changed


def members(machines: Machines) -> list[str]:
    return machines(GATEWAY, MEMBERS).split()


def is_as_before(machines: Machines, rules: str) -> None:
    """The operator comes in over VLAN 20, the firewall is the one there was, and no network is to be changed."""
    assert "trunk.20" in members(machines) and "trunk.21" not in members(machines)
    assert machines(GATEWAY, RULES) == rules
    plan = machines.checkout.invoke("plan", "--site", SITE, timeout=900)
    assert plan.status == 0 and "Segments" not in plan.out and "Firewall" not in plan.out, plan.text


def test_a_power_cut_in_the_middle_of_a_change_of_the_trunk_brings_the_old_state_back(
    hardened: Machines, elsewhere: Checkout
) -> None:
    rules = hardened(GATEWAY, RULES)
    process = elsewhere.start("pyinfra", "-y", f"inventories/{SITE}", "deploy.py")
    try:
        wait(lambda: "trunk.21" in members(hardened), "the gateway is in VLAN 21", 900)
        assert hardened(GATEWAY, f"ls {PENDING}").split(), "nothing would be undone"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    manage.cut_power(hardened.name, GATEWAY)
    labs.build(hardened.site)  # power on, until SSH answers over VLAN 20
    hardened.started()
    assert hardened(GATEWAY, f"ls {PENDING}").split() == []
    is_as_before(hardened, rules)
    # Never open: the rules were there before the first segment was.
    when = f"systemctl show -P ActiveEnterTimestampMonotonic {nftables.service.units[0]} systemd-networkd.service"
    firewall, network = [int(line) for line in hardened(GATEWAY, when).split()]
    assert 0 < firewall < network


def test_a_management_vlan_that_the_operator_is_not_in_is_undone_by_the_gateway_itself(
    hardened: Machines, elsewhere: Checkout
) -> None:
    rules = hardened(GATEWAY, RULES)
    deployed = elsewhere.pyinfra("-y", inventory=f"inventories/{SITE}", timeout=1200)
    assert deployed.status == 1, deployed.text
    said = [line for line in deployed.err.splitlines() if "change 'network' could not be confirmed" in line]
    assert len(said) == 1 and "Traceback" not in deployed.text, deployed.text
    wait(lambda: "trunk.20" in members(hardened), "the gateway is back in VLAN 20", UNDONE_WITHIN)
    wait(lambda: not hardened(GATEWAY, f"ls {PENDING}").split(), "nothing is pending", UNDONE_WITHIN)
    is_as_before(hardened, rules)
