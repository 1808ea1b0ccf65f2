"""Signed messages: what is taken, and that nothing else is."""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatehouse.messages import KEY_BYTES, LARGEST, MessageError, Refused, ReplayGuard, Window, sign, sign_json, verify
from gatehouse.messages.points import point
from gatehouse.messages.replay import WIDTH
from gatehouse.messages.topics import parse

KEY, OTHER_KEY = bytes(range(32)), bytes(range(32, 64))
KEYS = {"kitchen-01": {1: KEY, 2: OTHER_KEY}, "pump-02": {1: OTHER_KEY}}
TOPIC = "devices/kitchen-01/telemetry/climate"
CONTENT = b'{"temperature": 21.5}'
NOW = 1_790_000_000_000
GOOD = sign(KEY, TOPIC, CONTENT, number=1, sequence=7, time_ms=NOW)
FIELDS = {"device": "kitchen-01", "temperature": 21.5, "timestamp": NOW / 1000, "seq": 7}
GOOD_JSON = sign_json(KEY, FIELDS)


def reason(data: bytes, topic: str = TOPIC, keys: object = KEYS, **options: bool) -> str:
    with pytest.raises(Refused) as refused:
        verify(keys, topic, data, **options)  # type: ignore[arg-type]
    return refused.value.reason


# what is taken


def test_a_message_tells_who_sent_what_and_when() -> None:
    found = verify(KEYS, TOPIC, GOOD)
    assert (found.device, found.kind, found.form, found.key_number) == ("kitchen-01", "climate", 2, 1)
    assert (found.sequence, found.time_ms, found.content) == (7, NOW, CONTENT)


def test_a_message_may_be_signed_with_any_of_the_devices_keys() -> None:
    assert verify(KEYS, TOPIC, sign(OTHER_KEY, TOPIC, CONTENT, number=2, sequence=1, time_ms=NOW)).key_number == 2


def test_the_json_form_is_what_python_makes_of_an_object_with_its_names_sorted() -> None:
    canonical = '{"device": "kitchen-01", "seq": 7, "temperature": 21.5, "timestamp": %s}' % (NOW / 1000)  # noqa: UP031
    signature = hmac.new(KEY, canonical.encode(), hashlib.sha256).hexdigest()
    assert json.loads(GOOD_JSON)["sig"] == signature
    found = verify(KEYS, TOPIC, GOOD_JSON, json_form=True)
    assert (found.form, found.sequence, found.time_ms) == (1, 7, NOW)
    assert json.loads(found.content) == {"temperature": 21.5}


def test_the_order_and_the_spaces_of_a_json_message_do_not_matter() -> None:
    turned = dict(reversed(list(json.loads(GOOD_JSON).items())))
    assert verify(KEYS, TOPIC, json.dumps(turned, indent=2).encode(), json_form=True).sequence == 7


@given(content=st.binary(min_size=1, max_size=300), sequence=st.integers(0, 2**63 - 1), number=st.sampled_from([1, 2]))
def test_whatever_is_signed_is_read_as_it_was(content: bytes, sequence: int, number: int) -> None:
    made = sign(KEYS["kitchen-01"][number], TOPIC, content, number=number, sequence=sequence, time_ms=NOW)
    found = verify(KEYS, TOPIC, made)
    assert (found.content, found.sequence, found.key_number) == (content, sequence, number)


# what is refused


