"""A real broker during the roll-over of the devices authority, on the files that the role gives it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gatehouse.identity.pki import Pki
from roles.target import Target
from tests.roles.broker import free_port, running


@pytest.fixture
def pki(new_pki: Callable[[], Pki], programs: Callable[..., None]) -> Pki:
    programs("mosquitto", "mosquitto")
    return new_pki()


def test_devices_of_the_old_and_the_new_authority_get_in_until_the_old_one_is_dropped(
    pki: Pki, gateway_of: Callable[..., Target]
) -> None:
    settings = {"mosquitto": {"ports": {"mqtts": free_port()}}}
    target = gateway_of(iot={"ipv4": "127.0.0.1/8"}, settings=settings, pki=pki)
    rollover = pki.rollover("devices")
    late, stolen_before = pki.device("late-01"), pki.device("stolen-01")
    rollover.prepare()
    with running(target) as prepared:
        rollover.switch()
        new, stolen_after = pki.device("new-01"), pki.device("stolen-02")
        assert prepared.lets_in(late)
        assert prepared.lets_in(new)
    pki.revoke_all([stolen_before.serial, stolen_after.serial])
    with running(target) as overlap:
        assert overlap.lets_in(late) and overlap.lets_in(new)
        assert not overlap.lets_in(stolen_before)
        assert not overlap.lets_in(stolen_after)
    rollover.drop(force=True)
    with running(target) as after:
        assert not after.lets_in(late)
        assert after.lets_in(new)
        assert not after.lets_in(stolen_after)
        assert after.lets_in(pki.device("late-01"))


def test_a_new_services_authority_is_nothing_that_a_device_notices(pki: Pki, gateway_of: Callable[..., Target]) -> None:
    settings = {"mosquitto": {"ports": {"mqtts": free_port()}}}
    target = gateway_of(iot={"ipv4": "127.0.0.1/8"}, settings=settings, pki=pki)
    device, rollover = pki.device("kitchen-01"), pki.rollover("services")
    for step in (rollover.prepare, rollover.switch, lambda: rollover.drop(force=True)):
        step()
        with running(target) as broker:
            assert broker.lets_in(device)  # over a connection that trusts the root alone
