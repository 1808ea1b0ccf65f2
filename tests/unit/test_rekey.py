"""A device's next key on its way: who has the one in use takes it up, and nobody reads or forges it."""

from __future__ import annotations

import pytest

from gatehouse.messages import MessageError
from gatehouse.messages.forms import sign
from gatehouse.messages.rekey import command_topic, unwrap, wrap

USED, NEW, NONCE = bytes(range(32)), bytes(range(100, 132)), bytes(range(200, 216))
TEXT = wrap(USED, "kitchen-01", (2, 1), NEW, NONCE)


def test_who_has_the_key_in_use_gets_the_new_one_and_its_number() -> None:
    assert unwrap({1: USED}, "kitchen-01", TEXT) == (2, NEW)
    assert unwrap({1: USED}, "kitchen-01", TEXT.strip()) == (2, NEW)
    assert command_topic("kitchen-01") == "devices/kitchen-01/commands/identity/hmac-key"


def test_the_text_is_always_the_same_for_other_implementations() -> None:
    assert TEXT == (
        "2 1 c8c9cacbcccdcecfd0d1d2d3d4d5d6d7"
        " dfb2002130af92aa8be8b61599dad95c0bd106a0c727bc9d840c138d0716e78a"
        " aac15e1ae4631a582342d4755c59daea79a17060457deaf4a875106e394bffbc\n"
    )


def test_it_says_nothing_of_either_key_and_is_another_each_time() -> None:
    other = wrap(USED, "kitchen-01", (2, 1), NEW, bytes(16))
    for key in (USED, NEW):
        assert key.hex() not in TEXT and key.hex()[:16] not in TEXT
    assert set(TEXT.split()[2:]).isdisjoint(other.split()[2:])


@pytest.mark.parametrize("place", range(len(TEXT) - 1))
def test_whatever_is_changed_on_the_way_is_refused(place: int) -> None:
    changed = TEXT[:place] + ("3" if TEXT[place] != "3" else "4") + TEXT[place + 1 :]
    with pytest.raises(MessageError):
        unwrap({1: USED, 3: USED, 4: USED}, "kitchen-01", changed)


@pytest.mark.parametrize(
    ("keys", "name"), [({}, "kitchen-01"), ({1: NEW}, "kitchen-01"), ({2: USED}, "kitchen-01"), ({1: USED}, "pump-02")]
)
def test_it_is_of_use_to_no_other_device_and_no_other_key(keys: dict[int, bytes], name: str) -> None:
    with pytest.raises(MessageError):
        unwrap(keys, name, TEXT)


@pytest.mark.parametrize("text", ["", "2 1", "a b c d e", TEXT * 2, TEXT.upper(), "0" + TEXT, "2 1 " + "x" * 5000])
def test_what_is_no_new_key_is_refused(text: str) -> None:
    with pytest.raises(MessageError, match="no new key"):
        unwrap({1: USED}, "kitchen-01", text)


def test_a_signed_message_is_no_new_key_and_the_other_way_round() -> None:
    made = sign(USED, "devices/kitchen-01/telemetry/climate", b"{}", number=1, sequence=1, time_ms=1)
    assert made[-32:].hex() not in TEXT


@pytest.mark.parametrize("wrong", [{"new": b"x"}, {"nonce": b""}, {"numbers": (0, 1)}, {"numbers": (65536, 1)}])
def test_a_key_of_the_wrong_size_is_not_sent(wrong: dict[str, object]) -> None:
    good: dict[str, object] = {"used": USED, "name": "kitchen-01", "numbers": (2, 1), "new": NEW, "nonce": NONCE}
    with pytest.raises(MessageError):
        wrap(**{**good, **wrong})  # type: ignore[arg-type]
