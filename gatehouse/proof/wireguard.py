"""A WireGuard peer in plain Python: what a check sends into a tunnel, and what it can read of the answers.

Handshake and transport as in the protocol's paper (Donenfeld, "WireGuard: Next Generation Kernel Network Tunnel",
NDSS 2017, §5.4): Noise_IKpsk2 over X25519, ChaCha20-Poly1305 and BLAKE2s. It needs no interface and no rights, and keys
stay on the operator's side: a position only carries datagrams.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import socket
import struct
import time
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gatehouse.proof.probes.reach import checksum

NO_SHARED_KEY = bytes(32)
INITIATION_BYTES, RESPONSE_BYTES = 148, 92
_CONSTRUCTION = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
_IDENTIFIER = b"WireGuard v1 zx2c4 Jason@zx2c4.com"
_INITIATION, _RESPONSE, _TRANSPORT = 1, 2, 4
_SYN, _RST, _ACK = 0x02, 0x04, 0x10


def _hash(*parts: bytes) -> bytes:
    return hashlib.blake2s(b"".join(parts)).digest()


def _derived(chain: bytes, given: bytes, count: int) -> list[bytes]:
    """HKDF of `count` keys (RFC 5869), as the protocol has it."""
    secret = hmac.new(chain, given, hashlib.blake2s).digest()
    found = [b""]
    for number in range(1, count + 1):
        found.append(hmac.new(secret, found[-1] + bytes([number]), hashlib.blake2s).digest())
    return found[1:]


def _cipher(key: bytes, data: bytes, about: bytes) -> bytes:
    return ChaCha20Poly1305(key).encrypt(bytes(12), data, about)


def _raw(key: X25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def _stamp(nanoseconds: int) -> bytes:
    """TAI64N, without leap seconds: only that it grows counts."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return struct.pack(">QI", (1 << 62) + 10 + seconds, rest)


class Handshake:
    """One attempt of a peer to come in.

    `private` is the peer's key and `server` the gateway's public one, both as `wg` writes them; `when` is in
    nanoseconds since 1970, and has to be later than that of the peer's last one.
    """

    def __init__(self, private: str, server: str, when: int | None = None) -> None:
        self._own = X25519PrivateKey.from_private_bytes(base64.b64decode(private))
        raw = base64.b64decode(server)
        other = X25519PublicKey.from_public_bytes(raw)
        self._once = X25519PrivateKey.generate()
        self.index = secrets.randbits(32)
        once = _raw(self._once)
        chain = _hash(_CONSTRUCTION)
        seen = _hash(_hash(chain, _IDENTIFIER), raw)
        (chain,) = _derived(chain, once, 1)
        seen = _hash(seen, once)
        chain, key = _derived(chain, self._once.exchange(other), 2)
        static = _cipher(key, _raw(self._own), seen)
        seen = _hash(seen, static)
        chain, key = _derived(chain, self._own.exchange(other), 2)
        stamp = _cipher(key, _stamp(when or time.time_ns()), seen)
        self._chain, self._seen = chain, _hash(seen, stamp)
        head = struct.pack("<II", _INITIATION, self.index) + once + static + stamp
        mac = hashlib.blake2s(head, key=_hash(b"mac1----", raw), digest_size=16).digest()
        self.message = head + mac + bytes(16)

    def answered_by(self, message: bytes) -> bool:
        """Whether that is an answer to this attempt: who sends one takes the peer for one of its own."""
        if len(message) != RESPONSE_BYTES:
            return False
        kind, _, index = struct.unpack_from("<III", message)
        return bool((kind, index) == (_RESPONSE, self.index))

    def session(self, message: bytes, shared: bytes) -> Session | None:
        """The session, where the answer is made with the preshared key `shared` (32 bytes); None where it is not."""
        (theirs,) = struct.unpack_from("<I", message, 4)
        once, empty = message[12:44], message[44:60]
        other = X25519PublicKey.from_public_bytes(once)
        (chain,) = _derived(self._chain, once, 1)
        seen = _hash(self._seen, once)
        (chain,) = _derived(chain, self._once.exchange(other), 1)
        (chain,) = _derived(chain, self._own.exchange(other), 1)
        chain, mixed, key = _derived(chain, shared, 3)
        try:
            ChaCha20Poly1305(key).decrypt(bytes(12), empty, _hash(seen, mixed))
        except InvalidTag:
            return None
        sends, receives = _derived(chain, b"", 2)
        return Session(theirs, sends, receives)


@dataclass
class Session:
    """What a peer may send and read once it is in."""

    index: int
    sends: bytes = field(repr=False)
    receives: bytes = field(repr=False)
    counter: int = 0

    def packed(self, packet: bytes) -> bytes:
        """A packet as it travels; each time another message."""
        nonce = bytes(4) + struct.pack("<Q", self.counter)
        head = struct.pack("<IIQ", _TRANSPORT, self.index, self.counter)
        self.counter += 1
        return head + ChaCha20Poly1305(self.sends).encrypt(nonce, packet + bytes(-len(packet) % 16), b"")

    def unpacked(self, message: bytes) -> bytes | None:
        """The packet in a message from the gateway; None where it is none."""
        if len(message) < 32 or message[0] != _TRANSPORT:
            return None
        try:
            return ChaCha20Poly1305(self.receives).decrypt(bytes(4) + message[8:16], message[16:], b"")
        except InvalidTag:
            return None


def syn(source: str, target: str, port: int, own_port: int) -> bytes:
    """An IPv4 packet that asks for a TCP connection (RFC 9293 §3.1)."""
    ends = socket.inet_aton(source) + socket.inet_aton(target)
    segment = struct.pack(">HHIIBBHHH", own_port, port, secrets.randbits(32), 0, 5 << 4, _SYN, 64_240, 0, 0)
    total = checksum(ends + struct.pack(">BBH", 0, socket.IPPROTO_TCP, len(segment)) + segment)
    segment = segment[:16] + struct.pack(">H", total) + segment[18:]
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(segment), secrets.randbits(16), 0, 64, socket.IPPROTO_TCP, 0)
    whole = head + ends
    return whole[:10] + struct.pack(">H", checksum(whole)) + whole[12:] + segment


def said(packet: bytes) -> tuple[str, int, str] | None:
    """Who answers a `syn` and how: `(address, port, "open")`, or `"refused"`: both got through. None for the rest."""
    if len(packet) < 40 or packet[0] != 0x45 or packet[9] != socket.IPPROTO_TCP:
        return None
    port, flags = struct.unpack_from(">H", packet, 20)[0], packet[33]
    if not flags & _ACK or not flags & (_SYN | _RST):
        return None
    return socket.inet_ntoa(packet[12:16]), port, "refused" if flags & _RST else "open"
