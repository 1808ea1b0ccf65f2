"""Devices with a pre-shared key instead of a certificate: enrolled, bundled, and given another key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gatehouse.identity import bundle as bundles
from gatehouse.identity import psk
from gatehouse.identity.devicelist import read_list
from gatehouse.identity.enrolment import EnrolmentError, Request
from gatehouse.site import Device, SiteError
from roles.mosquitto import service
from tests.unit.enrolling import House, a_house, a_request, a_site

PSK = {"services": (service,), "psk": True}


@pytest.fixture
def house(tmp_path: Path) -> House:
    return a_house(tmp_path, **PSK)


def enrol(house: House, name: str = "sensor-01", **given: Any) -> bytes:
    house.enroller().enrol([Request(name, "m", authentication="psk", **given)])
    return psk.key_of(house.vault(), name)


def test_a_device_gets_a_key_and_nothing_of_a_certificate(house: House) -> None:
    key = enrol(house)
    place = house.out / "sensor-01"
    names = {"README.txt", "bundle.json", "gatehouse_device.h", "hmac.key", "nvs.csv", "psk.key"}
    assert {path.name for path in place.iterdir()} == names
    assert {path.stat().st_mode & 0o777 for path in place.iterdir()} == {0o600}
    assert len(key) == 32
    assert bytes.fromhex((place / "psk.key").read_text()) == key
    entry = house.devices()["sensor-01"]
    assert (entry.authentication, entry.serials, entry.not_after, entry.enrolled) == ("psk", (), None, True)


def test_the_bundle_has_name_key_and_port_in_every_format(house: House) -> None:
    key = enrol(house)
    place = house.out / "sensor-01"
    header = (place / "gatehouse_device.h").read_text()
    assert '#define GATEHOUSE_PSK_IDENTITY "sensor-01"' in header
    assert f'#define GATEHOUSE_PSK_HEX "{key.hex()}"' in header
    assert "#define GATEHOUSE_BROKER_PORT 8884" in header
    assert "CERTIFICATE" not in header and "PIN" not in header
    table = (place / "nvs.csv").read_text()
    assert "psk,file,hex2bin,psk.key\n" in table and "broker_port,data,u16,8884\n" in table
    assert key.hex() not in table and ".pem" not in table
    assert key in bundles.write_partition(place).read_bytes()
    assert key.hex() not in (place / "bundle.json").read_text()


def test_two_devices_never_share_a_key_and_one_keeps_its_own(house: House) -> None:
    first, other = enrol(house), enrol(house, "sensor-02")
    assert first != other
    assert enrol(house) == first


def test_a_device_of_a_run_that_was_killed_is_taken_up(house: House) -> None:
    key = enrol(house)
    house.registry.unlink()
    assert enrol(house) == key
    house.registry.unlink()
    with (vault := house.vault()).transaction():
        vault.delete(psk.secret_name("sensor-01"))
    fresh = enrol(house)
    assert fresh != key
    assert bytes.fromhex((house.out / "sensor-01" / "psk.key").read_text()) == fresh


def test_a_device_with_a_certificate_stays_what_it_is(house: House) -> None:
    house.enrol("kitchen-01")
    with pytest.raises(EnrolmentError, match="its authentication is 'certificate' in the registry, not 'psk'"):
        house.enroller().enrol([Request("kitchen-01", authentication="psk")])
    assert (house.out / "kitchen-01" / "certificate.pem").exists()


def test_a_device_that_is_only_noted_in_the_registry_can_be_given_either(house: House) -> None:
    house.registry.write_text('[[device]]\nname = "sensor-01"\nmodel = "m"\ngateway = "gw1"\n')
    enrol(house)
    assert house.devices()["sensor-01"].authentication == "psk"


def test_a_key_and_a_certificate_request_are_one_too_many(house: House) -> None:
    with pytest.raises(EnrolmentError, match="leave one of them out"):
        enrol(house, csr=a_request("sensor-01"))
    assert not house.devices()


def test_where_the_site_takes_no_keys_none_is_given(tmp_path: Path) -> None:
    house = a_house(tmp_path, services=(service,))
    with pytest.raises(EnrolmentError, match="takes no pre-shared keys; give the site psk=True"):
        enrol(house)
    assert not house.devices()


def test_a_site_with_such_devices_has_to_say_so() -> None:
    device = {"name": "sensor-01", "model": "m", "gateway": "gw1", "authentication": "psk"}
    with pytest.raises(SiteError, match="the site takes none"):
        a_site(services=(service,), devices=[device])
    assert a_site(services=(service,), devices=[{**device, "status": "revoked"}])
    assert a_site(**PSK, devices=[device]).listener("mosquitto", "psk").port == 8884


def test_a_list_may_name_them(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("name,model,authentication\na,m,psk\nb,m,\n")
    requests, refused = read_list(tmp_path / "list.csv")
    assert not refused and [request.authentication for request in requests] == ["psk", None]


def test_a_kind_of_authentication_that_there_is_not_is_refused(house: House) -> None:
    with pytest.raises(EnrolmentError, match="sensor-01"):
        house.enroller().enrol([Request("sensor-01", "m", authentication="password")])
    assert not house.devices()


def test_a_new_key_comes_into_the_bundle(house: House) -> None:
    former = enrol(house)
    vault = house.vault()
    with vault.transaction():
        vault.set(psk.secret_name("sensor-01"), psk.new_key().hex(), psk.KIND)
    changed = house.enroller().refresh("sensor-01")
    assert sorted(changed) == ["gatehouse_device.h", "psk.key"]
    fresh = psk.key_of(house.vault(), "sensor-01")
    assert fresh != former
    assert bytes.fromhex((house.out / "sensor-01" / "psk.key").read_text()) == fresh
    assert house.enroller().refresh("sensor-01") == []


def test_the_brokers_file_has_who_is_enrolled_and_not_revoked(house: House) -> None:
    key, other = enrol(house), enrol(house, "sensor-02")
    house.enrol("kitchen-01")
    found = list(house.devices().values())
    assert [line.split(":") for line in lines(house, found)][1:] == [
        ["sensor-01", key.hex()],
        ["sensor-02", other.hex()],
    ]
    found = [device.model_copy(update={"status": "revoked"}) for device in found]
    assert [line.split(":")[0] for line in lines(house, found)] == [psk.PROBE]


def lines(house: House, found: list[Device]) -> list[str]:
    return psk.key_file(house.vault(), found).decode().splitlines()
