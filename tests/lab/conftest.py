"""The lab that these tests run in: brought up once, taken down at the end unless it was there before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import lab
import tasks
from deploy import tools
from deploy.inventory import ROOT
from tests.checkout import Checkout, copied
from tests.lab.gateways import Gateway


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
    tasks.build_lab(here.site)
    yield Gateway(here, name)
    if was_there:
        tasks.build_lab(here.site)
    else:
        lab.down(name)


@pytest.fixture
def gateway(lab_gateway: Gateway) -> Gateway:
    """The gateway as the kit leaves it: deployed, with nothing to change."""
    lab_gateway.harden()
    return lab_gateway


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
