"""Each attack of `gatehouse/updates/attacks.toml` against a simulated device, or why it has nothing to act on here."""

from __future__ import annotations

import socket
import ssl
import time
import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from gatehouse.identity.pki import Pki
from gatehouse.identity.store import SecretStore
from gatehouse.updates import manifest as manifests
from gatehouse.updates.keys import FirmwareKeys, trusted_keys
from gatehouse.updates.signing import Wish, sign
from tests.device import test_server
from tests.device.bench import Bench, Device, Server, an_image
from tests.unit.test_firmware_signing import an_esp_image

CATALOGUE = tomllib.loads((Path(manifests.__file__).parent / "attacks.toml").read_text())["attack"]
TESTED: set[str] = set()
DAY = 86_400

REASONS = {
    "OTA-12": "a manifest names one image and has no place for anything that it depends on",
    "OTA-20": "there are no deltas: an image is always whole",
    "OTA-21": "author and operator are one here: what the operator's desk has not signed is refused (OTA-01)",
    "OTA-27": "happens before the desk signs; `firmware.show --image` compares what was signed with the build",
}


ELSEWHERE = {
    "OTA-11": test_server.test_a_device_gets_its_update_while_another_and_strangers_flood_the_server,
    "OTA-22": test_server.test_an_image_is_read_by_nobody_but_the_models_own_devices,
}


