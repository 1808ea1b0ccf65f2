"""A device's bundle: what it holds, that a device can use each of its formats, and what it pins."""

from __future__ import annotations

import errno
import json
import os
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gatehouse.identity import bundle as bundles
from gatehouse.identity import nvs
from gatehouse.identity.bundle import Bundle, BundleError
from gatehouse.identity.enrolment import Request
from gatehouse.identity.pins import Pins, broker_certificate, move_to_backup_key, pins_of
from gatehouse.identity.pki import PkiError
from gatehouse.identity.store import SecretStore
from tests.unit.enrolling import House, a_house, a_request


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    made = a_house(tmp_path_factory.mktemp("house"))
    made.enrol("kitchen-01", partitions=True)
    made.enroller().enrol([Request("pump-02", "atecc608", csr=a_request("pump-02"))])
    return made


@pytest.fixture
def place(house: House) -> Path:
    return house.out / "kitchen-01"


def whole(place: Path) -> Bundle:
    found = bundles.read(place)
    assert found is not None
    return found


def served(house: House) -> x509.Certificate:
    return x509.load_pem_x509_certificate(broker_certificate(house.pki(), house.site, "gw1").certificate_pem)


def test_a_bundle_has_its_files_and_no_others(house: House, place: Path) -> None:
    common = {"README.txt", "bundle.json", "ca.pem", "certificate.pem", "chain.pem", "gatehouse_device.h", "hmac.key"}
    assert {path.name for path in place.iterdir()} == common | {"key.pem", "nvs.bin", "nvs.csv"}
    assert {path.name for path in (house.out / "pump-02").iterdir()} == common | {"nvs.csv"}


def test_the_chain_leads_from_the_certificate_to_the_root(place: Path) -> None:
    leaf = x509.load_pem_x509_certificate((place / "certificate.pem").read_bytes())
    issuer, root = x509.load_pem_x509_certificates((place / "chain.pem").read_bytes())
    leaf.verify_directly_issued_by(issuer)
    issuer.verify_directly_issued_by(root)
    assert x509.load_pem_x509_certificates((place / "ca.pem").read_bytes()) == [root]


def test_the_facts_name_the_broker_and_hold_no_secret(house: House, place: Path) -> None:
    text = (place / "bundle.json").read_text()
    facts = json.loads(text)
    assert facts["broker"]["host"] == "broker.home.arpa"
    assert (facts["broker"]["port"], facts["broker"]["addresses"]) == (8883, ["10.10.10.1"])
    assert (facts["name"], facts["hmac_key_number"]) == ("kitchen-01", 1)
    assert (place / "hmac.key").read_text().strip() not in text


def test_the_broker_is_served_under_the_names_and_addresses_that_devices_are_given(house: House, place: Path) -> None:
    broker = whole(place).broker
    names = served(house).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert broker.host in names.get_values_for_type(x509.DNSName)
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == list(broker.addresses)


def test_a_bundle_reads_back_as_it_was_written(tmp_path: Path, place: Path) -> None:
    bundle = whole(place)
    bundles.prepare(tmp_path / "out" / "home", bundle.ca_pem, bundle.chain_pem)
    bundles.write(tmp_path / "out" / "home", bundle)
    assert bundles.read(tmp_path / "out" / "home" / "kitchen-01") == bundle


def test_what_is_the_same_for_all_is_one_file_and_a_copy_where_that_can_not_be(
    house, place, tmp_path, monkeypatch
) -> None:
    assert (place / "README.txt").stat().st_ino == (house.out / "README.txt").stat().st_ino
    bundle = whole(place)
    bundles.prepare(tmp_path / "home", bundle.ca_pem, bundle.chain_pem)

    def no_links(*_: Any, **__: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    bundles.write(tmp_path / "home", bundle)
    assert bundles.read(tmp_path / "home" / "kitchen-01") == bundle
    assert (tmp_path / "home" / "kitchen-01" / "ca.pem").stat().st_nlink == 1


def test_the_readme_says_how_to_flash_each_format_and_where_the_firmware_keys_are(place: Path) -> None:
    text = (place / "README.txt").read_text()
    for needed in ("nvs.csv", "nvs.bin", "gatehouse_device.h", "parttool.py", "esp_idf_nvs_partition_gen", "hmac.key"):
        assert needed in text
    assert "two keys that firmware is verified with are public" in " ".join(text.split())
    assert {path.name for path in place.iterdir() if path.name not in text} == {"README.txt"}


def test_a_directory_that_is_no_whole_bundle_is_none(tmp_path: Path, place: Path) -> None:
    assert bundles.read(tmp_path / "nothing") is None
    copy = tmp_path / "copy"
    shutil.copytree(place, copy)
    assert bundles.read(copy) == whole(place)
    (copy / "chain.pem").unlink()
    assert bundles.read(copy) is None


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=st.binary(max_size=60) | st.text(max_size=60).map(lambda text: json.dumps({"broker": text}).encode()))
def test_no_content_of_a_bundle_makes_the_reader_fail(tmp_path: Path, place: Path, raw: bytes) -> None:
    copy = tmp_path / "copy"
    if not copy.exists():
        shutil.copytree(place, copy)
    (copy / "bundle.json").write_bytes(raw)
    assert bundles.read(copy) is None


