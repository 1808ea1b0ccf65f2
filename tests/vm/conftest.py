"""The lab of virtual machines that these tests run in: built once, taken down at the end unless it was there before.

It is only ever started from power-on here: a loaded state is for development.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import lab
from commands import labs
from deploy import run, tools
from deploy.inventory import ROOT
from gatehouse.site import load
from lab.vm import manage
from tests.checkout import Checkout
from tests.vm.machines import SITE, Machines


@pytest.fixture(scope="session")
def machines() -> Iterator[Machines]:
    """Gateway and field as they come up, whatever state the gateway is in."""
    tools.ensure(print)
    site = load(SITE, ROOT)
    name = lab.name_of(site)
    was_there = bool(manage.status(name))  # no container takes part: there need be no engine for them
    labs.build(site)
    yield Machines(Checkout(ROOT), site, name)
    if not was_there:
        lab.down(name)


@pytest.fixture(scope="session")
def hardened(machines: Machines) -> Machines:
    """The gateway as `./kit harden --site lab-vm` deploys it; what is proven of it is up to the tests."""
    where = labs.enrol(machines.site)
    run.apply(where)
    labs.report(where)
    return machines
