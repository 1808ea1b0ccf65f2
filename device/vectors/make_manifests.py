"""Makes `manifests.json`: files of manifests, the devices that judge them, and what comes of it.

    python device/vectors/make_manifests.py > manifests.json

A signature has a random part, so a new run gives other bytes that say the same.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from hashlib import sha256
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

from gatehouse.updates.judgement import Device, Refused, choose
from gatehouse.updates.manifest import LABEL, SIGNED, Manifest, raw_key, signed

FIRST, SECOND, THIRD, FOREIGN = (ec.derive_private_key(number, ec.SECP256R1()) for number in (11, 12, 13, 14))
KEYS = tuple(raw_key(key.public_key()) for key in (FIRST, SECOND, THIRD))
NOW = 1_790_000_000
DAY = 86_400
IMAGE = b"firmware " * 1000
DEVICE = Device(
    name="kitchen-01", model="esp32-sht31", keys=KEYS[:2], counter=7, now=NOW, slot=1_048_576, image_format=2,
    chip=0xFFFF, server="https://updates.home.arpa/", floor=NOW - 30 * DAY,
)  # fmt: skip
GOOD = Manifest(
    model="esp32-sht31", version="1.4.2", counter=8, minimum_counter=0, image_format=2, chip=0xFFFF, size=len(IMAGE),
    sha256=sha256(IMAGE).digest(), url="https://updates.home.arpa/esp32-sht31/1.4.2.bin", issued=NOW - DAY,
    expires=NOW + 89 * DAY, share=10_000, seed=bytes(range(16)), keys=(KEYS[0], KEYS[1]),
)  # fmt: skip


def again(data: bytes) -> bytes:
    """A body whose bytes were changed, signed anew by the first key: what the desk would never sign."""
    first, second = utils.decode_dss_signature(FIRST.sign(LABEL + data[:SIGNED], ec.ECDSA(hashes.SHA256())))
    return data[:SIGNED] + first.to_bytes(32, "big") + second.to_bytes(32, "big")


def put(data: bytes, offset: int, value: bytes) -> bytes:
    """Data with a value in place of what was at an offset."""
    return data[:offset] + value + data[offset + len(value) :]


def flipped(data: bytes, offset: int) -> bytes:
    """Data with one bit changed."""
    return put(data, offset, bytes([data[offset] ^ 1]))


def cases() -> list[tuple[str, bytes, Device, str]]:
    """Name, file, device, and what is expected: `take` or the reason of the refusal."""
    made = signed(GOOD, FIRST)

    def by_first(**changes: Any) -> bytes:
        return signed(replace(GOOD, **changes), FIRST)

    def knows(**changes: Any) -> Device:
        return replace(DEVICE, **changes)

    other = sha256(b"pump-02").digest()
    return [
        ("a release", made, DEVICE, "take"),
        ("by the backup key", signed(GOOD, SECOND), DEVICE, "take"),
        ("that brings a new pair of keys", by_first(keys=(KEYS[1], KEYS[2])), DEVICE, "take"),
        ("by the third key, after that", signed(GOOD, THIRD), knows(keys=KEYS[1:]), "take"),
        ("by the first key, after that", made, knows(keys=KEYS[1:]), "unknown-key"),
        ("for a device without any release", made, knows(counter=0), "take"),
        ("for this device only", by_first(device=sha256(b"kitchen-01").digest()), DEVICE, "take"),
        ("for another device", by_first(device=other), DEVICE, "wrong-device"),
        ("for another model", made, knows(model="relay"), "wrong-model"),
        ("for a model whose name begins the same", made, knows(model="esp32-sht3"), "wrong-model"),
        ("in another format", by_first(image_format=1, chip=0), DEVICE, "wrong-format"),
        ("for another chip", by_first(image_format=1, chip=9), knows(image_format=1, chip=0), "wrong-chip"),
        ("for this chip", by_first(image_format=1, chip=9), knows(image_format=1, chip=9), "take"),
        ("that the device has", made, knows(counter=8), "up-to-date"),
        ("that the device has, expired", made, knows(counter=8, now=NOW + 100 * DAY), "expired"),
        ("older than the device's", made, knows(counter=9), "rolled-back"),
        ("an older version with a higher counter", by_first(version="1.0.0", counter=9), DEVICE, "take"),
        ("as far ahead as may be", by_first(counter=7 + 1024), DEVICE, "take"),
        ("too far ahead", by_first(counter=7 + 1025), DEVICE, "too-far"),
        ("with the highest counter", by_first(counter=2**32 - 1), DEVICE, "too-far"),
        ("for a device that knows no time", made, knows(now=0), "no-time"),
        ("in its last second", made, knows(now=GOOD.expires - 1), "take"),
        ("just expired", made, knows(now=GOOD.expires), "expired"),
        ("expired, but the clock was set back", made, knows(now=NOW, floor=GOOD.expires), "expired"),
        ("after another one", by_first(minimum_counter=7), DEVICE, "take"),
        ("before another one", by_first(minimum_counter=7), knows(counter=6), "needs-earlier"),
        ("as large as the slot", made, knows(slot=GOOD.size), "take"),
        ("larger than the slot", made, knows(slot=GOOD.size - 1), "too-large"),
        ("on another server", by_first(url="https://evil.example/esp32-sht31/1.4.2.bin"), DEVICE, "wrong-place"),
        ("on a server that begins the same", by_first(url="https://updates.home.arpa.evil.example/x"), DEVICE,
         "wrong-place"),
        ("for none yet", by_first(share=0), DEVICE, "not-its-turn"),
        ("for 55.26 %, where the device stands", by_first(share=5526), DEVICE, "not-its-turn"),
        ("for 55.27 %", by_first(share=5527), DEVICE, "take"),
        ("by a foreign key", signed(GOOD, FOREIGN), DEVICE, "unknown-key"),
        ("by a foreign key that calls itself the first", put(signed(GOOD, FOREIGN), 312, made[312:320]), DEVICE,
         "bad-signature"),
        ("with the signature of another", made[:SIGNED] + by_first(counter=9)[SIGNED:], DEVICE, "bad-signature"),
        ("with a signature of zeros", made[:SIGNED] + bytes(64), DEVICE, "bad-signature"),
        ("with a signature of ones", made[:SIGNED] + b"\xff" * 64, DEVICE, "bad-signature"),
        *[(f"flipped at {offset}", flipped(made, offset), DEVICE, "bad-signature")
          for offset in (11, 15, 19, 31, 39, 40, 56, 88, 119, 448, 511)],
        ("with another magic", flipped(made, 0), DEVICE, "no-manifest"),
        ("of another form", again(put(made, 4, b"\2")), DEVICE, "no-manifest"),
        ("with another algorithm", again(put(made, 5, b"\2")), DEVICE, "no-manifest"),
        ("with a format nobody knows", again(put(made, 6, b"\3")), DEVICE, "no-manifest"),
        ("with something in the empty byte", again(put(made, 7, b"\1")), DEVICE, "no-manifest"),
        ("with counter 0", again(put(made, 8, bytes(4))), DEVICE, "no-manifest"),
        ("after itself", again(put(made, 12, made[8:12])), DEVICE, "no-manifest"),
        ("of 0 bytes", again(put(made, 16, bytes(4))), DEVICE, "no-manifest"),
        ("of 100 MB", again(put(made, 16, (100_000_000).to_bytes(4, "big"))), DEVICE, "no-manifest"),
        ("for more than all", again(put(made, 22, (10_001).to_bytes(2, "big"))), DEVICE, "no-manifest"),
        ("that expires before it is issued", again(put(made, 32, made[24:32])), DEVICE, "no-manifest"),
        ("with a time that is none", again(put(made, 32, b"\xff" * 8)), DEVICE, "no-manifest"),
        ("with a model that does not end", again(put(made, 120, b"a" * 32)), DEVICE, "no-manifest"),
        ("with something after the model", again(put(made, 151, b"x")), DEVICE, "no-manifest"),
        ("with an empty version", again(put(made, 152, bytes(32))), DEVICE, "no-manifest"),
        ("with a line end in its URL", again(put(made, 330, b"\r\n")), DEVICE, "no-manifest"),
        ("with no https", again(put(made, 320, b"http:///")), DEVICE, "no-manifest"),
        ("with one key twice", again(put(made, 248, KEYS[0])), DEVICE, "no-manifest"),
        ("with a key that is no point", again(put(made, 248, b"\1" * 64)), DEVICE, "no-manifest"),
        ("cut", made[:-1], DEVICE, "no-manifest"),
        ("with one byte more", made + b"\0", DEVICE, "no-manifest"),
        ("nothing", b"", DEVICE, "no-manifest"),
        ("five", made * 5, DEVICE, "no-manifest"),
        ("the bridge behind what is too new", signed(replace(GOOD, counter=9), THIRD)
         + by_first(keys=(KEYS[1], KEYS[2])), DEVICE, "take"),
        ("one that needs the other", by_first(counter=9, minimum_counter=8) + made, DEVICE, "take"),
        ("two that can't be", signed(GOOD, THIRD) + by_first(counter=6), DEVICE, "unknown-key"),
        ("good behind bad", bytes(512) + made, DEVICE, "take"),
    ]  # fmt: skip


def main() -> None:
    """Write them; each is first judged by Python's own judgement."""
    vectors = []
    for name, file, device, expected in cases():
        counter = 0
        try:
            counter = choose(file, device).counter
            found = "take"
        except Refused as refused:
            found = refused.reason
        if found != expected:
            sys.exit(f"{name}: {found} instead of {expected}")
        changed = {k: v for k, v in asdict(device).items() if v != getattr(DEVICE, k) and k != "keys"}
        trusted = {"keys": [key.hex() for key in device.keys]} if device.keys != DEVICE.keys else {}
        taken = {"counter": counter} if expected == "take" else {}
        vectors.append(
            {"name": name, "device": {**changed, **trusted}, "file": file.hex(), "expect": expected, **taken}
        )
    usual = {**asdict(DEVICE), "keys": [key.hex() for key in DEVICE.keys]}
    print(json.dumps({"device": usual, "manifests": vectors}, indent=1))


if __name__ == "__main__":
    main()