# NVS


def entries(image: bytes) -> dict[str, Any]:
    """The keys and values of an NVS partition (ESP-IDF, "NVS internals"): strings, blobs and small numbers."""
    found: dict[str, Any] = {}
    for start in range(0, len(image), 4096):
        page = image[start : start + 4096]
        if page[:4] == b"\xff" * 4:
            continue
        assert zlib.crc32(page[4:28], 0xFFFFFFFF) == struct.unpack_from("<I", page, 28)[0]
        index = 0
        while index < 126:
            entry = page[64 + 32 * index : 96 + 32 * index]
            state = page[32 + index // 4] >> (index % 4 * 2) & 3
            if state != 2:  # written
                index += 1
                continue
            kind, span = entry[1], entry[2]
            key = entry[8:24].split(b"\0")[0].decode()
            if kind in (0x21, 0x42):
                size = struct.unpack_from("<H", entry, 24)[0]
                data = page[96 + 32 * index :][:size]
                assert zlib.crc32(data, 0xFFFFFFFF) == struct.unpack_from("<I", entry, 28)[0]
                found[key] = data.rstrip(b"\0").decode() if kind == 0x21 else data
            elif kind in (0x01, 0x02, 0x04):
                found[key] = int.from_bytes(entry[24 : 24 + kind], "little")
            index += span
    return found


def test_the_partition_holds_what_the_bundle_does(place: Path) -> None:
    image = (place / "nvs.bin").read_bytes()
    bundle = whole(place)
    assert len(image) == nvs.SIZE == 0x6000
    found = entries(image)
    assert bundle.key_pem is not None
    assert found == {
        "gatehouse": 1,
        "name": "kitchen-01",
        "broker_host": "broker.home.arpa",
        "broker_port": 8883,
        "ca": bundle.ca_pem.decode(),
        "certificate": bundle.certificate_pem.decode(),
        "key": bundle.key_pem.decode(),
        "hmac_key": bundle.hmac_key,
        "hmac_key_number": 1,
        "pin": bytes.fromhex(bundle.broker.pins.spki_sha256),
        "pin_backup": bytes.fromhex(bundle.broker.pins.backup_spki_sha256),
        "pin_certificate": bytes.fromhex(bundle.broker.pins.certificate_sha256),
    }


@pytest.mark.parametrize("name", ["kitchen-01", "pump-02"])
def test_the_makers_own_command_makes_the_same_partition_from_the_table(
    house: House, tmp_path: Path, name: str
) -> None:
    place = house.out / name
    ours = nvs.partition(place)
    copy = shutil.copytree(place, tmp_path / "copy")
    command = [sys.executable, "-m", "esp_idf_nvs_partition_gen", "generate", "nvs.csv", "theirs.bin", hex(nvs.SIZE)]
    subprocess.run(command, cwd=copy, check=True, capture_output=True)
    assert (copy / "theirs.bin").read_bytes() == ours


def test_keys_are_as_short_as_nvs_wants_them(place: Path) -> None:
    keys = [line.split(",")[0] for line in (place / "nvs.csv").read_text().splitlines()[1:]]
    assert keys and max(map(len, keys)) <= 15


@pytest.mark.parametrize(("size", "why"), [(0x2000, "from 0x3000"), (0x3001, "multiple of 0x1000"), (0, "multiple")])
def test_a_partition_of_an_impossible_size_is_refused(place: Path, size: int, why: str) -> None:
    with pytest.raises(BundleError, match=why):
        bundles.write_partition(place, size)
    assert len(nvs.partition(place, 0x3000)) == 0x3000


def test_a_table_that_someone_spoilt_is_refused(place: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(place, tmp_path / "copy")
    (copy / "nvs.csv").write_text("key,type,encoding,value\na,data,u8,many\n")
    with pytest.raises(BundleError, match="not as it was made"):
        bundles.write_partition(copy)
    (copy / "nvs.csv").write_text("key,type,encoding,value\ngatehouse,namespace,,\na,file,string,/etc/hostname\n")
    with pytest.raises(BundleError, match="No such file"):
        bundles.write_partition(copy)


# C header

PROGRAM = r"""
#include <stdio.h>
#include "gatehouse_device.h"
#include "gatehouse_device.h"
static const unsigned char pin[32] = GATEHOUSE_PIN, backup[32] = GATEHOUSE_PIN_BACKUP, hmac[32] = GATEHOUSE_HMAC_KEY;
static void hex(const unsigned char *data) { for (int i = 0; i < 32; i++) printf("%02x", data[i]); puts(""); }
int main(void) {
    printf("%s\n%s\n%d\n%d\n", GATEHOUSE_DEVICE_NAME, GATEHOUSE_BROKER_HOST, GATEHOUSE_BROKER_PORT,
           GATEHOUSE_HMAC_KEY_NUMBER);
    hex(pin); hex(backup); hex(hmac);
    printf("%s%s", GATEHOUSE_CA, GATEHOUSE_CERTIFICATE);
#ifdef GATEHOUSE_KEY
    printf("%s", GATEHOUSE_KEY);
#endif
    return 0;
}
"""


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler here")
@pytest.mark.parametrize("name", ["kitchen-01", "pump-02"])
def test_the_header_compiles_without_a_warning_and_says_the_same(house: House, tmp_path: Path, name: str) -> None:
    bundle = whole(house.out / name)
    (tmp_path / "main.c").write_text(PROGRAM)
    warn = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-Wno-overlength-strings"]
    command = ["cc", *warn, f"-I{house.out / name}", "-o", str(tmp_path / "main"), str(tmp_path / "main.c")]
    subprocess.run(command, check=True)
    said = subprocess.run([tmp_path / "main"], check=True, capture_output=True, text=True).stdout
    pins = bundle.broker.pins
    lines = [name, "broker.home.arpa", "8883", "1", pins.spki_sha256, pins.backup_spki_sha256, bundle.hmac_key.hex()]
    pems = bundle.ca_pem + bundle.certificate_pem + (bundle.key_pem or b"")
    assert said == "\n".join(lines) + "\n" + pems.decode()


# pins


def test_the_pins_are_of_the_certificate_that_the_broker_serves(house: House, place: Path) -> None:
    assert whole(place).broker.pins.fits(served(house)) == "certificate"


def test_another_certificate_for_the_same_key_is_known_by_its_key_and_a_foreign_one_not_at_all(house: House) -> None:
    vault = house.vault()
    pki = house.pki(vault)
    pins = pins_of(vault, broker_certificate(pki, house.site, "gw1"))
    renewed = x509.load_pem_x509_certificate(pki.server("mosquitto-gw1", ["broker.home.arpa"]).certificate_pem)
    assert pins.fits(renewed) == "key"
    other = x509.load_pem_x509_certificate(pki.server("mosquitto-gw2", ["broker.home.arpa"]).certificate_pem)
    assert pins.fits(other) is None


def test_a_broker_that_moves_to_its_backup_key_strands_no_pinned_device(tmp_path: Path) -> None:
    house = a_house(tmp_path)
    house.enrol("one")
    pinned = whole(house.out / "one").broker.pins
    vault = house.vault()
    move_to_backup_key(vault, "mosquitto-gw1")
    now = served(house)
    assert pinned.fits(now) == "backup key"
    fresh = pins_of(house.vault(), broker_certificate(house.pki(), house.site, "gw1"))
    assert fresh.fits(now) == "certificate"
    assert len({fresh.spki_sha256, fresh.backup_spki_sha256, pinned.spki_sha256}) == 3
    move_to_backup_key(house.vault(), "mosquitto-gw1")
    assert (pinned.fits(served(house)), fresh.fits(served(house))) == (None, "backup key")


def test_a_broker_without_a_backup_key_moves_nowhere(house: House) -> None:
    store = SecretStore()
    with pytest.raises(PkiError, match="it has no backup key, so no device knows one"):
        move_to_backup_key(store, "mosquitto-gw1")
    assert store.names() == []


def test_the_backup_key_is_made_once_and_is_not_the_key(house: House) -> None:
    vault = house.vault()
    server = broker_certificate(house.pki(vault), house.site, "gw1")
    pins = pins_of(vault, server)
    assert pins == pins_of(house.vault(), server)
    assert isinstance(pins, Pins) and pins.spki_sha256 != pins.backup_spki_sha256
