"""The two forms of a signed message, and how each is signed and verified. Standard library only.

Binary, the default (form 2; all numbers big-endian):

    offset  bytes   what
    0       1       2, the form
    1       1       1, the algorithm: HMAC-SHA-256 (RFC 2104, FIPS 180-4), not truncated
    2       2       number of the key, 1 to 65535
    4       8       sequence number, below 2^63
    12      8       time of the message, milliseconds since 1970-01-01 UTC, below 2^63 / 10^6
    20      n       content, as the device made it: 1 to 4096 bytes
    20+n    32      HMAC-SHA-256 of: `gatehouse message 2` and a zero byte; the length of the topic, 2 bytes; the topic;
                    everything before the signature

JSON (form 1): an object with `sig`, the HMAC-SHA-256 in lower-case hex of the object without `sig` as Python's
`json.dumps(…, sort_keys=True)` writes it, `timestamp` (seconds since 1970, a number), and where there is one `seq`
(whole number) and `device` (its name). Neither topic nor number of the key are signed.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

from gatehouse.messages.refusal import MessageError, Refused
from gatehouse.messages.topics import parse

LARGEST_CONTENT = 4096
"""Bytes of what one message may tell."""
KEY_BYTES = 32

_HEADER = struct.Struct(">BBHQQ")
_TAG = 32
_LABEL = b"gatehouse message 2\0"
LARGEST = _HEADER.size + LARGEST_CONTENT + _TAG
"""Bytes of a message, in either form."""
HIGHEST_SEQUENCE = 2**63 - 1
LATEST_MS = HIGHEST_SEQUENCE // 10**6
"""A database's nanoseconds since 1970 have 63 bits."""

Keys = Mapping[str, Mapping[int, bytes]]
"""The keys of each device, by number."""


class Message(NamedTuple):
    """A message whose signature is right: who, what kind, in which form, and what is signed. Time in ms, UTC."""

    device: str
    kind: str
    form: int
    key_number: int
    sequence: int
    time_ms: int
    content: bytes


def sign(key: bytes, topic: str, content: bytes, *, number: int, sequence: int, time_ms: int) -> bytes:
    """The message in the binary form. `key` has 32 bytes. Raises `MessageError`."""
    _check_key(key)
    try:
        parse(topic)
    except Refused:
        raise MessageError(f"topic {topic[:80]!r}: use devices/NAME/telemetry/KIND") from None
    if not 1 <= len(content) <= LARGEST_CONTENT:
        raise MessageError(f"content of {len(content)} bytes: send 1 to {LARGEST_CONTENT}")
    if not (1 <= number <= 0xFFFF and 0 <= sequence <= HIGHEST_SEQUENCE and 0 <= time_ms <= LATEST_MS):
        raise MessageError(f"key {number}, sequence {sequence}, time {time_ms}: one of them is out of its range")
    signed = _HEADER.pack(2, 1, number, sequence, time_ms) + content
    return signed + _tag(key, topic, signed)


def sign_json(key: bytes, fields: Mapping[str, Any]) -> bytes:
    """The message in the JSON form; `fields` has `timestamp`. Raises `MessageError`."""
    _check_key(key)
    try:
        canonical = json.dumps({k: v for k, v in fields.items() if k != "sig"}, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise MessageError(f"fields: {error}; give an object of numbers, texts and truths") from None
    signature = hmac.new(key, canonical.encode(), hashlib.sha256).hexdigest()
    message = json.dumps({**fields, "sig": signature}).encode()
    if len(message) > LARGEST:
        raise MessageError(f"a message of {len(message)} bytes: send at most {LARGEST}")
    return message


def verify(keys: Keys, topic: str, data: bytes, *, json_form: bool = False) -> Message:
    """What was signed. `json_form` allows the JSON form, too. Raises `Refused` for everything else, whatever it is.

    Whether the message is new, `ReplayGuard` tells.
    """
    device, kind = parse(topic)
    if len(data) > LARGEST:
        raise Refused("too-large", f"more than {LARGEST} bytes")
    if data[:1] == b"\x02":
        return _verify_binary(keys, topic, device, kind, bytes(data))
    if data[:1] == b"{":
        if not json_form:
            raise Refused("form-not-allowed", "the site takes the binary form only")
        return _verify_json(keys, device, kind, bytes(data))
    raise Refused("no-message", "it starts like neither form")


def _verify_binary(keys: Keys, topic: str, device: str, kind: str, data: bytes) -> Message:
    if len(data) <= _HEADER.size + _TAG:
        raise Refused("no-message", "it is too short")
    _, algorithm, number, sequence, time_ms = _HEADER.unpack_from(data)
    if algorithm != 1 or sequence > HIGHEST_SEQUENCE or time_ms > LATEST_MS:
        raise Refused("no-message", "a number in its header is out of its range")
    signed = data[:-_TAG]
    key = _keys_of(keys, device).get(number)
    if key is None:
        raise Refused("unknown-key", f"key {number}")
    if not hmac.compare_digest(_tag(key, topic, signed), data[-_TAG:]):
        raise Refused("bad-signature")
    return Message(device, kind, 2, number, sequence, time_ms, signed[_HEADER.size :])


def _verify_json(keys: Keys, device: str, kind: str, data: bytes) -> Message:
    fields = read_object(data)
    signature, when = fields.pop("sig", None), fields.get("timestamp")
    try:
        given = bytes.fromhex(signature) if isinstance(signature, str) and len(signature) == 2 * _TAG else b""
        # A text of lone surrogates can be written down, and be signed: it is escaped.
        canonical = json.dumps(fields, sort_keys=True).encode()
    except (ValueError, RecursionError):
        raise Refused("not-json") from None
    theirs = _keys_of(keys, device)
    matching = [n for n, key in theirs.items() if hmac.compare_digest(hmac.digest(key, canonical, "sha256"), given)]
    if not matching:
        raise Refused("bad-signature")
    if fields.get("device", device) != device:
        raise Refused("bad-signature", "it was signed for another device")
    if isinstance(when, bool) or not isinstance(when, int | float) or not 0 <= when <= LATEST_MS // 1000:
        raise Refused("no-message", "without timestamp, or with one out of range")
    time_ms = math.floor(when * 1000)
    sequence = fields.get("seq", time_ms)
    if type(sequence) is not int or not 0 <= sequence <= HIGHEST_SEQUENCE:
        raise Refused("no-message", "seq is out of its range")
    content = {k: v for k, v in fields.items() if k not in ("timestamp", "seq", "device")}
    return Message(device, kind, 1, matching[0], sequence, time_ms, json.dumps(content).encode())


def read_object(data: bytes) -> dict[str, Any]:
    """A JSON object (RFC 8259). Raises `Refused` also for a name twice, NaN and Infinity, and too deep a nesting."""
    try:
        found = _DECODER.decode(data.decode())
    except (ValueError, RecursionError):
        raise Refused("not-json") from None
    if type(found) is not dict:
        raise Refused("not-json", "it is no object")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(name)


_DECODER = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_constant)


def _keys_of(keys: Keys, device: str) -> Mapping[int, bytes]:
    theirs = keys.get(device)
    if not theirs:
        raise Refused("unknown-device")
    return theirs


def _tag(key: bytes, topic: str, signed: bytes) -> bytes:
    where = topic.encode()
    return hmac.digest(key, b"".join((_LABEL, len(where).to_bytes(2, "big"), where, signed)), "sha256")


def _check_key(key: bytes) -> None:
    if len(key) != KEY_BYTES:
        raise MessageError(f"a key of {len(key)} bytes: it must have {KEY_BYTES}")
