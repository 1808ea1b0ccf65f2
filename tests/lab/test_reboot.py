"""After a reboot the gateway is what it was, and proves it without anybody's help."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import lab
from deploy.inventory import ROOT
from tests.lab.gateways import Gateway

pytestmark = pytest.mark.timeout(900)


def test_the_compliance_suite_passes_after_a_reboot(gateway: Gateway) -> None:
    before = gateway("cat /proc/sys/kernel/random/boot_id")
    lab.restart(gateway.name, gateway.host)
    assert gateway("cat /proc/sys/kernel/random/boot_id") != before
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/compliance", "--site", "lab", "-q"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    gateway.stays_converged()
