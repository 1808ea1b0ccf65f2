"""A subscriber for MQTT 5 over TLS (OASIS MQTT 5.0) that leaves it to its caller when a message is acknowledged.

`gatehouse.coap.publisher` is made of it, too.

The paho-mqtt of Debian 12 (1.6.1) acknowledges by itself, before a message is stored. This one says nothing until it is
told to, and acknowledges many at once. How many messages it may be owed an acknowledgement for, and how large one may
be, it tells the broker when it connects: that bounds its memory.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from gatehouse.messages.refusal import MessageError

_CONNECT, _CONNACK, _PUBLISH, _SUBSCRIBE, _SUBACK = 0x10, 0x20, 0x30, 0x82, 0x90
PUBACK = 0x40
_PINGREQ, _DISCONNECT = b"\xc0\x00", 0xE0
_CHUNK = 1 << 18
_FORGET_NEVER = 0xFFFFFFFF


class Disconnected(OSError):
    """The session ended, or was never there; the next one goes on where it was."""


class Delivery(NamedTuple):
    """A message as it came: `number` is what `acknowledge` takes, 0 at QoS 0; `again` tells that it came before."""

    topic: bytes
    payload: bytes
    number: int
    again: bool


class Subscriber:
    """One session, which outlives its connections. Raises `Disconnected` from everything that talks to the broker.

    `window` is how many messages the broker may send without an acknowledgement, `largest` the bytes of a packet.
    """

    start, expiry = 0x00, _FORGET_NEVER
    """CONNECT's flags, and for how long the broker keeps a session without a connection, in seconds."""

    def __init__(
        self,
        address: tuple[str, int],
        tls: ssl.SSLContext,
        server_name: str,
        client_id: str,
        window: int,
        largest: int,
        keep_alive: int = 60,
    ) -> None:
        self._address, self._tls, self._server_name, self._client_id = address, tls, server_name, client_id
        self._window, self._largest, self._keep_alive = window, largest, keep_alive
        self._buffer = bytearray()
        self._early: list[Delivery] = []
        self._sent = self._heard = 0.0
        self._socket: socket.socket | None = None

    def connect(self, filters: Sequence[str] = (), patience: float = 10) -> None:
        """Takes up the session, and subscribes at QoS 1; what was retained is not sent again for that."""
        self.close()
        self._buffer.clear()
        self._early.clear()
        try:
            self._socket = socket.create_connection(self._address, patience)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # Over buffers of our own, one read of the socket takes in many of the broker's small records.
            self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            self._ssl = self._tls.wrap_bio(self._incoming, self._outgoing, server_hostname=self._server_name)
            self._handshake()
            self._socket.settimeout(patience)
            self._hello(patience)
            if filters:
                self._subscribe(filters, patience)
        except Disconnected:
            self.close()
            raise
        except OSError as error:
            self.close()
            raise Disconnected(f"broker at {self._address[0]} port {self._address[1]}: {error}") from None

    def _handshake(self) -> None:
        while True:
            try:
                self._ssl.do_handshake()
                return self._flush()
            except ssl.SSLWantReadError:
                self._flush()
                self._receive()
            except ssl.SSLError:
                self._flush()
                raise

    def _hello(self, patience: float) -> None:
        properties = struct.pack(">BIBHBI", 0x11, self.expiry, 0x21, self._window, 0x27, self._largest)
        body = text("MQTT") + struct.pack(">BBH", 5, self.start, self._keep_alive)
        self.send(packet(_CONNECT, body + _variable(len(properties)) + properties + text(self._client_id)))
        answer = self._await(_CONNACK, patience)
        if len(answer) < 2 or answer[1]:
            raise Disconnected(f"the broker refuses the session: code {answer[1] if len(answer) > 1 else 'missing'}")

    def _subscribe(self, filters: Sequence[str], patience: float) -> None:
        # QoS 1, and retained messages not at all (retain handling 2, §3.8.3.1)
        wanted = b"".join(text(name) + b"\x21" for name in filters)
        self.send(packet(_SUBSCRIBE, b"\x00\x01\x00" + wanted))
        answer = self._await(_SUBACK, patience)
        if len(answer) < 2 + len(filters) or any(code > 2 for code in answer[-len(filters) :]):
            raise Disconnected("the broker refuses the subscription")

    def fileno(self) -> int:
        """The connection's, for `select`; -1 without one."""
        return self._socket.fileno() if self._socket else -1

    def read(self, seconds: float = 0) -> list[Delivery]:
        """What has come, after `seconds` at most; may be nothing."""
        found, self._early = self._early, []
        if not found and not select.select([self.fileno()], [], [], seconds)[0]:
            self._keep_up()
            return found
        if not found:
            self._fill()
        for kind, body in self._packets():
            if kind & 0xF0 == _PUBLISH:
                found.append(_delivery(kind, body))
            elif kind == _DISCONNECT:
                raise Disconnected(f"the broker ends the session: code {body[0] if body else 0}")
            else:
                self.take(kind, body)
        self._keep_up()
        return found

    def take(self, kind: int, body: bytes) -> None:
        """Another packet of the broker's, which means nothing to who only listens."""

    def acknowledge(self, numbers: Iterable[int]) -> None:
        """Acknowledges messages; in the order in which they came (§4.6)."""
        pack = struct.Struct(">BBH").pack
        if data := b"".join([pack(0x40, 2, number) for number in numbers if number]):
            self.send(data)

    def close(self) -> None:
        """Ends the connection; the session stays with the broker."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _keep_up(self) -> None:
        now = time.monotonic()
        if now - self._sent > self._keep_alive / 2:
            self.send(_PINGREQ)
        if now - self._heard > 2 * self._keep_alive:
            raise Disconnected("the broker says nothing any more")

    def _await(self, wanted: int, patience: float) -> bytes:
        """The broker's answer. What it sends of the session that was before comes with the next `read`."""
        until = time.monotonic() + patience
        while True:
            for kind, body in self._packets():
                if kind == wanted:
                    return body
                if kind & 0xF0 != _PUBLISH:
                    raise Disconnected(f"the broker ends the session: packet {kind:#x}")
                self._early.append(_delivery(kind, body))
            left = until - time.monotonic()
            if left <= 0 or not select.select([self.fileno()], [], [], left)[0]:
                raise Disconnected("the broker gives no answer")
            self._fill()

    def send(self, data: bytes) -> None:
        """Sends packets."""
        self._sent = time.monotonic()
        self._ssl.write(data)
        self._flush()

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data and self._socket is not None:
            try:
                self._socket.sendall(data)
            except OSError as error:
                raise Disconnected(f"the broker is gone: {error}") from None

    def _fill(self) -> None:
        """Takes in what the socket has: something, when it is said to be readable."""
        try:
            self._receive()
            while part := self._ssl.read(_CHUNK):
                self._buffer += part
            raise Disconnected("the broker ends the connection")
        except ssl.SSLWantReadError:
            self._flush()
        except (BlockingIOError, InterruptedError):
            pass
        except Disconnected:
            raise
        except OSError as error:
            raise Disconnected(f"the broker is gone: {error}") from None

    def _receive(self) -> None:
        data = self._socket.recv(_CHUNK) if self._socket else b""
        if not data:
            raise Disconnected("the broker is gone")
        self._heard = time.monotonic()
        self._incoming.write(data)

    def _packets(self) -> Iterator[tuple[int, bytes]]:
        """The whole packets among what has come: first byte and body. They are taken as they are looked at."""
        data, at, end = self._buffer, 0, len(self._buffer)
        try:
            while end - at >= 2:
                length, start = data[at + 1], at + 2
                if length & 0x80:
                    found = _read_variable(data, at + 1, end)
                    if found is None:
                        return
                    length, start = found
                if length > self._largest:
                    raise Disconnected(f"a packet of {length} bytes, more than was agreed on")
                if start + length > end:
                    return
                kind, body = data[at], bytes(data[start : start + length])
                at = start + length
                yield kind, body
        finally:
            del data[:at]