def test_no_bit_of_a_message_can_be_changed() -> None:
    for place in range(8 * len(GOOD)):
        changed = bytearray(GOOD)
        changed[place // 8] ^= 1 << place % 8
        with pytest.raises(Refused):
            verify(KEYS, TOPIC, bytes(changed), json_form=True)
    assert verify(KEYS, TOPIC, GOOD)


@pytest.mark.parametrize("cut", [0, 1, 20, 51, 52, len(GOOD) - 1])
def test_a_message_that_is_cut_off_or_longer_is_refused(cut: int) -> None:
    assert reason(GOOD[:cut]) in ("no-message", "bad-signature")
    assert reason(GOOD + b"\0" * (cut + 1)) == "bad-signature"


def test_a_message_counts_under_its_own_topic_only() -> None:
    assert reason(GOOD, "devices/kitchen-01/telemetry/power") == "bad-signature"
    assert reason(GOOD, "devices/pump-02/telemetry/climate") == "bad-signature"
    assert reason(GOOD_JSON, "devices/pump-02/telemetry/climate", json_form=True) == "bad-signature"


def test_a_json_message_for_another_device_is_refused_even_with_the_same_key() -> None:
    same = {"pump-02": {1: KEY}}
    assert reason(GOOD_JSON, "devices/pump-02/telemetry/climate", same, json_form=True) == "bad-signature"
    without = sign_json(KEY, {name: value for name, value in FIELDS.items() if name != "device"})
    assert verify(same, "devices/pump-02/telemetry/climate", without, json_form=True)


def test_unknown_devices_and_keys_are_refused() -> None:
    assert reason(GOOD, "devices/garage-03/telemetry/climate") == "unknown-device"
    assert reason(sign(KEY, TOPIC, CONTENT, number=9, sequence=7, time_ms=NOW)) == "unknown-key"


def test_the_json_form_is_refused_where_the_site_does_not_allow_it() -> None:
    assert reason(GOOD_JSON) == "form-not-allowed"
    assert verify(KEYS, TOPIC, GOOD_JSON, json_form=True)


def signed_as(text: bytes) -> bytes:
    return hmac.digest(KEY, text, "sha256").hex().encode()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no-message"),
        (b"temperature 21", "no-message"),
        (b"\xff\xfe{}", "no-message"),
        (b"\x02" * 40, "no-message"),
        (b"\x02\x02" + GOOD[2:], "no-message"),
        (b"{}", "bad-signature"),
        (b'{"temperature": 21.5}', "bad-signature"),
        (b'{"temperature": 21.5, "sig": 5}', "bad-signature"),
        (b'{"temperature": 21.5, "sig": "%s"}' % (b"zz" * 32), "not-json"),
        (b'{"temperature": NaN, "sig": "%s"}' % signed_as(b'{"temperature": NaN}'), "not-json"),
        (b'{"temperature": -Infinity}', "not-json"),
        (b'{"a": 1, "a": 1, "sig": "%s"}' % signed_as(b'{"a": 1}'), "not-json"),
        (b'{"a": "\xff\xfe"}', "not-json"),
        (b"{" * 4000, "not-json"),
        (b"""{"a":""" * 600 + b"1" + b"}" * 600, "bad-signature"),
        (b'{"a":' + b"[" * 2000 + b"]" * 2000 + b"}", "not-json"),
        (b'{"a": 1' + b"0" * 4100 + b"}", "bad-signature"),
        (b"{" + b" " * (10 << 20) + b"}", "too-large"),
        (b"\x02" * (LARGEST + 1), "too-large"),
        (b'{"a": 1, "sig": "%s"}' % signed_as(b'{"a": 1}'), "no-message"),
        (b'{"timestamp": true, "sig": "%s"}' % signed_as(b'{"timestamp": true}'), "no-message"),
        (b'{"timestamp": 1e400, "sig": "%s"}' % signed_as(b'{"timestamp": Infinity}'), "no-message"),
        (b'{"seq": 1.5, "timestamp": 5, "sig": "%s"}' % signed_as(b'{"seq": 1.5, "timestamp": 5}'), "no-message"),
    ],
)
def test_what_is_no_message_is_refused_with_the_reason(data: bytes, why: str) -> None:
    assert reason(data, json_form=True) == why
    assert verify(KEYS, TOPIC, GOOD_JSON, json_form=True) and verify(KEYS, TOPIC, GOOD)


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "devices",
        "devices/kitchen-01/telemetry",
        "devices/kitchen-01/telemetry/",
        "devices/kitchen-01/telemetry/a/b",
        "devices/kitchen-01/telemetry/Climate",
        "devices/kitchen-01/telemetry/a b",
        "devices/kitchen-01/telemetry/a,b=c",
        "devices/kitchen-01/telemetry/climate\n",
        "devices/kitchen-01/status",
        "devices//telemetry/climate",
        "devices/+/telemetry/climate",
        "devices/-a/telemetry/climate",
        "devices/" + "a" * 64 + "/telemetry/climate",
        "devices/kitchen-01/telemetry/" + "a" * 33,
        "/devices/kitchen-01/telemetry/climate",
        "$SYS/broker",
        "dEvices/kitchen-01/telemetry/climate",
    ],
)
def test_other_topics_are_refused(topic: str) -> None:
    assert reason(GOOD, topic) == "wrong-topic"
    with pytest.raises(MessageError, match="use devices/NAME/telemetry/KIND"):
        sign(KEY, topic, CONTENT, number=1, sequence=1, time_ms=NOW)


def test_a_topic_tells_the_device_and_the_kind() -> None:
    assert parse(TOPIC) == ("kitchen-01", "climate")
    assert parse("devices/" + "a" * 63 + "/telemetry/" + "b" * 32) == ("a" * 63, "b" * 32)


