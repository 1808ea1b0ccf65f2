"""A device's next HMAC key, as it travels to the device: nobody who carries it can read it or put another in its place.

    devices/NAME/commands/identity/hmac-key    down, retained, QoS 1: the text below; empty when it is settled

    NUMBER USED NONCE WRAPPED TAG

One line of five words: the new key's number and that of the key in use, decimal; then, in lower-case hexadecimal, 16
random bytes, the new key (32 bytes) wrapped, and a tag (32 bytes). By HMAC-SHA-256 with the key in use, over a label, a
zero byte, the device's name, a zero byte, both numbers (2 bytes each, big-endian) and the nonce:

    mask = HMAC("gatehouse key mask" …)               new key = WRAPPED xor mask
    TAG  = HMAC("gatehouse key tag" … WRAPPED)        compared first

The mask is used once: the nonce is new each time. No message can be taken for one of these: those begin with another
label. A device that has checked the tag stores the key, signs with it under its number from then on, and begins a new
row of sequence numbers; one that has the key already does nothing. Whoever has the key in use can read the next one,
if it also reads what the device is sent: where a key was stolen, enrol the device anew.
"""

from __future__ import annotations

import hmac
import re

from gatehouse.messages.forms import KEY_BYTES
from gatehouse.messages.refusal import MessageError

_LINE = re.compile(r"([1-9]\d{0,4}) ([1-9]\d{0,4}) ([0-9a-f]{32}) ([0-9a-f]{64}) ([0-9a-f]{64})\n?")
NONCE_BYTES = 16


def command_topic(name: str) -> str:
    """Where a device is sent its next key."""
    return f"devices/{name}/commands/identity/hmac-key"


def wrap(used: bytes, name: str, numbers: tuple[int, int], new: bytes, nonce: bytes) -> str:
    """The text; `numbers` are the new key's and that of the key in use, the keys have 32 bytes, the nonce 16."""
    if not (len(used) == len(new) == KEY_BYTES and len(nonce) == NONCE_BYTES and all(1 <= n <= 65535 for n in numbers)):
        raise MessageError("a key has 32 bytes, a nonce 16, and a number is from 1 to 65535")
    wrapped = _xor(new, _mac(used, "mask", name, numbers, nonce))
    tag = _mac(used, "tag", name, numbers, nonce + wrapped)
    return f"{numbers[0]} {numbers[1]} {nonce.hex()} {wrapped.hex()} {tag.hex()}\n"


def unwrap(keys: dict[int, bytes], name: str, text: str) -> tuple[int, bytes]:
    """The new key's number and the key, for a device that has `keys`. Raises `MessageError`."""
    found = _LINE.fullmatch(text)
    if found is None:
        raise MessageError(f"{name}: that is no new key")
    numbers = int(found[1]), int(found[2])
    nonce, wrapped, tag = (bytes.fromhex(word) for word in found.groups()[2:])
    used = keys.get(numbers[1])
    if used is None:
        raise MessageError(f"{name}: the new key is for who has key {numbers[1]}")
    if not hmac.compare_digest(_mac(used, "tag", name, numbers, nonce + wrapped), tag):
        raise MessageError(f"{name}: the new key was not sent by who knows the one in use")
    return numbers[0], _xor(wrapped, _mac(used, "mask", name, numbers, nonce))


def _mac(key: bytes, label: str, name: str, numbers: tuple[int, int], rest: bytes) -> bytes:
    head = f"gatehouse key {label}\0{name}\0".encode()
    return hmac.digest(key, head + b"".join(n.to_bytes(2, "big") for n in numbers) + rest, "sha256")


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))
