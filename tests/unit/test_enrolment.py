"""Enrolment: each device gets an identity of its own, once, and what can't be enrolled is told by name and line."""

from __future__ import annotations

import datetime
import multiprocessing
import os
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from gatehouse.identity import bundle as bundles
from gatehouse.identity.candidates import Refusal, Request
from gatehouse.identity.enrolment import EnrolmentError, hmac_secret
from gatehouse.identity.pins import move_to_backup_key
from gatehouse.site import SiteError
from tests.unit.enrolling import House, a_house, a_request

fork = multiprocessing.get_context("fork")


@pytest.fixture
def house(tmp_path: Path) -> House:
    return a_house(tmp_path)


def refused(house: House, *requests: Request) -> str:
    with pytest.raises(EnrolmentError) as caught:
        house.enroller().enrol(requests)
    return str(caught.value)


def certificate_in(place: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate((place / "certificate.pem").read_bytes())


def test_an_enrolled_device_has_certificate_hmac_key_registry_entry_and_bundle(house: House) -> None:
    outcome = house.enroller().enrol([Request("kitchen-01", "esp32-sht31", hardware_address="02:00:00:00:00:01")])
    assert (outcome.enrolled, outcome.already, outcome.refused) == (["kitchen-01"], [], [])
    device = house.devices()["kitchen-01"]
    bundle = bundles.read(house.out / "kitchen-01")
    assert bundle is not None
    assert (device.model, device.gateway, device.segment, device.status) == ("esp32-sht31", "gw1", "iot", "active")
    assert device.hardware_address == "02:00:00:00:00:01"
    certificate = certificate_in(house.out / "kitchen-01")
    authority = x509.load_pem_x509_certificate(house.pki().authority_certificates()["devices"])
    certificate.verify_directly_issued_by(authority)
    assert device.serials == (f"{certificate.serial_number:x}",)
    assert (device.not_before, device.not_after) == (certificate.not_valid_before_utc, certificate.not_valid_after_utc)
    key = serialization.load_pem_private_key((house.out / "kitchen-01" / "key.pem").read_bytes(), None)
    assert key.public_key() == certificate.public_key()
    assert house.vault().get_text(hmac_secret("kitchen-01", 1)) == bundle.hmac_key.hex()
    assert len(bundle.hmac_key) == 32


def test_no_two_devices_share_a_key_of_any_kind(house: House) -> None:
    house.enrol(*(f"d{number}" for number in range(20)))
    found = [bundles.read(house.out / f"d{number}") for number in range(20)]
    assert len({bundle.hmac_key for bundle in found if bundle}) == 20
    assert len({bundle.key_pem for bundle in found if bundle}) == 20
    assert len({device.spki_sha256 for device in house.devices().values()}) == 20
    assert len({device.serials for device in house.devices().values()}) == 20


def test_the_registry_holds_no_secret(house: House) -> None:
    house.enrol("kitchen-01")
    bundle = bundles.read(house.out / "kitchen-01")
    assert bundle is not None and bundle.key_pem is not None
    text = house.registry.read_text()
    assert bundle.hmac_key.hex() not in text
    assert "PRIVATE" not in text
    assert (house.out / "kitchen-01" / "hmac.key").read_text().strip() == bundle.hmac_key.hex()


def test_no_private_key_of_a_device_is_in_the_vault(house: House) -> None:
    house.enrol("kitchen-01")
    vault = house.vault()
    assert [name for name in vault.names() if "kitchen-01" in name] == ["devices/kitchen-01/hmac/1"]
    assert vault.about("devices/kitchen-01/hmac/1").kind == "hmac-key"


def test_everything_in_a_bundle_is_for_its_owner_only_whatever_the_umask(house: House) -> None:
    former = os.umask(0)
    try:
        house.enrol("kitchen-01", partitions=True)
    finally:
        os.umask(former)
    places = [house.out.parent, house.out, house.out / "kitchen-01"]
    assert {stat.S_IMODE(place.stat().st_mode) for place in places} == {0o700}
    files = [path for path in house.out.rglob("*") if path.is_file()]
    assert len(files) > 10
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_to_enrol_again_changes_nothing(house: House) -> None:
    house.enrol("kitchen-01")
    before = {path: path.read_bytes() for path in house.root.rglob("*") if path.is_file()}
    outcome = house.enroller().enrol([Request("kitchen-01", "esp32"), Request("kitchen-01b", "esp32")])
    assert (outcome.enrolled, outcome.already) == (["kitchen-01b"], ["kitchen-01"])
    kept = house.out / "kitchen-01"
    assert {path: path.read_bytes() for path in kept.iterdir()} == {p: c for p, c in before.items() if p.parent == kept}


def test_a_device_that_was_declared_by_hand_keeps_its_lines_and_gets_an_identity(house: House) -> None:
    declared = '# mine\n[[device]]\nname = "pump-02"  # loud\nmodel = "relay"\ngateway = "gw1"\n'
    house.registry.write_text(declared)
    house.enroller().enrol([Request("pump-02", address="10.10.10.51")])
    device = house.devices()["pump-02"]
    assert (device.model, str(device.address), len(device.serials)) == ("relay", "10.10.10.51", 1)
    assert house.registry.read_text().startswith(declared)


def test_a_key_that_stays_in_the_device_is_certified_and_is_in_no_file(house: House) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    house.enroller().enrol([Request("pump-02", "atecc608", csr=a_request("pump-02", key))])
    place = house.out / "pump-02"
    assert certificate_in(place).public_key() == key.public_key()
    assert not (place / "key.pem").exists()
    assert not any(b"PRIVATE KEY-----" in path.read_bytes() for path in house.out.rglob("*") if path.is_file())
    assert "key.pem" not in (place / "nvs.csv").read_text()
    assert bundles.read(place) is not None


def test_the_same_request_again_is_no_news_and_another_key_is_refused(house: House) -> None:
    request = a_request("pump-02")
    house.enroller().enrol([Request("pump-02", "m", csr=request)])
    assert house.enroller().enrol([Request("pump-02", "m", csr=request)]).already == ["pump-02"]
    assert "was enrolled with another key" in refused(house, Request("pump-02", "m", csr=a_request("pump-02")))


def test_a_key_that_another_device_has_is_refused(house: House) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    house.enroller().enrol([Request("one", "m", csr=a_request("one", key))])
    message = refused(house, Request("two", "m", csr=a_request("two", key)))
    assert message == "device 'two': its key is that of 'one' too; each device has its own"
    three = ec.generate_private_key(ec.SECP256R1())
    requests = [Request(name, "m", csr=a_request(name, three)) for name in ("three", "four")]
    assert "device 'four': its key is that of 'three' too" in refused(house, *requests)


@pytest.mark.parametrize(
    ("csr", "why"),
    [
        (lambda: a_request("other"), "make it for CN=pump-02"),
        (lambda: a_request("pump-02", rsa.generate_private_key(65537, 1024)), "RSA key of 1024 bits"),  # noqa: S505
        (lambda: a_request("pump-02", ec.generate_private_key(ec.SECP192R1())), "secp192r1"),
        (lambda: b"nonsense", "no certificate request"),
    ],
)
def test_a_request_that_can_not_be_certified_is_refused_before_anything_is_written(house, csr, why) -> None:
    generation = house.vault().generation
    assert why in refused(house, Request("pump-02", "m", csr=csr()))
    assert (house.vault().generation, house.registry.exists(), house.out.exists()) == (generation, False, False)


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (Request("Kitchen", "m"), "has capitals"),
        (Request("admin", "m"), "reserved"),
        (Request("mosquitto", "m"), "reserved"),
        (Request("gw1", "m"), "reserved"),
        (Request("gatehouse-intake", "m"), "the kit's own"),
        (Request("a" * 64, "m"), "longer than 63 bytes"),
        (Request("+", "m"), "MQTT topics"),
        (Request("", "m"), "empty"),
        (Request("../../etc", "m"), "other characters"),
        (Request("x"), "model: missing (add it)"),
        (Request("x", "m" * 65), "model: give 1 to 64 printable characters"),
        (Request("x", "a\nb"), "model: give 1 to 64 printable characters"),
        (Request("x", "m", gateway="gw9"), "unknown gateway 'gw9'"),
        (Request("x", "m", segment="moon"), "has no segment 'moon'"),
        (Request("x", "m", hardware_address="02:00"), "hardware_address: has characters or a length"),
        (Request("x", "m", address="10.9.9.9"), "10.9.9.9 is outside 10.10.10.0/24"),
        (Request("x", "m", address="10.10.10.1"), "is the gateway's own"),
        (Request("x", "m", address="moon"), "device 'x' address"),
    ],
)
def test_what_can_not_be_enrolled_is_refused_with_the_reason_in_one_line(house, request_, why) -> None:
    message = refused(house, request_)
    assert why in message
    assert "\n" not in message
    assert house.devices() == {}