def attack(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Marks the test of an attack."""
    TESTED.update(names)
    return lambda test: test


def test_every_attack_has_a_test_or_a_reason() -> None:
    names = {entry["id"] for entry in CATALOGUE}
    assert len(names) == 30
    assert names == TESTED | REASONS.keys() | ELSEWHERE.keys() and not TESTED & REASONS.keys()


@pytest.fixture
def device(bench: Bench) -> Device:
    return bench.device()


def untouched(device: Device, running: str = "1.0") -> None:
    """It runs on, and its next start finds nothing to be tried."""
    start = device.start()
    assert (start.status, start.running, start.begin, start.broker) == (0, running, "ok", "ok")


def takes(bench: Bench, device: Device, version: str) -> None:
    """The same device by the same way takes what it should."""
    bench.server.answers.clear()
    bench.publish(version)
    assert device.check() == "installed"
    assert (device.start().prove, device.start().running) == ("confirmed", version)


def by_the_key(bench: Bench, data: bytes, **changes: object) -> bytes:
    """A manifest that the desk would not make, by its own key: as a thief of that key would sign it."""
    return manifests.signed(replace(manifests.read(data), **changes), bench.keys.signer())  # type: ignore[arg-type]


@attack("OTA-01", "OTA-23")
def test_what_the_desk_has_not_signed_is_not_taken(bench: Bench, device: Device) -> None:
    good = bench.publish("1.1")
    stranger = SecretStore()
    FirmwareKeys(stranger, "test").ensure()
    image, url = an_image("1.1"), manifests.read(good).url
    foreign = sign(stranger, FirmwareKeys(stranger, "test"), image, Wish("relay", "1.1", url), bench.now).data
    offered = {
        "unknown-key": foreign,
        "bad-signature": good[: manifests.SIGNED] + bytes(64),
        # another digest under the old signature
        "wrong-image": good,
    }
    for word, manifest in offered.items():
        bench.server.files["/relay/manifest"] = manifest
        bench.server.files["/relay/1.1.bin"] = image[:4000] + bytes([image[4000] ^ 1]) + image[4001:]
        assert device.check() == word
        untouched(device)
    bench.server.files["/relay/manifest"] = good[:88] + bytes(32) + good[120:]
    assert device.check() == "bad-signature"
    takes(bench, device, "1.2")


@attack("OTA-02", "OTA-30")
def test_an_older_release_is_not_taken_unless_it_is_signed_anew(bench: Bench, device: Device) -> None:
    old = bench.publish("1.1")
    takes(bench, device, "1.2")
    bench.server.files["/relay/manifest"] = old
    assert device.check() == "rolled-back"
    untouched(device, "1.2")
    bench.publish("1.1", downgrade=True)
    assert device.check() == "installed"
    assert (device.start().running, device.start().counter) == ("1.1", "3")


@attack("OTA-30")
def test_a_failed_proof_returns_to_the_old_slot_with_the_old_counter(bench: Bench, device: Device) -> None:
    takes(bench, device, "1.1")
    bench.publish("1.2", "mute")
    assert (device.check(), device.start().prove) == ("installed", "reverted")
    back = device.start()
    assert (back.running, back.counter, back.begin) == ("1.1", "1", "ok")
    takes(bench, device, "1.3")


@attack("OTA-03", "OTA-04")
def test_a_release_that_has_expired_is_not_taken_and_freezing_is_noticed(bench: Bench, device: Device) -> None:
    bench.publish("1.1", now=bench.now - 91 * DAY)
    assert device.check() == "expired"
    untouched(device)
    takes(bench, device, "1.2")
    # the server goes on showing what the device has, and nothing newer
    assert device.check("--time", str(bench.now + 89 * DAY)) == "up-to-date"
    assert device.check("--time", str(bench.now + 91 * DAY)) == "expired"


@attack("OTA-05")
def test_a_counter_can_t_be_used_up_at_once(bench: Bench, device: Device) -> None:
    good = bench.publish("1.1")
    bench.server.files["/relay/manifest"] = by_the_key(bench, good, counter=2**32 - 1)
    assert device.check() == "too-far"
    takes(bench, device, "1.2")


@attack("OTA-06", "OTA-19")
def test_a_manifest_goes_with_its_own_image_and_counts_as_it_was_verified(bench: Bench, device: Device) -> None:
    bench.publish("1.1")
    bench.server.files["/relay/1.1.bin"] = an_image("1.0")
    assert device.check() == "wrong-image"
    untouched(device)
    asked = len(bench.server.asked)
    good = bench.publish("1.2")

    def once(connection: ssl.SSLSocket, path: str, fields: dict[str, str]) -> None:
        bench.server.serve(connection, path, fields)
        bench.server.files[path] = by_the_key(bench, good, sha256=bytes(32))

    bench.server.answers["/relay/manifest"] = once
    assert device.check() == "installed"
    assert bench.server.asked[asked:] == ["/relay/manifest", "/relay/1.2.bin"]
    assert device.start().prove == "confirmed"


@attack("OTA-07", "OTA-10")
def test_half_an_update_is_none(bench: Bench, device: Device) -> None:
    bench.publish("1.1")

    def half(connection: ssl.SSLSocket, path: str, fields: dict[str, str]) -> None:
        start = 1000 if "range" in fields else 0
        status = f"206 x\r\nContent-Range: bytes {start}-4999/5000" if start else "200 OK"
        connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: {5000 - start}\r\n\r\n".encode())
        connection.sendall(b"" if start else bench.server.files[path][:1000])

    bench.server.answers["/relay/1.1.bin"] = half
    assert device.check() == "no-answer"
    untouched(device)
    device.configure(server_port=1)
    assert device.check() == "no-answer"
    untouched(device)  # and it reports so to its broker, which is what an alarm goes by
    device.configure(server_port=bench.server.port)
    takes(bench, device, "1.2")


@attack("OTA-08", "OTA-25")
def test_more_than_the_manifest_says_is_not_taken(bench: Bench, device: Device) -> None:
    bench.publish("1.1")
    bench.server.files["/relay/1.1.bin"] += b"more"
    assert device.check() == "wrong-length"

    def endless(head: bytes, chunk: bytes) -> Callable[[ssl.SSLSocket, str, dict[str, str]], None]:
        def answer(connection: ssl.SSLSocket, path: str, fields: dict[str, str]) -> None:
            connection.sendall(b"HTTP/1.1 200 OK\r\n" + head)
            for _ in range(200_000):
                connection.sendall(chunk)

        return answer

    for path, head, chunk, word in (
        ("/relay/1.1.bin", b"Transfer-Encoding: chunked\r\n\r\n", b"10\r\n" + bytes(16) + b"\r\n", "bad-answer"),
        ("/relay/1.1.bin", b"\r\n", bytes(4096), "bad-answer"),
        ("/relay/1.1.bin", b"", b"X: y\r\n", "bad-answer"),
        ("/relay/1.1.bin", b"X: ", b"y" * 4096, "bad-answer"),
        ("/relay/manifest", b"Content-Length: 512000\r\n\r\n", bytes(4096), "no-manifest"),
        ("/relay/manifest", b"Content-Length: 99999999999999999999\r\n\r\n", bytes(4096), "bad-answer"),
    ):
        bench.server.answers = {path: endless(head, chunk)}
        assert device.check() == word, (path, head)
    untouched(device)
    takes(bench, device, "1.2")


@attack("OTA-09")
def test_a_server_that_is_silent_or_trickles_is_given_up_on(bench: Bench, device: Device) -> None:
    bench.publish("1.1")

    def silent(connection: ssl.SSLSocket, path: str, fields: dict[str, str]) -> None:
        time.sleep(20)

    def trickles(start: bytes) -> Callable[[ssl.SSLSocket, str, dict[str, str]], None]:
        def answer(connection: ssl.SSLSocket, path: str, fields: dict[str, str]) -> None:
            connection.sendall(start)
            for _ in range(100):
                connection.sendall(b"x")
                time.sleep(1)

        return answer

    # The answer is silent, its head trickles, its body trickles; and the server does not even shake hands.
    answers = {
        "/relay/manifest": (silent, trickles(b"HTTP/1.1 200 OK\r\nX: ")),
        "/relay/1.1.bin": (trickles(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"),),
    }
    others = iter([device, bench.device("pump-03"), bench.device("pump-04"), bench.device("pump-05")])
    began = time.monotonic()
    with ThreadPoolExecutor() as pool, socket.create_server(("127.0.0.1", 0)) as mute:
        checks = []
        for path, misbehave in ((path, each) for path, several in answers.items() for each in several):
            asked = bench.server.asked.count(path)
            bench.server.answers = {path: misbehave}
            checks.append(pool.submit(next(others).check))
            while bench.server.asked.count(path) == asked:
                assert time.monotonic() - began < 30
                time.sleep(0.05)
        last = next(others)
        last.configure(server_port=mute.getsockname()[1])
        checks.append(pool.submit(last.check))
        assert [check.result() for check in checks] == ["too-slow"] * 4
    assert time.monotonic() - began < 80
    untouched(device)
    takes(bench, device, "1.2")


@attack("OTA-13", "OTA-14")
def test_an_image_for_other_hardware_or_of_another_kind_is_not_taken(bench: Bench, device: Device) -> None:
    image = an_image("1.1")
    other = bench.sign(image, "1.1", model="esp32-sht31")
    bench.server.files["/relay/manifest"] = other
    assert device.check() == "wrong-model"
    good = bench.publish("1.1")
    bench.server.files["/relay/manifest"] = by_the_key(bench, good, image_format=1, chip=0)
    assert device.check() == "wrong-format"
    bench.server.files["/relay/manifest"] = good[:6] + b"\1" + good[7:]
    assert device.check() == "bad-signature"
    bench.server.files["/relay/manifest"] = by_the_key(bench, good, chip=9)
    assert device.check() == "wrong-chip"
    assert manifests.read(bench.sign(an_esp_image(9), "1.0.0", model="esp32-s3")).chip == 9
    untouched(device)
    takes(bench, device, "1.2")


@attack("OTA-15")
def test_the_slot_that_runs_is_never_written(bench: Bench, device: Device) -> None:
    before = device.slot(0)
    takes(bench, device, "1.1")
    assert device.slot(0) == before  # a manifest names no slot: it is always the other one
    bench.publish("1.2", size=70_000)  # larger than a slot, into whatever comes after it
    assert device.check() == "too-large"
    assert (device.slot(0), device.slot(1)) == (before, an_image("1.1"))


@attack("OTA-16")
def test_another_server_is_never_asked(bench: Bench, device: Device) -> None:
    good = bench.publish("1.1")
    pki = bench.broker.target.pki
    elsewhere = Server(
        pki.server("elsewhere", ["elsewhere.test.internal"], ["127.0.0.1"]), pki.trust_chain_for_devices(), bench.place
    )
    try:
        url = f"https://elsewhere.test.internal:{elsewhere.port}/relay/1.1.bin"
        bench.server.files["/relay/manifest"] = by_the_key(bench, good, url=url)
        assert device.check() == "wrong-place"
        bench.server.files["/relay/manifest"] = good
        moved = f"HTTP/1.1 302 Found\r\nLocation: {url}\r\nContent-Length: 0\r\n\r\n".encode()
        bench.server.answers["/relay/1.1.bin"] = lambda connection, path, fields: connection.sendall(moved)
        assert device.check() == "bad-answer"
        # and if a name leads there all the same, that server has not the right one
        device.configure(server_port=elsewhere.port)
        assert device.check() == "not-trusted"
        assert elsewhere.asked == []
    finally:
        elsewhere.close()
    device.configure(server_port=bench.server.port)
    untouched(device)
    takes(bench, device, "1.2")


@attack("OTA-17")
def test_a_server_of_another_ca_is_not_talked_to(bench: Bench, device: Device) -> None:
    bench.publish("1.1")
    other = Pki(SecretStore(), "test", "test.internal", prefixes=["127.0.0.0/8"]).ensure()
    forged = other.server("updates", ["updates.test.internal"], ["127.0.0.1"])
    between = Server(forged, bench.broker.target.pki.trust_chain_for_devices(), bench.place)
    try:
        device.configure(server_port=between.port)
        assert device.check() == "not-trusted"
        assert between.asked == []
    finally:
        between.close()
    device.configure(server_port=bench.server.port)
    assert device.check() == "installed"


@attack("OTA-18")
def test_an_image_that_was_exchanged_in_the_slot_is_not_kept(bench: Bench, device: Device) -> None:
    bench.publish("1.1")
    assert device.check() == "installed"
    (device.place / "slot1").write_bytes(an_image("6.6"))
    swapped = device.start()
    assert (swapped.running, swapped.begin) == ("6.6", "reverted")
    back = device.start()
    assert (back.running, back.counter) == ("1.0", "0")
    takes(bench, device, "1.2")


@attack("OTA-24")
def test_a_manifest_holds_no_secret(bench: Bench) -> None:
    data = bench.publish("1.1")
    for name in bench.vault.names("firmware/keys/"):
        if name.endswith("/key"):
            key = serialization.load_pem_private_key(bench.vault.get_authority_key(name), None)
            assert key.private_numbers().private_value.to_bytes(32, "big") not in data  # type: ignore[union-attr]
    assert all(key in data for key in trusted_keys(bench.vault))


@attack("OTA-26")
def test_a_stolen_key_counts_for_nothing_once_it_is_replaced(bench: Bench, device: Device) -> None:
    thief = bench.keys.signer()
    takes(bench, device, "1.1")
    bench.keys.replace("current")
    takes(bench, device, "1.2")
    newer = replace(manifests.read(bench.publish("1.3")), counter=9)
    bench.server.files["/relay/manifest"] = manifests.signed(newer, thief)
    assert device.check() == "unknown-key"
    takes(bench, device, "1.4")


@attack("OTA-28")
def test_a_release_for_one_device_is_not_taken_by_another(bench: Bench, device: Device) -> None:
    other = bench.device("pump-03")
    bench.publish("1.1", device="pump-03")
    assert device.check() == "wrong-device"
    assert other.check() == "installed"
    untouched(device)


@attack("OTA-29")
def test_a_clock_that_is_set_back_or_unknown_lets_nothing_old_in(bench: Bench, device: Device) -> None:
    stale = bench.sign(an_image("1.2"), "1.2", now=bench.now - 100 * DAY)
    bench.vault.delete("firmware/models/relay")
    takes(bench, device, "1.1")
    stale = by_the_key(bench, stale, counter=2)
    bench.server.files["/relay/manifest"] = stale
    assert device.check() == "expired"
    # the clock shows a day on which it was good; the device knows that its own release came later
    assert device.check("--time", str(bench.now - 50 * DAY)) == "expired"
    assert device.check("--time", "none") == "no-time"
    untouched(device, "1.1")
    assert manifests.read(stale).expires < bench.now
