"""What Lynis, an auditor that knows nothing of the kit, finds on the lab's gateway; what stays is in reviewed.toml."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from deploy import vaults
from roles.kernel.deploy import settings
from roles.kernel.operations import wanted
from roles.target import Target
from tests.lab.gateways import Gateway
from tests.lab.reviewed import reviewed
from tests.lynis import lynis

pytestmark = pytest.mark.timeout(300)

# Lynis's own measure of hardening on this gateway, a container: 80 was reached. The kernel's settings belong to the
# machine underneath there, so on another one it may be a point or two less.
INDEX_AT_LEAST = 78


def underneath(gateway: Gateway, found: dict[str, str]) -> set[str]:
    """Settings that the kit declares as Lynis wants them, and that only the machine underneath can set."""
    site = gateway.checkout.site
    expected = wanted(settings(Target(site, "gateway", lambda: vaults.open_pki(site))))
    mine = set()
    for name, details in found.items():
        test, _, key = name.partition(" ")
        preferred = re.search(r"prefval:([^;]*);", details)
        if test == "KRNL-6000" and preferred and expected.get(key.replace(".", "/")) in preferred[1].split():
            assert gateway.ask(f"test -w /proc/sys/{key.replace('.', '/')}").returncode, f"{key} can be set"
            mine.add(name)
    return mine


def test_lynis_finds_nothing_but_what_was_reviewed(gateway: Gateway, tell: Callable[[str], None]) -> None:
    index, found = lynis(lambda command, patience: gateway(command, timeout=patience))
    left = found.keys() - underneath(gateway, found) - reviewed("lynis").keys()
    assert not left, {name: found[name] for name in sorted(left)}
    tell(f"Lynis, on the lab's gateway (a container, not the virtual machine): hardening index {index}")
    assert index >= INDEX_AT_LEAST, (index, found)
    gateway.stays_converged()