@pytest.mark.parametrize(
    "bad",
    [
        {"key": KEY[:-1]},
        {"content": b""},
        {"content": b"x" * 4097},
        {"number": 0},
        {"number": 65536},
        {"sequence": -1},
        {"sequence": 2**63},
        {"time_ms": -1},
        {"time_ms": 2**63 // 10**6 + 1},
    ],
)
def test_what_nobody_would_take_is_not_signed(bad: dict[str, object]) -> None:
    good = {"key": KEY, "topic": TOPIC, "content": CONTENT, "number": 1, "sequence": 1, "time_ms": NOW}
    with pytest.raises(MessageError):
        sign(**{**good, **bad})  # type: ignore[arg-type]
    assert verify(KEYS, TOPIC, sign(**good))  # type: ignore[arg-type]


@pytest.mark.parametrize("fields", [{"a": math.nan}, {"a": {1}}, {"a": "x" * 5000}])
def test_what_nobody_would_take_is_not_signed_as_json(fields: dict[str, object]) -> None:
    with pytest.raises(MessageError):
        sign_json(KEY, fields)


def test_no_error_shows_a_key_or_what_was_sent() -> None:
    secret = b"swordfish"
    for data in (GOOD[:-1] + b"\0", b'{"a": "swordfish"}', b"\x02" + secret * 20):
        with pytest.raises(Refused) as refused:
            verify(KEYS, TOPIC, data, json_form=True)
        said = str(refused.value) + repr(refused.value)
        assert "swordfish" not in said and KEY.hex() not in said
    assert KEY_BYTES == 32


# random input: GATEHOUSE_EXAMPLES says how much; tests/fuzz/readers.py goes on for as long as one likes
EXAMPLES = int(os.environ.get("GATEHOUSE_EXAMPLES", "500"))

_pieces = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=100).map(str.encode),
    st.builds(lambda head, rest: head + rest, st.sampled_from([b"\x02\x01", b'{"sig":"', GOOD[:30]]), st.binary()),
    st.builds(
        lambda at, byte: GOOD[:at] + bytes([byte]) + GOOD[at + 1 :], st.integers(0, len(GOOD) - 1), st.integers(0, 255)
    ),
    st.dictionaries(st.text(max_size=5), st.none() | st.floats() | st.integers() | st.text(max_size=5), max_size=4).map(
        lambda found: json.dumps(found).encode()
    ),
)


@settings(max_examples=EXAMPLES)
@given(data=_pieces)
def test_no_bytes_crash_the_verifier_and_none_are_taken(data: bytes) -> None:
    if data == GOOD:
        return
    with pytest.raises(Refused):
        verify(KEYS, TOPIC, data, json_form=True)


@settings(max_examples=EXAMPLES)
@given(topic=st.one_of(st.text(), st.from_regex(r"devices/[a-z+#/-]*/telemetry/.*", fullmatch=True)))
def test_no_text_crashes_the_reader_of_topics(topic: str) -> None:
    try:
        device, kind = parse(topic)
    except Refused as refused:
        assert refused.reason == "wrong-topic"
    else:
        assert topic == f"devices/{device}/telemetry/{kind}"


# replays, and clocks


def guard() -> ReplayGuard:
    return ReplayGuard(max_age_ms=3_600_000, max_ahead_ms=300_000)


def message(sequence: int, ago_ms: int = 0, number: int = 1, device: str = "kitchen-01"):
    keys = KEYS[device]
    topic = f"devices/{device}/telemetry/climate"
    made = sign(keys[number], topic, CONTENT, number=number, sequence=sequence, time_ms=NOW - ago_ms)
    return verify(KEYS, topic, made)


def refusal(judge: ReplayGuard, *arguments: object) -> str:
    with pytest.raises(Refused) as refused:
        judge.admit(*arguments)  # type: ignore[arg-type]
    return refused.value.reason


def test_a_message_counts_once() -> None:
    judge = guard()
    judge.admit(message(7), NOW)
    assert refusal(judge, message(7), NOW) == "replay"
    judge.admit(message(8), NOW)


def test_devices_and_keys_have_sequence_numbers_of_their_own() -> None:
    judge = guard()
    judge.admit(message(7), NOW)
    judge.admit(message(7, number=2), NOW)
    judge.admit(message(7, device="pump-02"), NOW)
    assert refusal(judge, message(7, device="pump-02"), NOW) == "replay"


def test_messages_may_come_late_but_not_later_than_can_be_remembered() -> None:
    judge = guard()
    judge.admit(message(10_000), NOW)
    judge.admit(message(10_000 - WIDTH + 1), NOW)
    assert refusal(judge, message(10_000 - WIDTH + 1), NOW) == "replay"
    assert refusal(judge, message(10_000 - WIDTH), NOW) == "replay"


