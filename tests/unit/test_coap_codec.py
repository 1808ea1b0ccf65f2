"""CoAP's messages as RFC 7252 has them, and what becomes of requests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatehouse.coap import codec, resource
from gatehouse.coap.codec import CON, NON, POST, Malformed, Message, code, code_text, decode, encode
from gatehouse.coap.resource import Answer, Report, judge

TOPIC = "devices/kitchen-01/telemetry/climate"


def posted(
    topic: str = TOPIC, *options: tuple[int, bytes], method: int = POST, payload: bytes = b"\x02message"
) -> Message:
    path = tuple((codec.URI_PATH, part.encode()) for part in topic.split("/"))
    return Message(CON, method, 7, b"\x01", (*path, *options), payload)


def test_a_message_of_the_standards_own_example_is_read() -> None:
    """RFC 7252 appendix A, figure 16: GET /temperature, and its answer."""
    request = bytes.fromhex("40017d34bb74656d7065726174757265")
    assert decode(request) == Message(CON, 1, 0x7D34, b"", ((codec.URI_PATH, b"temperature"),))
    answer = bytes.fromhex("60457d34ff32322e332043")
    assert decode(answer) == Message(codec.ACK, code("2.05"), 0x7D34, payload=b"22.3 C")
    assert encode(decode(request)) == request and encode(decode(answer)) == answer


@given(
    st.integers(0, 3),
    st.integers(1, 255),
    st.integers(0, 0xFFFF),
    st.binary(max_size=8),
    st.lists(st.tuples(st.integers(0, 0xFFFF), st.binary(max_size=600)), max_size=8),
    st.binary(max_size=100),
)
def test_what_is_written_is_read_as_it_was(
    kind: int, what: int, number: int, token: bytes, options: list[tuple[int, bytes]], payload: bytes
) -> None:
    ordered = tuple(sorted(options, key=lambda entry: entry[0]))
    message = Message(kind, what, number, token, ordered, payload)
    assert decode(encode(message)) == message


@given(st.binary(max_size=200))
def test_nothing_that_comes_is_more_than_malformed(data: bytes) -> None:
    try:
        message = decode(data)
    except Malformed as error:
        assert error.number is None or 0 <= error.number <= 0xFFFF
    else:
        judge(message, "kitchen-01")


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ("", None),
        ("400100", None),
        ("00010007", None),  # version 0
        ("49010007" + "00" * 9, 7),  # a token of nine bytes
        ("59010007" + "00" * 9, None),  # the same, asking for no confirmation
        ("42010007aa", 7),  # a token that is cut off
        ("40000007ff", 7),  # empty, and something behind it
        ("40010007ff", 7),  # a marker without a payload
        ("40010007f0", 7),  # a delta of 15
        ("400100070f", 7),
        ("40010007d0", 7),
        ("40010007b5616263", 7),  # an option that is cut off
        ("40010007e0ffffe0ffff", 7),  # an option beyond the last
    ],
)
def test_what_is_malformed_says_which_message_a_reset_would_name(data: str, named: int | None) -> None:
    with pytest.raises(Malformed) as told:
        decode(bytes.fromhex(data))
    assert told.value.number == named


def test_codes_and_numbers_are_written_as_in_the_standard() -> None:
    assert (code("2.04"), code("4.15"), code_text(0xA3)) == (68, 143, "5.03")
    assert codec.value_of(0) == b"" and codec.value_of(1024) == b"\x04\x00"
    assert codec.number_of(b"") == 0 and codec.number_of(b"\x04\x00") == 1024
    assert Message(NON, 31, 0).is_request and not Message(NON, 0, 0).is_request and not Message(NON, 64, 0).is_request
    with pytest.raises(ValueError, match="token of 9"):
        encode(Message(CON, 1, 1, bytes(9)))


def test_a_device_posts_under_its_own_topic() -> None:
    assert judge(posted(), "kitchen-01") == Report(TOPIC, b"\x02message")
    octets = (codec.CONTENT_FORMAT, bytes([codec.OCTET_STREAM]))
    where = (codec.URI_HOST, b"coap.home.arpa"), (codec.URI_PORT, b"\x16\x34")
    whole = (codec.BLOCK1, b"\x06"), (codec.BLOCK2, b"\x06"), (codec.ACCEPT, b"\x2a")
    hint = (codec.SIZE1, b"\x08"), (258, b"\x02")  # elective ones that nobody knows
    assert judge(posted(TOPIC, octets, *where, *whole, *hint), "kitchen-01") == Report(TOPIC, b"\x02message")
    largest = posted(payload=bytes(resource.LARGEST))
    assert judge(largest, "kitchen-01") == Report(TOPIC, bytes(resource.LARGEST))


@pytest.mark.parametrize(
    ("request_", "wanted"),
    [
        (posted("devices/pump-02/telemetry/climate"), "4.03"),
        (posted("devices/pump-02/telemetry/climate", method=1), "4.03"),
        (posted("devices/kitchen-01/commands/climate"), "4.04"),
        (posted("devices/kitchen-01/telemetry"), "4.04"),
        (posted("devices/kitchen-01/telemetry/a/b"), "4.04"),
        (posted("devices/+/telemetry/climate"), "4.04"),
        (posted("devices/kitchen-01/telemetry/#"), "4.04"),
        (posted(".well-known/core", method=1), "4.04"),
        (posted(""), "4.04"),
        (posted("devices/kitchen-01/telemetry/küche"), "4.04"),
        (posted(method=1), "4.05"),
        (posted(method=3), "4.05"),
        (posted(method=4), "4.05"),
        (posted(TOPIC, (codec.CONTENT_FORMAT, b"\x32")), "4.15"),
        (posted(TOPIC, (codec.CONTENT_FORMAT, b"")), "4.15"),
        (posted(payload=b""), "4.00"),
        (posted(payload=bytes(resource.LARGEST + 1)), "4.13"),
        (posted(TOPIC, (codec.BLOCK1, b"\x0e")), "4.13"),
        (posted(TOPIC, (codec.BLOCK1, b"\x16")), "4.13"),
        (posted(TOPIC, (codec.URI_QUERY, b"x=1")), "4.02"),
        (posted(TOPIC, (codec.IF_NONE_MATCH, b"")), "4.02"),
        (posted(TOPIC, (9, b"oscore")), "4.02"),
        (posted(TOPIC, (codec.PROXY_SCHEME, b"coap")), "5.05"),
        (posted(TOPIC, (codec.PROXY_URI, b"coap://other/")), "5.05"),
    ],
)
def test_everything_else_is_answered_with_a_code(request_: Message, wanted: str) -> None:
    found = judge(request_, "kitchen-01")
    assert isinstance(found, Answer) and code_text(found.code) == wanted
    assert (wanted == "4.13") == ((codec.SIZE1, b"\x04\x00") in found.options)
