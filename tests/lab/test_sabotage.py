"""Every control of the gateway broken on purpose: the checks notice, nothing else does, and the next deploy repairs it.

`./kit sabotage` does the same by hand.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest

from gatehouse.errors import GatehouseError
from lab.sabotage import bench, catalogue, run
from lab.sabotage.judge import Checks
from lab.sabotage.report import Report, table
from tests.checkout import Checkout
from tests.lab.gateways import Gateway

# A sabotage that was not caught is not made again: that would hide it.
pytestmark = [pytest.mark.timeout(5400), pytest.mark.flaky(reruns=0)]


@pytest.fixture(scope="module")
def report(lab_gateway: Gateway, here: Checkout, tell: Callable[[str], None]) -> Report:
    """All sabotages, made and judged once."""
    try:
        lab_gateway.harden()
    except (AssertionError, GatehouseError) as error:
        # Nothing was broken yet: what other tests of the lab get as well, once more on a fresh gateway.
        tell(f"sabotage: deployed once more before anything was broken: {error}")
        lab_gateway.is_broken = True
        lab_gateway.harden()
    lab_gateway.is_hardened = False
    found = run.sabotage(here.site, say=functools.partial(print, flush=True))
    tell(table(found))
    return found


@pytest.mark.parametrize("name", [sabotage.name for sabotage in catalogue.SABOTAGES])
def test_a_sabotage_is_caught_by_its_checks_and_no_others_and_repaired(report: Report, name: str) -> None:
    (outcome,) = [outcome for outcome in report.outcomes if outcome.sabotage.name == name]
    assert list(outcome.problems()) == []
    assert outcome.clean


def test_every_check_was_seen_to_fail(report: Report) -> None:
    assert report.never_failed == []


def test_in_the_end_the_gateway_is_as_it_was(report: Report, lab_gateway: Gateway) -> None:
    assert report.left == {}
    lab_gateway.stays_converged()


def test_a_run_that_is_interrupted_leaves_a_repaired_gateway(
    gateway: Gateway, here: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.is_hardened = False
    before = gateway("cat /etc/mosquitto/conf.d/gatehouse.conf")
    suite = bench.Bench.checks

    def interrupted(self: bench.Bench) -> Checks:
        if self.is_broken:
            assert gateway("cat /etc/mosquitto/conf.d/gatehouse.conf") != before
            raise KeyboardInterrupt
        return suite(self)

    monkeypatch.setattr(bench.Bench, "checks", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.sabotage(here.site, ["plain-mqtt"], say=lambda _: None)
    assert gateway("cat /etc/mosquitto/conf.d/gatehouse.conf") == before
    gateway.stays_converged()


def test_a_gateway_that_is_not_as_declared_is_not_broken_any_further(gateway: Gateway, here: Checkout) -> None:
    gateway.is_hardened = False
    gateway("chmod 0644 /etc/mosquitto/gatehouse/server.key")
    with pytest.raises(bench.SabotageError, match="not as declared, so nothing was broken"):
        run.sabotage(here.site, ["plain-mqtt"], say=lambda _: None)
    assert "1883" not in gateway("cat /etc/mosquitto/conf.d/gatehouse.conf")
