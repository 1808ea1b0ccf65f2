"""The lab that these tests run in: brought up once, taken down at the end unless it was there before.

With `-n 2` each of pytest's workers has a lab of its own, in a network of its own: two labs have the same prefixes.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import lab
from commands import labs
from deploy import enrolment, tools
from deploy.environments import EnvironmentRefused, environment
from deploy.inventory import ROOT
from gatehouse.identity.candidates import Request
from lab import engine, images, simulator
from lab.conditions import CODENAMES
from tests.checkout import Checkout, copied
from tests.lab.gateways import Gateway
from tests.lab.needed import PROGRAMS

CLONE_NEWNET = 0x40000000  # unshare(2); Python has it from 3.12


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Makes what the workers share before they start, and each worker's network."""
    worker: dict[str, Any] | None = getattr(config, "workerinput", None)
    if worker is not None:
        checkout = zlib.crc32(str(ROOT).encode())  # that no run of another checkout has a lab of this name
        os.environ["GATEHOUSE_LAB"] = f"{lab.default_name()}-{worker['workerid']}-{checkout:08x}"
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "a network of the worker's own (the lab needs root)")
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    elif getattr(config.option, "numprocesses", None):
        tools.ensure(print, PROGRAMS)
        with contextlib.suppress(EnvironmentRefused):  # what needs it says so
            environment("sslyze", print, built="sslyze")
            environment("pip-audit", print)
        # An engine that a worker started would have the worker's network, and so no way out.
        client = engine.connect(print)
        for debian in CODENAMES:
            images.server_image(client, debian, print)
        images.field_image(client, print)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Says at once what failed: the rest may take half an hour."""
    if report.outcome in ("failed", "rerun") and not os.environ.get("PYTEST_XDIST_WORKER"):
        why = getattr(report.longrepr, "reprcrash", report.longrepr)
        more = ": made once more" if report.outcome == "rerun" else ""
        print(f"\n{report.nodeid} ({report.when}): {why}{more}", flush=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[pytest.TestReport]:
    """Notes that a test failed: it may have left the gateway in any state."""
    report = yield
    gateway = item.funcargs.get("lab_gateway") if isinstance(item, pytest.Function) else None
    if report.failed and gateway:
        gateway.is_broken = True
    return report


@pytest.fixture(scope="session")
def here() -> Checkout:
    """This checkout, as it is."""
    return Checkout(ROOT)


@pytest.fixture
def changed(tmp_path: Path, lab_gateway: Gateway) -> Checkout:
    """A copy of this checkout, to be edited, that deploys to the same lab."""
    return copied(tmp_path / "checkout")


@pytest.fixture(scope="session")
def lab_gateway(here: Checkout) -> Iterator[Gateway]:
    """The gateway of the lab, up, in whatever state it is."""
    tools.ensure(print)
    name = lab.default_name()
    was_there = bool(lab.status(name)) if Path("/var/run/docker.sock").exists() else False
    labs.build(here.site)
    yield Gateway(here, name)
    if was_there:
        labs.build(here.site)
    else:
        lab.down(name)


@pytest.fixture
def gateway(lab_gateway: Gateway) -> Gateway:
    """The gateway as the kit leaves it: deployed, with nothing to change."""
    lab_gateway.harden()
    return lab_gateway


@pytest.fixture
def reporting(gateway: Gateway) -> tuple[str, ...]:
    """Devices of the lab that are enrolled, and whose keys the gateway has; nobody plays their part yet."""
    devices = gateway.checkout.site.devices[:2]
    for device in devices:
        enrolment.enrol_one(gateway.checkout.site, Request(device.name, device.model), "", False)
    gateway.converge()
    # What reports in the background would be counted, too.
    simulator.stop(gateway.checkout.site)
    return tuple(device.name for device in devices)


@pytest.fixture
def fresh_gateway(lab_gateway: Gateway) -> Gateway:
    """The gateway as its installer left it: nothing of the kit has ever been there."""
    lab_gateway.renew()
    return lab_gateway


@pytest.fixture
def own_lab(tmp_path: Path) -> Iterator[Callable[[str, int], Checkout]]:
    """Makes a copy of this checkout with a lab of its own beside the others: `own_lab("pair", 14)` is 10.14.0.0/16."""
    made: list[str] = []

    def make(name: str, second: int) -> Checkout:
        checkout = copied(tmp_path / name, GATEHOUSE_LAB=f"{lab.default_name()}-{name}")
        for path in ("inventories/group_data/lab.py", "inventories/devices/lab.toml"):
            checkout.edit(path, ("10.10.", f"10.{second}."))
        checkout.edit("inventories/group_data/lab.py", ("fd10:10:", f"fd10:{second}:"))
        made.append(checkout.lab)
        return checkout

    yield make
    for name in made:
        lab.down(name)
