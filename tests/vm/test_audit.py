"""Audit records on a kernel that has them: what people do is kept, nobody changes the rules, and the proof knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatehouse.proof import results
from roles.auditd import LOGS, RULES, UNIT
from tests.vm.machines import GATEWAY, SITE, Machines

pytestmark = pytest.mark.timeout(3600)

IN_THE_JOURNAL = "journalctl -q -o cat _TRANSPORT=audit | wc -l"
LOADED = "auditctl -s | grep -E '^(enabled|failure|backlog_limit) '; auditctl -l"
# A rule of the kit's that is taken away, and the lock, without which others could be.
LESS = f"sed -i -e '/key=mounts/d' -e '/^-e 2/d' {RULES}"


def said(machines: Machines, reports: Path) -> tuple[str, str]:
    """The verdict on `host.audit` now, and its reason."""
    machines.asked(reports, "audit")
    (check,) = results.read(reports / SITE / "latest" / "results.json").checks
    assert check.id == "host.audit"
    return check.verdict, check.reason or ""


def test_what_people_do_as_root_is_recorded_once(hardened: Machines, tmp_path: Path) -> None:
    before = hardened(GATEWAY, IN_THE_JOURNAL)
    assert said(hardened, tmp_path) == ("proven", "")
    assert hardened(GATEWAY, IN_THE_JOURNAL) == before


def test_nobody_changes_the_rules_before_the_next_start(hardened: Machines) -> None:
    before = hardened(GATEWAY, LOADED)
    assert "enabled 2" in before and "key=as-root" in before
    for command in ("-D", "-e 0", "-f 2", "-a never,task", "-W /etc/passwd -p wa -k accounts"):
        hardened(GATEWAY, f"auditctl {command} >/dev/null 2>&1 || true")
        assert hardened(GATEWAY, LOADED) == before, command


def test_the_proof_knows_when_nobody_keeps_the_records_and_when_others_may_read_them(
    hardened: Machines, tmp_path: Path
) -> None:
    hardened(GATEWAY, f"systemctl stop {UNIT}")
    try:
        stopped = said(hardened, tmp_path)
    finally:
        hardened(GATEWAY, f"systemctl start {UNIT}; chmod o+r {LOGS}/audit.log")
    try:
        readable = said(hardened, tmp_path)
    finally:
        hardened(GATEWAY, f"chmod o-r {LOGS}/audit.log")
    assert stopped == ("failed", f"{UNIT}: inactive, not running")
    assert readable[0] == "failed" and readable[1].startswith(f"{LOGS}/audit.log is root's, mode ")
    assert said(hardened, tmp_path)[0] == "proven"


def test_a_rule_that_is_missing_is_seen_and_a_deploy_would_load_it(hardened: Machines, tmp_path: Path) -> None:
    hardened(GATEWAY, f"cp -p {RULES} /root/rules && {LESS}")
    try:
        hardened.reboot()
    finally:
        hardened(GATEWAY, f"mv /root/rules {RULES}")
    verdict, reason = said(hardened, tmp_path)
    plan = hardened.checkout.invoke("plan", "--site", SITE, timeout=600)
    hardened(GATEWAY, "augenrules --load")
    assert verdict == "failed" and "enabled is 1, not 2, and 2 more" in reason
    assert "  gateway: Audit | Give the kernel the rules, and lock them" in plan.out.splitlines(), plan.text
    assert said(hardened, tmp_path)[0] == "proven"