def test_two_gateways_must_be_told_apart(tmp_path: Path) -> None:
    house = a_house(tmp_path, gateways=2)
    assert "gateway: missing (add it)" in refused(house, Request("x", "m"))
    house.enroller().enrol([Request("x", "m", gateway="gw2", address="10.20.10.7")])
    bundle = bundles.read(house.out / "x")
    assert bundle is not None
    assert (house.devices()["x"].gateway, bundle.broker.addresses) == ("gw2", ("10.20.10.1",))


def test_what_only_one_device_may_have_is_not_given_to_a_second(house: House) -> None:
    first = Request("one", "m", hardware_address="02:00:00:00:00:0a", address="10.10.10.7")
    house.enroller().enrol([first])
    capitals = Request("two", "m", hardware_address="02:00:00:00:00:0A")
    assert "hardware address is that of 'one'" in refused(house, capitals)
    assert "address on gw1 is that of 'one'" in refused(house, Request("two", "m", address="10.10.10.7"))
    house.enroller().enrol([Request("two", "m", hardware_address="02:00:00:00:00:0b", address="10.10.10.8")])


def test_facts_that_the_registry_has_otherwise_are_refused_and_not_overwritten(house: House) -> None:
    house.enrol("one")
    assert "its model is 'esp32' in the registry, not 'esp8266'" in refused(house, Request("one", "esp8266"))
    assert house.devices()["one"].model == "esp32"


