"""The operator's command that moves the broker to its backup key: no device that pins keys is ever stranded by it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cryptography import x509

from deploy import brokerkeys
from deploy.brokerkeys import BrokerKeyError
from gatehouse.identity import bundle
from gatehouse.identity.pins import Pins, broker_certificate
from gatehouse.identity.vault import Vault
from gatehouse.site import Site
from gatehouse.site.registry_writer import Registry
from tests.unit.enrolling import House, a_house, a_site


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    made = a_house(tmp_path)
    made.enrol("one", "two")
    monkeypatch.setattr(brokerkeys.vaults, "open_vault", lambda _: made.vault())
    monkeypatch.setattr(brokerkeys.vaults, "open_pki", lambda _, vault: made.pki(vault))
    monkeypatch.setattr(brokerkeys, "bundles_path", lambda _: made.out)
    return made


def as_it_is(house: House) -> Site:
    return a_site(devices=[device.model_dump() for device in house.devices().values()])


def move(house: House, force: bool = False) -> str:
    return brokerkeys.move(as_it_is(house), "", force)


def served(house: House) -> x509.Certificate:
    certificate = broker_certificate(house.pki(), house.site, "gw1").certificate_pem
    return x509.load_pem_x509_certificate(certificate)


def pinned(house: House, name: str) -> Pins:
    found = bundle.read(house.out / name)
    assert found is not None
    return found.broker.pins


def everything(vault: Vault) -> dict[str, bytes]:
    return {name: vault.get(name) for name in vault.names("server/")}


def test_devices_that_know_the_backup_key_follow_and_the_next_move_waits_for_their_new_pins(house: House) -> None:
    before = {name: pinned(house, name) for name in ("one", "two")}
    assert "./kit harden --site home" in move(house)
    assert [pins.fits(served(house)) for pins in before.values()] == ["backup key"] * 2
    kept = everything(house.vault())
    house.enroller().refresh("one")
    with pytest.raises(BrokerKeyError, match=r"gw1: the broker keeps its key; .*1 do not know .* \(two\)"):
        move(house)
    assert everything(house.vault()) == kept
    house.enroller().refresh("two")
    before = {name: pinned(house, name) for name in ("one", "two")}
    move(house)
    assert [pins.fits(served(house)) for pins in before.values()] == ["backup key"] * 2


def test_a_bundle_that_was_flashed_and_deleted_is_not_needed(house: House) -> None:
    before = pinned(house, "two")
    shutil.rmtree(house.out / "two")
    move(house)
    assert before.fits(served(house)) == "backup key"


def test_a_device_whose_registry_does_not_say_is_known_by_its_bundle_and_without_may_pin_anything(house: House) -> None:
    with Registry(house.registry).transaction() as registry:
        registry.change("one", backup_pin=None)
        registry.change("two", backup_pin=None)
    shutil.rmtree(house.out / "two")
    kept = everything(house.vault())
    with pytest.raises(BrokerKeyError, match=r"1 have no bundle in .*\(two\)"):
        move(house)
    assert everything(house.vault()) == kept
    move(house, force=True)
    assert pinned(house, "one").fits(served(house)) == "backup key"


def test_a_revoked_device_holds_nobody_up(house: House) -> None:
    move(house)
    house.enroller().refresh("one")
    with Registry(house.registry).transaction() as registry:
        registry.change("two", status="revoked")
    move(house)
    assert pinned(house, "one").fits(served(house)) == "backup key"


def test_a_gateway_is_named_where_there_are_several_and_must_be_one(house: House) -> None:
    two = a_site(gateways=2)
    with pytest.raises(BrokerKeyError, match="name the gateway .*gw1, gw2"):
        brokerkeys.move(two, "", force=False)
    with pytest.raises(BrokerKeyError, match="gw3: no such gateway"):
        brokerkeys.move(two, "gw3", force=False)
    assert brokerkeys.move(two, "gw1", force=False)
