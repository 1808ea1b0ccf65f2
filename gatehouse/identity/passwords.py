"""Secrets made by the operating system's random generator, never by a person."""

from __future__ import annotations

import secrets
import string

_ALPHABET = string.ascii_letters + string.digits


def token(bits: int = 256) -> str:
    """Return a random token of at least `bits` bits, in the URL-safe alphabet (6 bits a character, no padding)."""
    return secrets.token_urlsafe(_octets(bits))


def hex_key(bits: int = 256) -> str:
    """Return a random key of `bits` bits as lower-case hexadecimal digits, as HMAC and PSK keys are often given."""
    return secrets.token_hex(_octets(bits))


def raw_key(bits: int = 256) -> bytes:
    """Return a random key of `bits` bits, as bytes."""
    return secrets.token_bytes(_octets(bits))


def password(bits: int = 128) -> str:
    """Return a random password of at least `bits` bits, letters and digits only: no file needs quotes for it."""
    octets = _octets(bits)
    length = 1
    while len(_ALPHABET) ** length < 256**octets:
        length += 1
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def _octets(bits: int) -> int:
    if bits < 128 or bits % 8:
        raise ValueError(f"{bits} bits: ask for a multiple of 8, at least 128")
    return bits // 8
