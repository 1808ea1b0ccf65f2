"""What an SSH server offers before anyone logs in: its banner and its algorithms (RFC 4253 §4.2 and §7.1)."""

from __future__ import annotations

import os
import socket
import struct

from gatehouse.proof.probes.reach import DEFAULT_TIMEOUT, Probe, Result, family_of, outcome_of, patience

LISTS = (
    "kex", "host_keys", "ciphers_in", "ciphers_out", "macs_in", "macs_out", "compression_in", "compression_out",
)  # fmt: skip


def ssh(probe: Probe) -> Result:
    """Reads the banner and the server's KEXINIT."""
    with socket.socket(family_of(probe["address"]), socket.SOCK_STREAM) as connection:
        connection.settimeout(patience(probe, 2 * DEFAULT_TIMEOUT))
        try:
            connection.connect((probe["address"], probe["port"]))
            with connection.makefile("rb") as stream:
                banner = stream.readline(255).decode("ascii", "replace").strip()
                # A proposal of ours, or the server may wait for it before it makes its own.
                connection.sendall(b"SSH-2.0-probe\r\n" + _proposal())
                length = struct.unpack(">I", stream.read(4))[0]
                body = stream.read(min(length, 35_000))
        except OSError as error:
            return outcome_of(error)
        except struct.error:
            return {"outcome": "cut"}
    if not banner.startswith("SSH-2.0-") or len(body) != length or body[1] != 20:
        return {"outcome": "error", "error": "no SSH server's answer", "banner": banner}
    return {"outcome": "open", "banner": banner, **offered(body[1 : len(body) - body[0]])}


def offered(kexinit: bytes) -> Result:
    """The name lists of a KEXINIT message, by what they are for."""
    at, found = 17, {}
    for name in LISTS:
        length = int.from_bytes(kexinit[at : at + 4], "big")
        found[name] = kexinit[at + 4 : at + 4 + length].decode("ascii", "replace").split(",")
        at += 4 + length
    return found


def _proposal() -> bytes:
    names = (
        [b"curve25519-sha256", b"ssh-ed25519"]
        + [b"aes256-ctr"] * 2
        + [b"hmac-sha2-256"] * 2
        + [b"none"] * 2
        + [b"", b""]
    )
    payload = b"\x14" + os.urandom(16) + b"".join(struct.pack(">I", len(n)) + n for n in names) + b"\0" * 5
    padding = 8 - (len(payload) + 5) % 8
    padding += 8 if padding < 4 else 0
    return struct.pack(">IB", len(payload) + padding + 1, padding) + payload + bytes(padding)
