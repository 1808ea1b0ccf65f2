"""After a reboot the gateway is what it was, and proves it without anybody's help."""

from __future__ import annotations

import json

import pytest

import lab
from tests.documented import example
from tests.lab.gateways import Gateway

pytestmark = pytest.mark.timeout(900)


def verdicts(gateway: Gateway) -> dict[str, str]:
    """What `verify` says now, by check id."""
    command = example("README.md", "invoke verify --site prod --json", ("prod", "lab"))
    done = gateway.checkout.invoke(*command.split()[1:], timeout=500)
    assert done.status == 0, done.text
    return {check["id"]: check["verdict"] for check in json.loads(done.out)["checks"]}


def test_a_gateway_proves_after_a_reboot_what_it_proved_before(gateway: Gateway) -> None:
    before = verdicts(gateway)
    boot = gateway("cat /proc/sys/kernel/random/boot_id")
    lab.restart(gateway.name, gateway.host)
    assert gateway("cat /proc/sys/kernel/random/boot_id") != boot
    gateway.until("systemctl is-system-running | grep -Eq 'running|degraded'", 60)
    assert gateway("systemctl --failed --no-legend").strip() == ""
    assert verdicts(gateway) == before
    gateway.stays_converged()

    # Both runs are signed, and show it.
    for command in (
        example("proof.md", "./kit report.sign --site NAME", ("NAME", "lab")),
        example("README.md", "invoke report.verify --site prod", ("prod", "lab")),
    ):
        done = gateway.checkout.invoke(*command.split()[1:])
        assert done.status == 0, done.text
    assert "lab: unchanged: signed runs here: " in done.out
