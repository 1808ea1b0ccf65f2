"""Messages of CoAP as they are sent: RFC 7252 §3, read and written. Standard library only."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

CON, NON, ACK, RST = range(4)
EMPTY = 0
POST = 2
"""The codes of requests are 1 to 31, `c.dd` with c = 0 (§12.1.1)."""

IF_MATCH, URI_HOST, IF_NONE_MATCH, URI_PORT, URI_PATH, CONTENT_FORMAT = 1, 3, 5, 7, 11, 12
MAX_AGE, URI_QUERY, ACCEPT, BLOCK2, BLOCK1, PROXY_URI, PROXY_SCHEME, SIZE1 = 14, 15, 17, 23, 27, 35, 39, 60
OCTET_STREAM = 42
"""application/octet-stream among the content formats (§12.3)."""

_HEADER = struct.Struct(">BBH")
_VERSION = 1
_MARKER = 0xFF
_LONGEST_TOKEN = 8


class Malformed(Exception):
    """Bytes that are no message. `number` is its message id where a reset can name it (§4.2), None elsewhere."""

    def __init__(self, why: str, number: int | None = None) -> None:
        super().__init__(why)
        self.number = number


@dataclass(frozen=True)
class Message:
    """A message: its type (`CON`, …), code, message id, token, options in order of their numbers, and payload."""

    kind: int
    code: int
    number: int
    token: bytes = b""
    options: tuple[tuple[int, bytes], ...] = ()
    payload: bytes = field(default=b"", repr=False)

    def values(self, option: int) -> list[bytes]:
        """What stands in an option, each time it is there."""
        return [value for number, value in self.options if number == option]

    @property
    def is_request(self) -> bool:
        """Whether it asks for something."""
        return 0 < self.code < 32


def code(text: str) -> int:
    """`"4.04"` → 132 (§3)."""
    kind, _, detail = text.partition(".")
    return int(kind) << 5 | int(detail)


def code_text(value: int) -> str:
    """132 → `"4.04"`."""
    return f"{value >> 5}.{value & 31:02d}"


def number_of(value: bytes) -> int:
    """An option that holds a number (§3.2)."""
    return int.from_bytes(value, "big")


def value_of(number: int) -> bytes:
    """The same written, without leading zeros."""
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def decode(data: bytes) -> Message:
    """Reads a datagram. Raises `Malformed`."""
    if len(data) < _HEADER.size or data[0] >> 6 != _VERSION:
        raise Malformed("too short, or of another version")
    first, what, number = _HEADER.unpack_from(data)
    kind, length = first >> 4 & 3, first & 15
    # Only what is confirmable is answered with a reset (§4.2, §4.3).
    named = number if kind == CON else None
    at = _HEADER.size + length
    if length > _LONGEST_TOKEN or at > len(data):
        raise Malformed("its token is too long", named)
    if what == EMPTY and len(data) != _HEADER.size:
        raise Malformed("empty, with something behind it", named)
    options: list[tuple[int, bytes]] = []
    option = 0
    while at < len(data) and data[at] != _MARKER:
        delta, size, at = data[at] >> 4, data[at] & 15, at + 1
        delta, at = _extended(data, delta, at, named)
        size, at = _extended(data, size, at, named)
        option += delta
        if at + size > len(data) or option > 0xFFFF:
            raise Malformed("an option that is cut off", named)
        options.append((option, bytes(data[at : at + size])))
        at += size
    if at < len(data) and at + 1 == len(data):
        raise Malformed("a marker with no payload behind it", named)
    return Message(
        kind, what, number, bytes(data[_HEADER.size : _HEADER.size + length]), tuple(options), data[at + 1 :]
    )


def _extended(data: bytes, nibble: int, at: int, named: int | None) -> tuple[int, int]:
    """A delta or a length (§3.1), and where it ends."""
    if nibble < 13:
        return nibble, at
    size, base = (1, 13) if nibble == 13 else (2, 269)
    if nibble == 15 or at + size > len(data):
        raise Malformed("an option that is cut off", named)
    return base + int.from_bytes(data[at : at + size], "big"), at + size


def encode(message: Message) -> bytes:
    """The datagram of a message."""
    if len(message.token) > _LONGEST_TOKEN:
        raise ValueError(f"a token of {len(message.token)} bytes")
    first = _VERSION << 6 | message.kind << 4 | len(message.token)
    parts = [_HEADER.pack(first, message.code, message.number), message.token]
    before = 0
    for option, value in sorted(message.options, key=lambda entry: entry[0]):
        delta, more = _split(option - before)
        size, longer = _split(len(value))
        parts += [bytes([delta << 4 | size]), more, longer, value]
        before = option
    if message.payload:
        parts += [bytes([_MARKER]), message.payload]
    return b"".join(parts)


def _split(value: int) -> tuple[int, bytes]:
    """Four bits, and the bytes that go on where these are not enough."""
    if value < 13:
        return value, b""
    if value < 269:
        return 13, bytes([value - 13])
    return 14, (value - 269).to_bytes(2, "big")
