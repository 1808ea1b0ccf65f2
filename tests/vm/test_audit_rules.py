"""Audit rules that are not those of the kit, which takes a start of the machine. Emulated that is slow: on request."""

from __future__ import annotations

from pathlib import Path

import pytest

from roles.auditd import RULES
from tests.vm.machines import GATEWAY, SITE, Machines

pytestmark = pytest.mark.timeout(3600)

CHECK = "host.audit", "audit"
# A rule of the kit's that is taken away, and the lock, without which others could be.
LESS = f"sed -i -e '/key=mounts/d' -e '/^-e 2/d' {RULES}"


def test_a_rule_that_is_missing_is_seen_and_a_deploy_would_load_it(hardened: Machines, tmp_path: Path) -> None:
    hardened(GATEWAY, f"cp -p {RULES} /root/rules && {LESS}")
    try:
        hardened.reboot()
    finally:
        hardened(GATEWAY, f"mv /root/rules {RULES}")
    verdict, reason = hardened.verdict(tmp_path, *CHECK)
    plan = hardened.checkout.invoke("plan", "--site", SITE, timeout=600)
    hardened(GATEWAY, "augenrules --load")
    assert verdict == "failed" and "enabled is 1, not 2, and 2 more" in reason
    assert "  gateway: Audit | Give the kernel the rules, and lock them" in plan.out.splitlines(), plan.text
    assert hardened.verdict(tmp_path, *CHECK)[0] == "proven"
