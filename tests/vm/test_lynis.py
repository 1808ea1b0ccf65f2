"""What Lynis finds on the gateway that has a kernel of its own. Emulated it takes twenty minutes: on request."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.lab.reviewed import reviewed
from tests.lynis import lynis
from tests.vm.machines import GATEWAY, SITE, Machines

pytestmark = pytest.mark.timeout(5400)

INDEX_AT_LEAST = 85


def test_lynis_finds_nothing_but_what_was_reviewed_on_what_harden_leaves(
    hardened: Machines, tell: Callable[[str], None]
) -> None:
    done = hardened.checkout.invoke("harden", "--site", SITE, timeout=3000)
    assert done.status == 0, done.text
    index, found = lynis(lambda command, patience: hardened(GATEWAY, command, timeout=patience), patience=3600)
    tell(f"Lynis, on the lab's virtual machine: hardening index {index}")
    left = found.keys() - reviewed("lynis").keys()
    assert not left, {name: found[name] for name in sorted(left)}
    assert index >= INDEX_AT_LEAST, found