@given(st.lists(st.integers(0, 30) | st.integers(0, 3 * WIDTH), max_size=60))
def test_a_window_remembers_what_a_list_of_all_would(sequences: list[int]) -> None:
    window, seen = Window(), set()
    for sequence in sequences:
        expected = sequence not in seen and sequence > max(seen, default=-1) - WIDTH
        assert window.is_new(sequence) == expected
        if expected:
            window.add(sequence)
            seen.add(sequence)
        assert window.seen < 1 << WIDTH


def test_what_is_too_old_or_from_the_future_is_refused() -> None:
    day = 86_400_000
    assert refusal(guard(), message(1, ago_ms=day), NOW) == "too-old"
    assert refusal(guard(), message(1, ago_ms=-day), NOW) == "from-the-future"
    guard().admit(message(1, ago_ms=3_599_000), NOW)
    guard().admit(message(1, ago_ms=-299_000), NOW)


def test_a_message_that_is_refused_for_its_age_does_not_use_up_its_number() -> None:
    judge = guard()
    assert refusal(judge, message(9, ago_ms=-400_000), NOW) == "from-the-future"
    judge.admit(message(9), NOW)


def test_what_waited_while_nobody_received_is_not_too_old_for_that() -> None:
    day = 86_400_000
    guard().admit(message(1, ago_ms=day), NOW, NOW - day)
    assert refusal(guard(), message(1, ago_ms=day + 3_700_000), NOW, NOW - day) == "too-old"
    # A clock that was set back does not widen what is allowed.
    assert refusal(guard(), message(1, ago_ms=day), NOW, NOW + day) == "too-old"


def test_a_key_that_was_replaced_begins_anew() -> None:
    judge = guard()
    judge.admit(message(7), NOW)
    judge.forget(("kitchen-01", 1))
    judge.admit(message(3), NOW)


# points


def line(content: bytes, sequence: int = 7) -> str:
    made = sign(KEY, TOPIC, content, number=1, sequence=sequence, time_ms=NOW)
    return point(verify(KEYS, TOPIC, made))[0]


def test_a_message_is_one_line_of_the_line_protocol() -> None:
    assert line(b'{"temperature": 21.5, "on": true, "n": 3, "text": "a \\"b\\" \\\\"}') == (
        "telemetry,device=kitchen-01,kind=climate "
        'seq=7i,temperature=21.5,on=true,n=3.0,text="a \\"b\\" \\\\" 1790000000000000007'
    )


def test_two_messages_of_one_millisecond_are_two_points_and_the_same_is_one() -> None:
    assert line(CONTENT, 7).split()[-1] != line(CONTENT, 8).split()[-1]
    assert line(CONTENT, 7) == line(CONTENT, 7)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"21.5", "not-json"),
        (b"[1]", "not-json"),
        (b"\xff", "not-json"),
        (b'{"a": NaN}', "not-json"),
        (b'{"a": 1, "a": 2}', "not-json"),
        (b"[" * 4000, "not-json"),
        (b"{}", "not-flat"),
        (b'{"a": null}', "not-flat"),
        (b'{"a": {"b": 1}}', "not-flat"),
        (b'{"a": 1e400}', "not-flat"),
        (b'{"a": 1' + b"0" * 400 + b"}", "not-flat"),
        (b'{"a b": 1}', "not-flat"),
        (b'{"a=1,b": 1}', "not-flat"),
        (b'{"seq": 1}', "not-flat"),
        (b'{"device": "pump-02"}', "not-flat"),
        (b'{"a": "two\\nlines"}', "not-flat"),
        (b'{"a": "\\ud800"}', "not-flat"),
        (json.dumps({"a": "x" * 257}).encode(), "not-flat"),
        (json.dumps({f"f{n}": n for n in range(65)}).encode(), "not-flat"),
    ],
)
def test_signed_content_that_is_no_measurement_is_refused(content: bytes, why: str) -> None:
    with pytest.raises(Refused) as refused:
        line(content)
    assert refused.value.reason == why
    assert line(CONTENT)


@settings(max_examples=300)
@given(
    st.dictionaries(
        st.text(max_size=8) | st.from_regex(r"[a-z]{1,5}", fullmatch=True),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=300) | st.lists(st.integers()),
        max_size=5,
    )
)
def test_no_content_breaks_out_of_its_line(fields: dict[str, object]) -> None:
    try:
        made = line(json.dumps(fields).encode())
    except (Refused, MessageError):
        return
    assert len(made.splitlines()) == 1
    assert made.startswith("telemetry,device=kitchen-01,kind=climate seq=7i,") and made.endswith(" 1790000000000000007")
