"""The vectors of device/vectors, by the C library under the sanitizers: both sides agree on every case."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from deploy import tools
from gatehouse.messages import sign, verify
from tests.device.bench import Binaries, built

VECTORS = Path(__file__).parents[2] / "device" / "vectors"
MANIFESTS = json.loads((VECTORS / "manifests.json").read_text())
MESSAGES = json.loads((VECTORS / "messages.json").read_text())
KEY = bytes(range(32))


def judged(vector: dict[str, Any]) -> str:
    at = {**MANIFESTS["device"], **vector["device"]}
    names = ("name", "model", "server", "image_format", "chip", "slot", "counter", "floor", "now")
    return " ".join(["judge", *(str(at[name]) for name in names), "".join(at["keys"]), vector["file"] or "-"])


def test_the_library_judges_manifests_as_python_does(binaries: Binaries) -> None:
    vectors = MANIFESTS["manifests"]
    expected = [f"take {v['counter']}" if v["expect"] == "take" else v["expect"] for v in vectors]
    assert binaries.vectors([judged(vector) for vector in vectors]) == expected


def test_the_library_signs_messages_as_python_does(binaries: Binaries) -> None:
    good = [v for v in MESSAGES["messages"] if v["expect"] == "good" and v["form"] == 2]
    keys = [MESSAGES["keys"][v["topic"].split("/")[1]][str(v["number"])] for v in good]
    lines = [
        f"sign {key} {v['number']} {v['topic']} {v['sequence']} {v['time_ms']} {v['content']}"
        for key, v in zip(keys, good, strict=True)
    ]
    assert len(good) > 3
    assert binaries.vectors(lines) == [vector["message"] for vector in good]


def test_python_reads_what_the_library_signs(binaries: Binaries) -> None:
    topic, content = "devices/kitchen-01/telemetry/climate", b'{"temperature": 21.5}'
    lengths = (1, 63, 64, 65, 4096)
    lines = [f"sign {KEY.hex()} 3 {topic} {n} {1000 + n} {(b'x' * n).hex()}" for n in lengths]
    lines.append(f"sign {KEY.hex()} 3 {topic} 7 1790000000123 {content.hex()}")
    *sized, last = (bytes.fromhex(line) for line in binaries.vectors(lines))
    keys = {"kitchen-01": {3: KEY}}
    assert [len(verify(keys, topic, message).content) for message in sized] == list(lengths)
    found = verify(keys, topic, last)
    assert (found.content, found.sequence, found.time_ms) == (content, 7, 1790000000123)


def test_the_library_refuses_what_can_t_be_signed(binaries: Binaries) -> None:
    fits, topic = "78", "devices/kitchen-01/telemetry/climate"
    lines = [
        f"sign {KEY.hex()} 0 {topic} 1 1 {fits}",
        f"sign {KEY.hex()} 1 {topic} {2**63} 1 {fits}",
        f"sign {KEY.hex()} 1 {topic} 1 {2**60} {fits}",
        f"sign {KEY.hex()} 1 {topic} 1 1 -",
        f"sign {KEY.hex()} 1 {topic} 1 1 {'78' * 4097}",
    ]
    assert binaries.vectors(lines) == ["bad-argument"] * len(lines)


def test_the_library_verifies_messages_as_python_does(binaries: Binaries) -> None:
    topic = "devices/kitchen-01/telemetry/climate"
    message = sign(KEY, topic, b"21.5", number=1, sequence=9, time_ms=8)
    lines, expected = [f"verify {KEY.hex()} 1 {topic} {message.hex()}"], ["good 9 8 4"]
    lines.append(f"verify {KEY.hex()} 1 {topic}x {message.hex()}")
    lines.append(f"verify {KEY.hex()} 2 {topic} {message.hex()}")
    expected += ["bad-signature", "unknown-key"]
    for at in range(len(message)):
        lines.append(
            f"verify {KEY.hex()} 1 {topic} {(message[:at] + bytes([message[at] ^ 1]) + message[at + 1 :]).hex()}"
        )
    lines.append(f"verify {KEY.hex()} 1 {topic} {message[:52].hex()}")
    answers = binaries.vectors(lines)
    assert answers[:3] == expected
    assert {*answers[3:]} == {"bad-signature", "unknown-key", "bad-argument"}


def test_an_image_for_another_chip_or_of_another_version_is_none(binaries: Binaries) -> None:
    head = bytearray(288)
    head[0], head[1] = 0xE9, 5
    struct.pack_into("<H", head, 12, 9)
    struct.pack_into("<I", head, 32, 0xABCD5432)
    head[48:53] = b"1.4.2"
    bootloader = bytes(head[:32]) + bytes(256)
    lines = [
        f"image 9 1.4.2 {head.hex()}",
        f"image 0 1.4.2 {head.hex()}",
        f"image 9 1.4.3 {head.hex()}",
        f"image 9 1.4.2 {head[:287].hex()}",
        f"image 9 1.4.2 {bootloader.hex()}",
        "image 9 1.4.2 -",
    ]
    assert binaries.vectors(lines) == ["ok"] + ["wrong-image"] * 5


def test_valgrind_finds_nothing_in_what_the_vectors_reach(tmp_path: Path) -> None:
    tools.ensure(print, {**tools.COMPILER, "valgrind": "valgrind"})
    plain = built(tmp_path, "SANITIZE=")
    some = [judged(vector) for vector in MANIFESTS["manifests"][::9]]
    answers = plain.vectors(some, "valgrind", "-q", "--error-exitcode=9", "--leak-check=full", "--track-origins=no")
    assert len(answers) == len(some)
