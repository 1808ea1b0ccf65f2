"""DTLS 1.2 (RFC 6347) for many clients on one socket, by pyOpenSSL: who is at the other end is in its certificate.

The library works on memory; datagrams go in and come out here. A client must first send back a cookie, so that nobody
makes the gateway work, or send, in the name of an address that is not theirs (§4.2.1).
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from OpenSSL import SSL, crypto

from gatehouse.coap.settings import CoapError

SUITES = b"ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-GCM-SHA256"
DTLS_1_2 = 0xFEFD
LARGEST_DATAGRAM = 65_535
MTU = 1232
"""Bytes of a datagram: what IPv6 carries everywhere (RFC 8200 §5: 1280), less its own and UDP's headers."""
_RECORD = 13
_HANDSHAKE, _CLIENT_HELLO = 22, 1
_RANDOM = slice(_RECORD + 14, _RECORD + 46)
_NEW_COOKIES = 60.0  # seconds; one is good until the next but one

# A record that is cut off ends as a system's error without one; the session is whole.
_NOTHING_YET = (SSL.WantReadError, SSL.SysCallError)
_LEAST = {"AES": 24, "CHACHA20": 16}
"""Bytes of an encrypted record: an explicit nonce of 8 and a tag of 16 (RFC 5288 §3), or the tag (RFC 7905 §2)."""

Peer = tuple[Any, ...]
"""An address and port as the socket says it."""


class Ended(Exception):
    """A session that is over, by the other side's wish or because of what it sent."""


class Identity:
    """The endpoint's own certificate and whom it trusts, as they lie on the disk. Raises `CoapError`."""

    def __init__(self, certificate: str, key: str, trust: str, cookies: Cookies) -> None:
        context = SSL.Context(SSL.DTLS_SERVER_METHOD)
        context.set_min_proto_version(DTLS_1_2)
        context.set_max_proto_version(DTLS_1_2)
        # No resumption: each session is judged by the revocation lists of its day.
        context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_QUERY_MTU)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_cipher_list(SUITES)
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, _as_found)
        context.set_cookie_generate_callback(lambda connection: cookies.of(connection.get_app_data()))
        context.set_cookie_verify_callback(lambda connection, shown: cookies.fits(connection.get_app_data(), shown))
        try:
            context.use_certificate_chain_file(certificate)
            context.use_privatekey_file(key)
            context.check_privatekey()
            context.load_verify_locations(trust)
            if b"-----BEGIN X509 CRL-----" not in Path(trust).read_bytes():
                raise CoapError(f"{trust}: no revocation list (deploy the gateway again)")
        except (OSError, SSL.Error, crypto.Error) as error:
            files = f"{certificate}, {key}, {trust}"
            raise CoapError(f"{files}: {_why(error)} (deploy the gateway again)") from None
        store = context.get_cert_store()
        if store is None:
            raise CoapError(f"{trust}: no store of certificates")
        store.set_flags(crypto.X509StoreFlags.CRL_CHECK)
        self.store, self.context = store, context

    def vouches_for(self, certificate: crypto.X509, chain: list[crypto.X509]) -> bool:
        """Whether a client's certificate is in order now: by who issued it, its time, and the revocation lists."""
        try:
            crypto.X509StoreContext(self.store, certificate, chain).verify_certificate()
        except crypto.X509StoreContextError:
            return False
        return True


def _as_found(_connection: SSL.Connection, _certificate: crypto.X509, _error: int, _depth: int, fine: int) -> bool:
    return bool(fine)


def _why(error: Exception) -> str:
    """OpenSSL's own words, or the system's."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    given = error.args[0] if error.args else ""
    last = given[-1][-1] if isinstance(given, list) and given else str(given)
    return last or type(error).__name__


def _forget_errors() -> None:
    """DTLSv1_listen leaves its errors behind when it says that it wants more (OpenSSL 3.0), and the next call for
    whichever session would take them for its own (SSL_get_error(3)). A failure that is told of takes them along."""
    with contextlib.suppress(crypto.Error):
        crypto.load_certificate(crypto.FILETYPE_PEM, b"")


class Cookies:
    """Cookies without a memory of whom they were given to: a MAC over the address, by a key that changes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._made = clock, clock()
        self._keys = [os.urandom(32), os.urandom(32)]

    def of(self, peer: Peer) -> bytes:
        """The cookie of an address."""
        if self._clock() - self._made > _NEW_COOKIES:
            self._keys, self._made = [os.urandom(32), self._keys[0]], self._clock()
        return self._mac(self._keys[0], peer)

    def fits(self, peer: Peer, shown: bytes) -> bool:
        """Whether it is that address's, of now or of a moment ago."""
        return any(hmac.compare_digest(self._mac(key, peer), shown) for key in self._keys)

    @staticmethod
    def _mac(key: bytes, peer: Peer) -> bytes:
        return hmac.digest(key, repr(peer).encode(), hashlib.sha256)


def hello_of(datagram: bytes) -> bytes:
    """The random bytes of a ClientHello in the clear (§4.2.2): of who is new, or has forgotten. Otherwise nothing."""
    begins = len(datagram) >= _RANDOM.stop and datagram[0] == _HANDSHAKE and datagram[3:5] == b"\0\0"
    return datagram[_RANDOM] if begins and datagram[_RECORD] == _CLIENT_HELLO else b""


