"""The signing desk: keys, counters, and what is not signed."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gatehouse.errors import GatehouseError
from gatehouse.identity.store import SecretStore, VaultError
from gatehouse.updates import Device, Refused, choose, read
from gatehouse.updates.keys import FirmwareKeys, KeysError, trusted_keys
from gatehouse.updates.signing import Wish, behind, check_replaceable, order, sign
from tests.unit.enrolling import House, a_house

NOW = 1_790_000_000
WISH = Wish(model="relay", version="1.0.0", url="https://updates.home.arpa/relay/1.0.0.bin")


@pytest.fixture
def vault() -> SecretStore:
    store = SecretStore()
    FirmwareKeys(store, "home").ensure()
    return store


def signed(vault: SecretStore, image: bytes = b"image", **changes: Any) -> bytes:
    return sign(vault, FirmwareKeys(vault, "home"), image, replace(WISH, **changes), NOW).data


def a_device(vault: SecretStore, counter: int = 0, **changes: Any) -> Device:
    facts: dict[str, Any] = {
        "name": "pump-02", "model": "relay", "keys": trusted_keys(vault), "counter": counter, "now": NOW,
        "slot": 1 << 20, "image_format": 2, "chip": 0xFFFF, "server": "https://updates.home.arpa/",
    }  # fmt: skip
    return Device(**{**facts, **changes})


def an_esp_image(chip: int = 0, version: str = "1.0.0", length: int = 4096) -> bytes:
    head = bytearray(288)
    head[0], head[1] = 0xE9, 1
    struct.pack_into("<H", head, 12, chip)
    struct.pack_into("<I", head, 32, 0xABCD5432)
    head[48 : 48 + len(version)] = version.encode()
    return bytes(head).ljust(length, b"\xff")


def refusal(vault: SecretStore, image: bytes = b"image", **changes: Any) -> str:
    before = {name: vault.about(name) for name in vault.names()}
    with pytest.raises(GatehouseError) as refused:
        signed(vault, image, **changes)
    assert {name: vault.about(name) for name in vault.names()} == before
    return str(refused.value)


def test_a_signed_image_is_taken_by_a_device_that_has_the_keys(vault: SecretStore) -> None:
    found = choose(signed(vault), a_device(vault))
    assert (found.version, found.counter, found.size) == ("1.0.0", 1, 5)
    with pytest.raises(Refused, match="unknown-key"):
        stranger = SecretStore()
        FirmwareKeys(stranger, "home").ensure()
        choose(signed(vault), a_device(stranger))


def test_the_counter_rises_with_each_image_whatever_the_version_does(vault: SecretStore) -> None:
    counters = [
        read(signed(vault, b"one", version="1.0.0")).counter,
        read(signed(vault, b"two", version="1.1.0")).counter,
        read(signed(vault, b"one", version="1.0.0", downgrade=True)).counter,
    ]
    assert counters == [1, 2, 3]


def test_the_same_image_again_keeps_its_counter_and_who_is_first(vault: SecretStore) -> None:
    canary, wider = read(signed(vault, share=1000)), read(signed(vault, share=5000))
    assert (canary.counter, canary.seed) == (wider.counter, wider.seed)
    assert (canary.share, wider.share) == (1000, 5000)
    assert wider.issued > canary.issued


def test_every_model_counts_by_itself(vault: SecretStore) -> None:
    signed(vault, b"one")
    assert read(signed(vault, b"two", version="1.1.0")).counter == 2
    assert read(signed(vault, b"one", model="esp32-sht31")).counter == 1


def test_a_version_that_goes_back_is_refused_unless_it_is_meant(vault: SecretStore) -> None:
    signed(vault, b"new", version="1.10.0")
    assert "--downgrade" in refusal(vault, b"old", version="1.9.0")
    assert read(signed(vault, b"old", version="1.9.0", downgrade=True)).counter == 2


def test_a_version_names_one_image_for_ever(vault: SecretStore) -> None:
    signed(vault, b"one")
    assert "another image already" in refusal(vault, b"two")
    assert "another image already" in refusal(vault, b"two", downgrade=True)


@pytest.mark.parametrize(
    ("image", "changes", "said"),
    [
        (b"", {}, "0 bytes"),
        (bytes(2**24 + 1), {}, "no slot holds"),
        (an_esp_image(version="1.0.1"), {}, "calls itself '1.0.1'"),
        (an_esp_image()[:100], {}, "ends after 100 bytes"),
        (b"\xe9\x02" + bytes(400), {}, "no description"),
        (b"image", {"model": "Relay!"}, "model"),
        (b"image", {"version": "1 0"}, "version"),
        (b"image", {"url": "http://updates.home.arpa/x"}, "url"),
        (b"image", {"minimum_counter": 1}, "minimum counter"),
        (b"image", {"expires": timedelta(0)}, "expiry"),
        (b"image", {"share": 10_001}, "roll-out share"),
    ],
)
def test_what_can_t_be_a_release_is_not_signed(
    vault: SecretStore, image: bytes, changes: dict[str, Any], said: str
) -> None:
    assert said in refusal(vault, image, **changes)


def test_an_image_for_another_chip_is_refused(vault: SecretStore) -> None:
    assert read(signed(vault, an_esp_image(9))).chip == 9
    assert "for esp32, all before it were for esp32s3" in refusal(vault, an_esp_image(0, "1.1.0"), version="1.1.0")
    assert "no ESP-IDF application" in refusal(vault, b"image", version="1.1.0")
    assert read(signed(vault, an_esp_image(9, "1.1.0"), version="1.1.0")).counter == 2


def test_a_desk_whose_clock_was_set_back_signs_nothing_until_it_is_right(vault: SecretStore) -> None:
    keys = FirmwareKeys(vault, "home")
    signed(vault)
    for wish in (replace(WISH, version="1.1.0"), replace(WISH, share=5000)):
        with pytest.raises(GatehouseError, match=r"clock shows 2026-09-20 .*1\.0\.0 was signed at 2026-09-21 .*set it"):
            sign(vault, keys, b"image" if wish.version == "1.0.0" else b"newer", wish, NOW - 86_400)
    assert sign(vault, keys, b"newer", replace(WISH, version="1.1.0"), NOW - 10).manifest.counter == 2  # another desk's


def test_versions_are_compared_as_people_do() -> None:
    ordered = ["0.9", "1.0-alpha", "1.0-rc2", "1.0-rc10", "1.0", "1.0.1", "1.2", "1.10"]
    assert sorted(ordered, key=order)[:2] == ordered[:2] and sorted(ordered[4:], key=order) == ordered[4:]
    assert order("1.0-rc1") < order("1.0") and order("1.0+one") == order("1.0+two")


def test_without_keys_nothing_is_signed() -> None:
    with pytest.raises(KeysError, match=r"firmware\.keys"):
        signed(SecretStore())


def test_a_vault_that_has_lost_the_key_signs_nothing(vault: SecretStore) -> None:
    vault.delete("firmware/keys/1/key")
    assert "no secret named 'firmware/keys/1/key'" in refusal(vault)
    vault.set("firmware/keys/1/key", vault.get_authority_key("firmware/keys/2/key"), "ca-key")
    assert "don't belong together" in refusal(vault)


def test_the_signing_key_is_never_handed_out(vault: SecretStore) -> None:
    with pytest.raises(VaultError, match="goes nowhere"):
        vault.get("firmware/keys/1/key")
    assert vault.get("firmware/keys/1/public").startswith(b"-----BEGIN PUBLIC KEY")


@pytest.mark.parametrize("which", ["current", "backup"])
def test_a_replaced_key_is_refused_by_whoever_has_the_next_release(vault: SecretStore, which: Any) -> None:
    keys = FirmwareKeys(vault, "home")
    old = a_device(vault)
    first = signed(vault, b"one")
    choose(first, old)
    keys.replace(which)
    bridge = choose(signed(vault, b"two", version="1.1.0"), old)  # by a key that the device has had from the start
    assert bridge.keys == trusted_keys(vault)
    bridged = replace(old, keys=bridge.keys, counter=1)
    again = signed(vault, b"three", version="1.2.0")
    assert choose(again, bridged).counter == 3
    if which == "current":
        with pytest.raises(Refused, match="unknown-key"):
            choose(first, replace(bridged, counter=0))
    assert len([name for name in vault.names("firmware/keys/") if name.endswith("/key")]) == 2


def test_keys_are_not_replaced_twice_while_devices_wait_for_the_first_time(vault: SecretStore) -> None:
    keys = FirmwareKeys(vault, "home")
    signed(vault, b"one")
    check_replaceable(vault, keys)
    keys.replace("current")
    assert behind(vault, keys) == ["relay"]
    with pytest.raises(KeysError, match="relay"):
        check_replaceable(vault, keys)
    signed(vault, b"two", version="1.1.0")
    check_replaceable(vault, keys)


def test_a_record_that_is_none_stops_the_desk_before_a_counter_is_used_twice(vault: SecretStore) -> None:
    signed(vault, b"one")
    for broken in ("", "[]", '{"releases": []}', json.dumps({"image_format": 2, "chip": 0, "releases": [{}]})):
        vault.set("firmware/models/relay", broken, "record")
        assert "restore the vault" in refusal(vault, b"two", version="1.1.0")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    return a_house(tmp_path_factory.mktemp("house"))


def test_bundles_get_the_keys_once_there_are_some(house: House) -> None:
    house.enrol("kitchen-01")
    place = house.out / "kitchen-01"
    assert json.loads((place / "bundle.json").read_text())["firmware_keys"] == []
    FirmwareKeys(house.vault(), "home").ensure()
    assert set(house.enroller().refresh("kitchen-01")) == {"bundle.json", "nvs.csv", "gatehouse_device.h"}
    assert house.enroller().refresh("kitchen-01") == []
    first, second = trusted_keys(house.vault())
    assert json.loads((place / "bundle.json").read_text())["firmware_keys"] == [first.hex(), second.hex()]
    assert f"firmware_key_2,data,hex2bin,{second.hex()}\n" in (place / "nvs.csv").read_text()
    header = Path(place / "gatehouse_device.h").read_text()
    assert f"GATEHOUSE_FIRMWARE_KEY_BACKUP {{ 0x{second.hex(',').replace(',', ', 0x')} }}" in header
    house.enrol("pump-02", partitions=True)
    assert first.hex() in (house.out / "pump-02" / "nvs.csv").read_text()
