"""The vectors in device/vectors: what every implementation must agree on, the device's as well as the intake's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gatehouse.messages import Refused, sign, verify

VECTORS = json.loads((Path(__file__).parents[2] / "device" / "vectors" / "messages.json").read_text())
KEYS = {
    device: {int(number): bytes.fromhex(key) for number, key in keys.items()}
    for device, keys in VECTORS["keys"].items()
}
GOOD = [vector for vector in VECTORS["messages"] if vector["expect"] == "good"]
BAD = [vector for vector in VECTORS["messages"] if vector["expect"] != "good"]


def name(vector: dict[str, Any]) -> str:
    return str(vector["name"])


@pytest.mark.parametrize("vector", GOOD, ids=name)
def test_a_good_message_is_read_as_it_stands_there(vector: dict[str, Any]) -> None:
    found = verify(KEYS, vector["topic"], bytes.fromhex(vector["message"]), json_form=True)
    assert (found.form, found.key_number) == (vector["form"], vector["number"])
    assert (found.sequence, found.time_ms) == (vector["sequence"], vector["time_ms"])
    content = bytes.fromhex(vector["content"])
    assert found.content == content if found.form == 2 else json.loads(found.content) == json.loads(content)


@pytest.mark.parametrize("vector", [v for v in GOOD if v["form"] == 2], ids=name)
def test_signing_makes_the_same_bytes(vector: dict[str, Any]) -> None:
    key = KEYS["kitchen-01"][vector["number"]]
    numbers = {"number": vector["number"], "sequence": vector["sequence"], "time_ms": vector["time_ms"]}
    assert sign(key, vector["topic"], bytes.fromhex(vector["content"]), **numbers).hex() == vector["message"]


@pytest.mark.parametrize("vector", BAD, ids=name)
def test_a_bad_message_is_refused_for_the_reason_that_stands_there(vector: dict[str, Any]) -> None:
    with pytest.raises(Refused) as refused:
        verify(KEYS, vector["topic"], bytes.fromhex(vector["message"]), json_form=True)
    assert refused.value.reason == vector["expect"]


def test_there_are_vectors_of_both_kinds() -> None:
    assert len(GOOD) > 5 and len(BAD) > 10