class Session:
    """What is agreed on with one client, who is shown `identity`. `say` sends it a datagram.

    `device` is its name, once it is known.
    """

    def __init__(self, identity: Identity, peer: Peer, say: Callable[[bytes], None]) -> None:
        self.identity, self.peer, self._say = identity, peer, say
        self.device, self.hello, self.ends = "", b"", b""
        self._least = 0
        self.begun = self.heard = time.monotonic()
        self._connection = SSL.Connection(identity.context, None)
        self._connection.set_app_data(peer)
        self._connection.set_ciphertext_mtu(MTU)
        self._connection.set_accept_state()

    def greet(self, datagram: bytes) -> bool:
        """Takes a ClientHello: True where it has this address's cookie; otherwise it is sent one, and forgotten."""
        self.hello = hello_of(datagram)
        self._connection.bio_write(datagram)
        try:
            self._connection.DTLSv1_listen()
        except SSL.WantReadError:
            self._flush()
            return False
        except SSL.Error:
            return False
        finally:
            _forget_errors()
        return True

    def shake(self, datagram: bytes = b"") -> bool:
        """Goes on with the handshake: True at its end. Without a datagram it sends again what seems to be lost.

        Raises `Ended` where the client is refused, which it is told.
        """
        if datagram:
            if not are_records(datagram, min(_LEAST.values())):
                return False
            self._connection.bio_write(datagram)
        try:
            self._connection.do_handshake()
        except _NOTHING_YET:
            self._flush()
            return False
        except SSL.Error as error:
            self._flush()
            raise Ended(_why(error)) from None
        self._flush()
        certificate = self._connection.get_peer_certificate()
        name = certificate.get_subject().CN if certificate else None
        if not (certificate and name):
            raise Ended("a certificate without a name")
        suite = self._connection.get_cipher_name() or ""
        self._least = next((least for kind, least in _LEAST.items() if kind in suite), 1)
        self.device, self.ends = name, certificate.get_notAfter() or b""
        return True

    def read(self, datagram: bytes) -> Iterator[bytes]:
        """What stands in a datagram; nothing in one that is no good. Without one, what came with the handshake's last.

        Raises `Ended`.
        """
        if datagram:
            if not are_records(datagram, self._least):
                return
            self._connection.bio_write(datagram)
        while True:
            try:
                data = self._connection.recv(LARGEST_DATAGRAM)
            except _NOTHING_YET:
                self._flush()
                return
            except SSL.ZeroReturnError:
                raise Ended("goodbye") from None
            except SSL.Error as error:
                self._flush()
                raise Ended(_why(error)) from None
            self.heard = time.monotonic()
            yield data

    def write(self, data: bytes) -> None:
        """Sends it, encrypted. Raises `Ended`."""
        try:
            self._connection.send(data)
        except SSL.Error as error:
            raise Ended(_why(error)) from None
        self._flush()

    def close(self) -> None:
        """Says goodbye."""
        with contextlib.suppress(SSL.Error):
            self._connection.shutdown()
            self._flush()

    @property
    def has_ended(self) -> bool:
        """Whether the client's certificate has; the time in it is UTC, `20270101000000Z`."""
        return self.ends < time.strftime("%Y%m%d%H%M%SZ", time.gmtime()).encode()

    def is_vouched_for(self, identity: Identity) -> bool:
        """Whether the client's certificate is in order by what is trusted now."""
        certificate = self._connection.get_peer_certificate()
        return certificate is not None and identity.vouches_for(
            certificate, self._connection.get_peer_cert_chain() or []
        )

    @property
    def agreed(self) -> str:
        """Version and suite, for the log."""
        return f"{self._connection.get_protocol_version_name()} {self._connection.get_cipher_name()}"

    def _flush(self) -> None:
        """Sends what the library wrote: as many whole records in a datagram as fit."""
        written = bytearray()
        while True:
            try:
                written += self._connection.bio_read(LARGEST_DATAGRAM)
            except SSL.Error:
                break
        for datagram in datagrams(bytes(written)):
            self._say(datagram)


def are_records(datagram: bytes, least: int) -> bool:
    """Whether a datagram is whole records, and those that are encrypted have `least` bytes.

    OpenSSL 3.0 ends a session over one that has fewer, which anybody could send in the client's name; the standard has
    it thrown away (RFC 6347 §4.1.2.7).
    """
    at = 0
    while at + _RECORD <= len(datagram):
        length = int.from_bytes(datagram[at + 11 : at + 13], "big")
        if datagram[at + 3 : at + 5] != b"\0\0" and length < least:
            return False
        at += _RECORD + length
    return 0 < at == len(datagram)


def datagrams(records: bytes, most: int = MTU) -> Iterator[bytes]:
    """Cuts what the library wrote between records, since memory knows no datagrams."""
    start = at = 0
    while at + _RECORD <= len(records):
        end = at + _RECORD + int.from_bytes(records[at + 11 : at + 13], "big")
        if end - start > most and at > start:
            yield records[start:at]
            start = at
        at = end
    if at > start:
        yield records[start:at]
