"""The lab of virtual machines as its tests see it."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lab
from gatehouse.proof import results
from gatehouse.site import Site
from tests.checkout import Checkout, Run

SITE = "lab-vm"
GATEWAY, FIELD = "gateway", "field"


@dataclass(frozen=True)
class Machines:
    """The lab `name`, which plays `site`, driven from `checkout`."""

    checkout: Checkout
    site: Site
    name: str

    def __call__(self, host: str, command: str, stdin: str | None = None, timeout: float = 120) -> str:
        """What a shell command prints on a host that must succeed there; `field` is the field machine itself."""
        done = lab.run(self.name, host, ["sh", "-c", command], stdin, timeout)
        assert done.returncode == 0, f"{host}: {command}: {done.stderr or done.stdout}"
        return done.stdout

    def asked(self, reports: Path, *topics: str) -> Run:
        """Runs the compliance suite, that of some topics or all of it; its report goes to a folder."""
        paths = [f"tests/compliance/test_{topic}.py" for topic in topics] or ["tests/compliance"]
        return self.checkout.run("pytest", *paths, "--site", SITE, "-q", "--reports", str(reports), timeout=2400)

    def proof(self, reports: Path, *topics: str) -> dict[str, str]:
        """What it says now, by check id; no check may fail."""
        done = self.asked(reports, *topics)
        assert done.status == 0, done.text
        return verdicts(reports)

    def verdict(self, reports: Path, check: str, topic: str) -> tuple[str, str]:
        """The verdict on the only check of a topic now, and its reason."""
        self.asked(reports, topic)
        (found,) = results.read(reports / SITE / "latest" / "results.json").checks
        assert found.id == check
        return found.verdict, found.reason or ""

    def reboot(self) -> None:
        """Let the gateway start anew, from its kernel on."""
        lab.restart(self.name, GATEWAY)
        self.started()

    def started(self) -> None:
        """Wait until the gateway has started what it is to start."""
        deadline = time.monotonic() + 300
        while self(GATEWAY, "systemctl is-system-running || true").strip() not in ("running", "degraded"):
            assert time.monotonic() < deadline, self(GATEWAY, "systemctl list-jobs")
            time.sleep(2)

    def seen(self, script: str, asked: dict[str, Any], timeout: float = 120) -> Any:
        """What a Python program, that reads what is asked, prints as JSON in the field machine, where the wires are."""
        done = lab.run(self.name, FIELD, ["python3", "-c", script], json.dumps(asked), timeout)
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout)


def verdicts(reports: Path) -> dict[str, str]:
    """What the last report in a folder says, by check id."""
    return {check.id: check.verdict for check in results.read(reports / SITE / "latest" / "results.json").checks}
