"""The fuzzers of device/fuzz, a few thousand inputs each; `make -C device fuzz` builds them with libFuzzer for more."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.device.bench import DEVICE, Binaries, built
from tests.unit.test_firmware_signing import an_esp_image

VECTORS = DEVICE / "vectors"
MANIFESTS = json.loads((VECTORS / "manifests.json").read_text())
RELEASE = bytes.fromhex(MANIFESTS["manifests"][0]["file"])
MESSAGE = next(v for v in json.loads((VECTORS / "messages.json").read_text())["messages"] if v["expect"] == "good")


@pytest.fixture(scope="module")
def trials(binaries: Binaries) -> Path:
    return built(binaries.place, "trials").place


@pytest.mark.parametrize(
    ("name", "seed", "inputs"),
    [
        ("manifest", RELEASE, 2000),
        ("image", an_esp_image(9, "1.4.2", 288), 100_000),
        ("message", bytes.fromhex(MESSAGE["message"]), 50_000),
        ("answer", b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n" + b"firmware " * 100, 500),
        ("answer", b"HTTP/1.1 200 OK\r\nContent-Length: 512\r\n\r\n" + RELEASE, 500),
    ],
    ids=["manifest", "image", "message", "answer", "manifest-in-answer"],
)
def test_changed_inputs_do_nothing_undefined(trials: Path, name: str, seed: bytes, inputs: int) -> None:
    command = [str(trials / f"fuzz_{name}-trial"), str(inputs)]
    done = subprocess.run(command, input=seed, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr.decode()


def test_the_release_that_fuzzing_starts_from_is_the_vector() -> None:
    numbers = re.findall(r"0x([0-9a-f]{2})", (DEVICE / "fuzz" / "release.h").read_text())
    assert bytes.fromhex("".join(numbers)) == RELEASE + bytes.fromhex("".join(MANIFESTS["device"]["keys"]))
