"""What a device may ask for: to post a message under its own topic. Everything else has a code of RFC 7252 §5.9."""

from __future__ import annotations

from typing import NamedTuple

from gatehouse.coap import codec
from gatehouse.coap.codec import Message
from gatehouse.messages.refusal import Refused
from gatehouse.messages.topics import parse

LARGEST = 1024
"""Bytes of a signed message: what fits into a datagram that no link on the way takes apart (RFC 7252 §4.6)."""

CHANGED, BAD_REQUEST, UNAUTHORIZED, BAD_OPTION, FORBIDDEN, NOT_FOUND = map(
    codec.code, ("2.04", "4.00", "4.01", "4.02", "4.03", "4.04")
)
NOT_ALLOWED, TOO_LARGE, UNSUPPORTED, UNAVAILABLE, NO_PROXY = map(codec.code, ("4.05", "4.13", "4.15", "5.03", "5.05"))
# Critical options (§5.4.1, odd numbers) that are known; the others end in 4.02. What one would accept as an answer does
# not matter, since answers have no content, and neither does how large its blocks would be.
_KNOWN = frozenset(
    {codec.URI_HOST, codec.URI_PORT, codec.URI_PATH, codec.ACCEPT, codec.BLOCK1, codec.BLOCK2,
     codec.PROXY_URI, codec.PROXY_SCHEME}
)  # fmt: skip


class Report(NamedTuple):
    """What goes to the broker."""

    topic: str
    message: bytes


class Answer(NamedTuple):
    """A code, and options with it."""

    code: int
    options: tuple[tuple[int, bytes], ...] = ()


def judge(request: Message, device: str) -> Report | Answer:
    """What becomes of a request of a device, whose name is that in its certificate."""
    if request.values(codec.PROXY_URI) or request.values(codec.PROXY_SCHEME):
        return Answer(NO_PROXY)
    if any(option & 1 and option not in _KNOWN for option, _ in request.options):
        return Answer(BAD_OPTION)
    try:
        topic = "/".join(part.decode("ascii") for part in request.values(codec.URI_PATH))
        name, _ = parse(topic)
    except (UnicodeDecodeError, Refused):
        return Answer(NOT_FOUND)
    if name != device:
        return Answer(FORBIDDEN)
    if request.code != codec.POST:
        return Answer(NOT_ALLOWED)
    if any(codec.number_of(given) != codec.OCTET_STREAM for given in request.values(codec.CONTENT_FORMAT)):
        return Answer(UNSUPPORTED)
    # No blocks (RFC 7959 §2.9.3): a first one that says that more is to come, or a later one, is too large as such.
    blocks = any(codec.number_of(given) & ~0b111 for given in request.values(codec.BLOCK1))
    if blocks or len(request.payload) > LARGEST:
        return Answer(TOO_LARGE, ((codec.SIZE1, codec.value_of(LARGEST)),))
    if not request.payload:
        return Answer(BAD_REQUEST)
    return Report(topic, request.payload)
