"""A TLS 1.2 ClientHello made by hand: it offers what the TLS library of this machine knows no more."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

from gatehouse.proof.probes.reach import DEFAULT_TIMEOUT, Probe, Result, family_of, outcome_of, patience

_MOST = 100_000  # bytes of an answer
_ALERT, _HANDSHAKE = 21, 22
_SERVER_HELLO, _CERTIFICATE, _KEY_EXCHANGE, _DONE = 2, 11, 12, 14
_NAMED_CURVE = 3
# ECDSA, RSA-PSS and RSA with SHA-256 and longer, Ed25519, and last what is too old: RSA and ECDSA with SHA-1.
_SIGNATURES = (0x0403, 0x0503, 0x0603, 0x0804, 0x0805, 0x0806, 0x0401, 0x0501, 0x0601, 0x0807, 0x0201, 0x0203)


def hello(probe: Probe) -> Result:
    """Offers `suites` and `groups` (their numbers) to `address`:`port`, for `server_name`, and hangs up.

    `agreed` with `suite`, `extensions`, `certificates` (DER, hex) and `group` (of ECDHE, else None); or `alert` with
    its number, or `cut`; or what became of the connection.
    """
    timeout = patience(probe, 2 * DEFAULT_TIMEOUT)
    with socket.socket(family_of(probe["address"]), socket.SOCK_STREAM) as plain:
        plain.settimeout(timeout)
        try:
            plain.connect((probe["address"], probe["port"]))
        except OSError as error:
            return outcome_of(error)
        try:
            plain.sendall(offered(probe["suites"], probe["groups"], probe.get("server_name", "")))
            return answered(_records(plain))
        except ConnectionError:
            return {"outcome": "cut"}
        except (OSError, IndexError, struct.error) as error:
            return outcome_of(error) if isinstance(error, OSError) else {"outcome": "failed", "reason": "no TLS"}


def offered(suites: list[int], groups: list[int], name: str) -> bytes:
    """The record with the ClientHello (RFC 5246 §7.4.1.2)."""
    extensions = {
        10: _listed(groups),
        11: b"\x01\x00",
        13: _listed(_SIGNATURES),
        23: b"",
        35: b"",
        0xFF01: b"\x00",
    }
    if name:
        extensions[0] = struct.pack(">HBH", len(name) + 3, 0, len(name)) + name.encode("ascii")
    tail = b"".join(struct.pack(">HH", number, len(data)) + data for number, data in extensions.items())
    body = b"\x03\x03" + os.urandom(32) + b"\x00" + _listed(suites) + b"\x01\x00" + struct.pack(">H", len(tail)) + tail
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    return struct.pack(">BHH", _HANDSHAKE, 0x0301, len(message)) + message


def _listed(numbers: list[int] | tuple[int, ...]) -> bytes:
    return struct.pack(">H", 2 * len(numbers)) + b"".join(struct.pack(">H", number) for number in numbers)


def _records(plain: socket.socket) -> Iterator[tuple[int, bytes]]:
    """Type and content of each record, until the server is silent, hangs up, or has said too much."""
    taken, got = b"", 0
    while got < _MOST:
        while len(taken) >= 5 and len(taken) >= 5 + (size := int.from_bytes(taken[3:5], "big")):
            yield taken[0], taken[5 : 5 + size]
            taken = taken[5 + size :]
        more = plain.recv(16_384)
        if not more:
            return
        taken, got = taken + more, got + len(more)


def answered(records: Iterator[tuple[int, bytes]]) -> Result:
    """What the server said, up to the end of its part. Raises `IndexError` or `struct.error` for what is no TLS."""
    found: Result = {}
    said = b""
    for kind, content in records:
        if kind == _ALERT:
            return {"outcome": "alert", "alert": content[1]}
        if kind != _HANDSHAKE:
            return {"outcome": "failed", "reason": "no TLS"}
        said += content
        while len(said) >= 4 and len(said) >= 4 + (size := int.from_bytes(said[1:4], "big")):
            message, body = said[0], said[4 : 4 + size]
            said = said[4 + size :]
            if message == _SERVER_HELLO:
                found = {"outcome": "agreed", **_server_hello(body), "group": None, "certificates": []}
            elif message == _CERTIFICATE and found:
                found["certificates"] = [each.hex() for each in _certificates(body)]
            elif message == _KEY_EXCHANGE and found and body[0] == _NAMED_CURVE:
                found["group"] = int.from_bytes(body[1:3], "big")
            elif message == _DONE:
                return found
    return found or {"outcome": "cut"}


def _server_hello(body: bytes) -> Result:
    at = 35 + body[34]
    (suite,) = struct.unpack_from(">H", body, at)
    extensions, at = [], at + 5
    while at + 4 <= len(body):
        number, size = struct.unpack_from(">HH", body, at)
        extensions.append(number)
        at += 4 + size
    return {"suite": suite, "extensions": extensions}


def _certificates(body: bytes) -> Iterator[bytes]:
    at = 3
    while at + 3 <= len(body):
        size = int.from_bytes(body[at : at + 3], "big")
        yield body[at + 3 : at + 3 + size]
        at += 3 + size