def _delivery(kind: int, body: bytes) -> Delivery:
    """A PUBLISH (§3.3)."""
    try:
        at = 2 + (body[0] << 8 | body[1])
        topic, number = body[2:at], 0
        if kind & 0x06:
            number = body[at] << 8 | body[at + 1]
            at += 2
        length = body[at]
        if length & 0x80:
            found = _read_variable(body, at, len(body))
            if found is None:
                raise IndexError
            length, at = found[0], found[1] - 1
    except IndexError:
        raise Disconnected("a message that is cut off") from None
    return Delivery(topic, body[at + 1 + length :], number, bool(kind & 0x08))


def _read_variable(data: bytes | bytearray, at: int, end: int) -> tuple[int, int] | None:
    """A variable byte integer (§1.5.5) and where it ends; None where more is to come."""
    value = shift = 0
    while at < end:
        digit = data[at]
        value |= (digit & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not digit & 0x80:
            return value, at
        if shift > 21:
            raise Disconnected("a length of more than four bytes")
    return None


def _variable(value: int) -> bytes:
    found = bytearray()
    while True:
        value, digit = divmod(value, 128)
        found.append(digit | (0x80 if value else 0))
        if not value:
            return bytes(found)


def tls_of(authority: str, client: str) -> ssl.SSLContext:
    """TLS with a file of certificates that are trusted, and one with own certificate and key. Raises `MessageError`."""
    try:
        tls = ssl.create_default_context(cafile=authority)
        tls.load_cert_chain(client)
    except (OSError, ssl.SSLError) as error:
        raise MessageError(f"{authority}, {client}: {error} (deploy the gateway again)") from None
    tls.minimum_version = ssl.TLSVersion.TLSv1_2
    return tls


def text(value: str) -> bytes:
    """A UTF-8 string (§1.5.4)."""
    data = value.encode()
    return struct.pack(">H", len(data)) + data


def packet(kind: int, body: bytes) -> bytes:
    """A control packet (§2.1)."""
    return bytes([kind]) + _variable(len(body)) + body
