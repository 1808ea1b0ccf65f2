"""The manifests in device/vectors: what the signing desk and the C library must agree on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gatehouse.updates import REASONS, Device, Refused, choose

VECTORS = json.loads((Path(__file__).parents[2] / "device" / "vectors" / "manifests.json").read_text())


def device_of(vector: dict[str, Any]) -> Device:
    facts = {**VECTORS["device"], **vector["device"]}
    return Device(**{**facts, "keys": tuple(bytes.fromhex(key) for key in facts["keys"])})


@pytest.mark.parametrize("vector", VECTORS["manifests"], ids=lambda vector: str(vector["name"]))
def test_a_file_is_judged_as_it_stands_there(vector: dict[str, Any]) -> None:
    if vector["expect"] == "take":
        assert choose(bytes.fromhex(vector["file"]), device_of(vector)).counter == vector["counter"]
    else:
        with pytest.raises(Refused) as refused:
            choose(bytes.fromhex(vector["file"]), device_of(vector))
        assert refused.value.reason == vector["expect"]


def test_every_reason_has_a_vector() -> None:
    assert {vector["expect"] for vector in VECTORS["manifests"]} == {*REASONS, "take"}


def test_no_bit_of_a_signed_release_can_be_changed() -> None:
    data, device = bytes.fromhex(VECTORS["manifests"][0]["file"]), device_of(VECTORS["manifests"][0])
    assert choose(data, replace(device)).version == "1.4.2"
    for bit in range(0, 8 * len(data), 7):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Refused):
            choose(bytes(changed), device)
