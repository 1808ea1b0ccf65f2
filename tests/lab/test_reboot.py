"""After a reboot the gateway is what it was, and proves it without anybody's help."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import lab
from deploy.inventory import ROOT
from gatehouse.proof import results
from tests.lab.gateways import Gateway

pytestmark = pytest.mark.timeout(900)


def verdicts(reports: Path) -> dict[str, str]:
    """What the compliance suite says now, by check id; its report goes to a folder of the test's."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/compliance", "--site", "lab", "-q", "--reports", str(reports)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {check.id: check.verdict for check in results.read(reports / "lab" / "latest" / "results.json").checks}


def test_a_gateway_proves_after_a_reboot_what_it_proved_before(gateway: Gateway, tmp_path: Path) -> None:
    before = verdicts(tmp_path / "before")
    boot = gateway("cat /proc/sys/kernel/random/boot_id")
    lab.restart(gateway.name, gateway.host)
    assert gateway("cat /proc/sys/kernel/random/boot_id") != boot
    gateway.until("systemctl is-system-running | grep -Eq 'running|degraded'", 60)
    assert gateway("systemctl --failed --no-legend").strip() == ""
    assert verdicts(tmp_path / "after") == before
    gateway.stays_converged()
