"""Audit records on a kernel that has them: what people do is kept, nobody changes the rules, and the proof knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from roles.auditd import LOGS, UNIT
from tests.vm.machines import GATEWAY, Machines

pytestmark = pytest.mark.timeout(3600)

IN_THE_JOURNAL = "journalctl -q -o cat _TRANSPORT=audit | wc -l"
CHECK = "host.audit", "audit"
LOADED = "auditctl -s | grep -E '^(enabled|failure|backlog_limit) '; auditctl -l"


def test_what_people_do_as_root_is_recorded_once(hardened: Machines, tmp_path: Path) -> None:
    before = hardened(GATEWAY, IN_THE_JOURNAL)
    assert hardened.verdict(tmp_path, *CHECK) == ("proven", "")
    assert hardened(GATEWAY, IN_THE_JOURNAL) == before


def test_nobody_changes_the_rules_before_the_next_start(hardened: Machines) -> None:
    before = hardened(GATEWAY, LOADED)
    assert "enabled 2" in before and "key=as-root" in before
    for command in ("-D", "-e 0", "-f 2", "-a never,task", "-W /etc/passwd -p wa -k accounts"):
        hardened(GATEWAY, f"auditctl {command} >/dev/null 2>&1 || true")
        assert hardened(GATEWAY, LOADED) == before, command


def test_the_proof_knows_when_nobody_keeps_the_records(hardened: Machines, tmp_path: Path) -> None:
    hardened(GATEWAY, f"systemctl stop {UNIT}")
    try:
        assert hardened.verdict(tmp_path, *CHECK) == ("failed", f"{UNIT}: inactive, not running")
    finally:
        hardened(GATEWAY, f"systemctl start {UNIT}")


def test_the_proof_knows_when_others_may_read_the_records(hardened: Machines, tmp_path: Path) -> None:
    log = f"{LOGS}/audit.log"
    hardened(GATEWAY, f"chmod o+r {log}")
    try:
        verdict, reason = hardened.verdict(tmp_path, *CHECK)
    finally:
        hardened(GATEWAY, f"chmod o-r {log}")
    assert verdict == "failed" and reason.startswith(f"{log} is root's, mode ")
    assert hardened.verdict(tmp_path, *CHECK)[0] == "proven"
