"""A gateway of a lab, as its console sees it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import lab
from commands import labs
from lab import containers, engine
from tests.checkout import Checkout

PENDING = "/var/lib/gatehouse/undo"
# What a deploy makes on its way and must not leave.
HALF_WRITTEN = (
    "find / -xdev -name '*.gatehouse-new' -not -path '/proc/*'; ls -d /run/gatehouse-staged* /usr/sbin/policy-rc.d"
    f" {PENDING}/* 2>/dev/null; true"
)


@dataclass
class Gateway:
    """`host` of the lab `name`, deployed from `checkout`; `is_hardened` where a deploy would change nothing.

    `is_broken` after a test that failed, and may have left anything behind.
    """

    checkout: Checkout
    name: str
    host: str = "gateway"
    is_hardened: bool = False
    is_broken: bool = False

    def ask(self, command: str, timeout: float = 60) -> lab.Completed:
        """Run a shell command as root, by the console and not by SSH; it may fail."""
        return lab.run(self.name, self.host, ["sh", "-c", command], timeout=timeout)

    def __call__(self, command: str, timeout: float = 60) -> str:
        """What a shell command prints that must succeed."""
        done = self.ask(command, timeout)
        assert done.returncode == 0, f"{self.host}: {command}: {done.stderr or done.stdout}"
        return done.stdout

    def elsewhere(self, host: str, command: str) -> str:
        """What a shell command prints on another host of the lab."""
        done = lab.run(self.name, host, ["sh", "-c", command])
        assert done.returncode == 0, f"{host}: {command}: {done.stderr or done.stdout}"
        return done.stdout

    def half_written(self) -> str:
        """What deploys left behind that should have gone; empty if they tidied up."""
        return self(HALF_WRITTEN).strip()

    def harden(self) -> None:
        """Deploy to it, unless nothing has happened to it since it was deployed last."""
        if self.is_broken:
            self.renew()
        if not self.is_hardened:
            labs.build(self.checkout.site)
            self.converge()

    def converge(self) -> None:
        """Deploy; nothing is left to change then, and nothing is left lying about."""
        self.is_hardened = False
        deployed = self.checkout.deploy()
        assert deployed.status == 0, deployed.text
        self.stays_converged()

    def stays_converged(self) -> None:
        """Nothing is to be changed, and nothing is left lying about."""
        self.is_hardened = False
        plan = self.checkout.invoke("plan")
        assert (plan.status, plan.out) == (0, "plan: nothing to change\n"), plan.text
        assert self.half_written() == ""
        self.is_hardened = True

    def renew(self) -> None:
        """Replace it by a fresh machine."""
        self.is_hardened = self.is_broken = False
        containers.remove(containers.of_lab(engine.connect(), self.name)[self.host])
        labs.build(self.checkout.site)

    def cut_power(self) -> None:
        """Let it lose power, now. `restore_power` is the other half."""
        containers.of_lab(engine.connect(), self.name)[self.host].kill("SIGKILL")

    def restore_power(self) -> None:
        """Let it start again; returns when SSH answers."""
        labs.build(self.checkout.site)

    def until(self, command: str, seconds: float = 60) -> None:
        """Wait until a shell command succeeds."""
        wait(lambda: self.ask(command).returncode == 0, f"{self.host}: {command}", seconds)


def wait(condition: Callable[[], bool], what: str, seconds: float = 60, about: Callable[[], str] = lambda: "") -> None:
    """Wait until a condition holds; `about` says how things stand where it doesn't."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not so after {seconds} s {about()}"
        time.sleep(0.1)
