"""GRUB with its menu on a whole gateway, which QEMU starts without it: its packages take a while, so on request."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from roles.apt import LOCK
from roles.bootloader import ARGUMENTS, MENU, SCRIPT
from tests.vm.machines import GATEWAY, SITE, Machines

pytestmark = pytest.mark.timeout(3600)

CHECK = "host.boot-loader", "bootloader"
OPEN = "failed", "entries and shell are open to everybody"
APT = f"DEBIAN_FRONTEND=noninteractive apt-get -qq -o {LOCK}"


@pytest.fixture
def with_grub(hardened: Machines) -> Iterator[Machines]:
    """As Debian's installer leaves a machine that GRUB starts: the maker of the menu, and the menu."""
    hardened(GATEWAY, f"{APT} install --no-install-recommends grub2-common grub-common >/dev/null", timeout=900)
    try:
        hardened(GATEWAY, "mkdir -p /boot/grub && update-grub 2>&1", timeout=300)
        yield hardened
    finally:
        hardened(
            GATEWAY, f"rm -rf {SCRIPT} $(dirname {MENU}); {APT} purge grub2-common grub-common >/dev/null", timeout=600
        )


def test_the_proof_knows_a_menu_that_anybody_changes_and_a_deploy_closes_it(
    with_grub: Machines, tmp_path: Path
) -> None:
    machines = with_grub
    assert machines.verdict(tmp_path, *CHECK) == OPEN
    deployed = machines.checkout.pyinfra("-y", inventory=f"inventories/{SITE}", timeout=1800)
    assert deployed.status == 0, deployed.text
    assert machines.verdict(tmp_path, *CHECK)[0] == "proven"
    menu = machines(GATEWAY, f"cat {MENU}")
    assert all(argument in menu for argument in ARGUMENTS) and "/boot/vmlinuz" in menu
    plan = machines.checkout.invoke("plan", "--site", SITE, timeout=600)
    assert (plan.status, plan.out) == (0, "plan: nothing to change\n"), plan.text
    machines(GATEWAY, f"chmod a-x {SCRIPT} && update-grub 2>&1", timeout=300)
    assert machines.verdict(tmp_path, *CHECK) == OPEN