def test_a_revoked_device_and_its_name_are_gone_for_good(house: House) -> None:
    house.registry.write_text('[[device]]\nname = "one"\nmodel = "m"\ngateway = "gw1"\nstatus = "revoked"\n')
    assert "was revoked, and its name with it" in refused(house, Request("one", "m"))
    house.enrol("two")


def test_one_bad_request_stops_all_unless_told_to_go_on(house: House) -> None:
    requests = [Request("good", "m", line=2), Request("Bad", "m", line=3), Request("good", "m", line=4)]
    with pytest.raises(EnrolmentError) as caught:
        house.enroller().enrol(requests, unread=[Refusal(9, "broken")])
    lines = str(caught.value).splitlines()
    assert [line.split(":")[0] for line in lines[:3]] == ["line 3", "line 4", "line 9"]
    assert "'good': is in line 2 already" in lines[1]
    assert "nothing was enrolled" in lines[3]
    assert house.devices() == {}
    outcome = house.enroller().enrol(requests, keep_going=True, unread=[Refusal(9, "broken")])
    assert (outcome.enrolled, [refusal.line for refusal in outcome.refused]) == (["good"], [3, 4, 9])


def test_progress_is_told_batch_by_batch(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gatehouse.identity.enrolment.BATCH", 4)
    told: list[tuple[int, int]] = []
    requests = [Request(f"d{number}", "m") for number in range(10)]
    house.enroller().enrol(requests, progress=lambda done, total: told.append((done, total)))
    assert told == [(4, 10), (8, 10), (10, 10)]
    assert len(house.devices()) == 10


def test_a_broken_registry_is_left_alone(house: House) -> None:
    house.registry.write_text("[[device]\n")
    with pytest.raises(SiteError, match="is no TOML"):
        house.enrol("one")
    assert house.registry.read_text() == "[[device]\n"


def test_a_name_that_is_free_again_gets_a_new_hmac_key(house: House) -> None:
    vault = house.vault()
    with vault.transaction():
        vault.set("devices/one/hmac/1", "0" * 64, "hmac-key")
        vault.set("devices/one/hmac/2", "1" * 64, "hmac-key")
        vault.set("devices/other/hmac/1", "2" * 64, "hmac-key")
    house.enrol("one")
    after = house.vault()
    assert after.names("devices/") == ["devices/one/hmac/1", "devices/other/hmac/1"]
    assert (after.get_text("devices/one/hmac/1") != "0" * 64, after.get_text("devices/other/hmac/1")) == (
        True,
        "2" * 64,
    )


def enrol_some(house: House, names: list[str]) -> None:
    house.enrol(*names)


def test_two_who_enrol_the_same_devices_at_once_agree_on_one_identity_each(house: House) -> None:
    names = [f"d{number}" for number in range(30)]
    house.enrol("warm-up")
    writers = [fork.Process(target=enrol_some, args=(house, order)) for order in (names, names[::-1], names[10:])]
    for process in writers:
        process.start()
    for process in writers:
        process.join()
    assert [process.exitcode for process in writers] == [0] * 3
    devices = house.devices()
    assert devices.keys() == {"warm-up", *names}
    for name in names:
        found = bundles.read(house.out / name)
        assert found is not None
        assert devices[name].serials == (found.serial,)
        assert house.vault().get_text(hmac_secret(name, 1)) == found.hmac_key.hex()


# refreshing


def test_a_refreshed_bundle_has_the_pins_of_today_and_the_same_identity(house: House) -> None:
    house.enrol("one")
    before = bundles.read(house.out / "one")
    assert house.enroller().refresh("one") == []
    vault = house.vault()
    move_to_backup_key(vault, "mosquitto-gw1")
    assert set(house.enroller().refresh("one")) == {"bundle.json", "nvs.csv", "gatehouse_device.h"}
    after = bundles.read(house.out / "one")
    assert before is not None and after is not None
    assert after.broker.pins.spki_sha256 == before.broker.pins.backup_spki_sha256
    assert (after.certificate_pem, after.key_pem, after.hmac_key) == (
        before.certificate_pem,
        before.key_pem,
        before.hmac_key,
    )


def test_a_bundle_that_is_gone_or_old_is_not_refreshed_from_thin_air(house: House) -> None:
    house.enrol("one", "two")
    with pytest.raises(EnrolmentError, match="'nobody': is not in the registry"):
        house.enroller().refresh("nobody")
    (house.out / "one" / "bundle.json").unlink()
    with pytest.raises(EnrolmentError, match="its key is kept nowhere else"):
        house.enroller().refresh("one")
    text = house.registry.read_text()
    house.registry.write_text(text.replace(house.devices()["two"].serials[0], "abc"))
    with pytest.raises(EnrolmentError, match="of an older certificate"):
        house.enroller().refresh("two")


def test_a_certificate_lives_a_year_at_most_and_never_longer_than_its_authority(house: House) -> None:
    house.enrol("one")
    device = house.devices()["one"]
    assert device.not_before is not None and device.not_after is not None
    assert device.not_after - device.not_before == datetime.timedelta(days=365)
