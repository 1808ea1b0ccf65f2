"""The endpoint: takes signed messages by CoAP over DTLS, and answers when the broker has them.

One thread and one loop. What is kept is bounded: sessions and handshakes by number, what a session has asked by the
number of answers that are kept for it, what waits for the broker by `handover`.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from gatehouse.coap import codec, resource
from gatehouse.coap.codec import Malformed, Message
from gatehouse.coap.counts import Counts
from gatehouse.coap.dtls import LARGEST_DATAGRAM, Cookies, Ended, Identity, Peer, Session, hello_of
from gatehouse.coap.handover import Handover, Outlet
from gatehouse.coap.lastseen import LastSeen
from gatehouse.coap.resource import Answer
from gatehouse.coap.settings import CoapError, Settings, read_devices

RETRY_AFTER = 10
"""Seconds after which a device may try again when the broker was away."""
LIFETIME = 247.0  # seconds for which an answer is kept: EXCHANGE_LIFETIME, §4.8.2
KEPT = 32  # answers a session
AT_ONCE = 4  # requests of a session that wait for the broker
HANDSHAKE = 15.0  # seconds that a client has for one
HANDSHAKES = 64  # at the same time
TICK, LOOK = 0.2, 1.0  # seconds between two looks at sessions, and at the files
TURN = 200  # datagrams of a socket before it is somebody else's turn


class Place(NamedTuple):
    """A socket, and an address at its other end."""

    socket: int
    peer: Peer


class Exchange:
    """A request of a session's, and once there is one the datagram that answers it."""

    def __init__(self, request: Message, since: float) -> None:
        self.request, self.since = request, since
        self.answer: bytes | None = None


class Client:
    """A session, and what it has asked."""

    def __init__(self, session: Session, place: Place) -> None:
        self.session, self.place = session, place
        self.exchanges: OrderedDict[int, Exchange] = OrderedDict()
        self._number = int.from_bytes(os.urandom(2), "big")

    def next_number(self) -> int:
        """A message id of this side's."""
        self._number = (self._number + 1) & 0xFFFF
        return self._number

    def waiting(self) -> int:
        """How many requests have no answer yet."""
        return sum(exchange.answer is None for exchange in self.exchanges.values())


class Server:
    """One endpoint; `run` until `stop`. Raises `CoapError` where it can't begin."""

    def __init__(self, settings: Settings, outlet: Outlet, counts: Counts) -> None:
        self._settings, self._counts = settings, counts
        self._cookies = Cookies()
        self._last_seen = LastSeen(Path(settings.seen), counts)
        self._seen = self._files()
        self._identity, self._devices = self._read()
        self._sockets = {each.fileno(): each for each in map(_listening, settings.listen)}
        self.addresses = [each.getsockname() for each in self._sockets.values()]
        self._broker: Handover[tuple[Client, Exchange]] = Handover(outlet, settings.broker.window, counts, self._told)
        self._clients: dict[Place, Client] = {}
        self._named: dict[str, Client] = {}
        self._shaking: OrderedDict[Place, Session] = OrderedDict()
        self._looked = self._ticked = time.monotonic()
        self._stopping = False

    def stop(self) -> None:
        """Ends `run` soon; may be called by a signal's handler."""
        self._stopping = True

    def run(self) -> None:
        """Serves until it is stopped, whatever becomes of the broker."""
        try:
            while not self._stopping:
                self._turn()
        finally:
            for client in list(self._clients.values()):
                self._drop(client)
            self._broker.close()
            for each in self._sockets.values():
                each.close()
            self._counts.write()
            self._last_seen.write(self._devices, at_once=True)

    def _turn(self) -> None:
        waits = [*self._sockets, *([self._broker.fileno()] if self._broker.connected else [])]
        for number in select.select(waits, [], [], 0.05 if self._broker.busy else TICK)[0]:
            if number in self._sockets:
                self._take_in(number)
        self._broker.turn()
        now = time.monotonic()
        if now >= self._ticked + TICK:
            self._ticked = now
            self._tick(now)
        if now >= self._looked + LOOK:
            self._looked = now
            self._look()

    # datagrams

    def _take_in(self, number: int) -> None:
        for _ in range(TURN):
            try:
                datagram, peer = self._sockets[number].recvfrom(LARGEST_DATAGRAM)
            except BlockingIOError:
                return
            except OSError:
                continue  # somebody's ICMP error
            self._take(Place(number, peer), datagram)

    def _take(self, place: Place, datagram: bytes) -> None:
        client, shaking, hello = self._clients.get(place), self._shaking.get(place), hello_of(datagram)
        if hello and (shaking is None or shaking.hello != hello):
            # Who has forgotten a session may begin anew: the former ends when the new one is agreed on (§4.2.8).
            self._greet(place, datagram)
            return
        if shaking is not None:
            self._shake(place, shaking, datagram)
        if client is not None and self._clients.get(place) is client:
            self._hear(client, datagram)

    def _greet(self, place: Place, datagram: bytes) -> None:
        session = Session(self._identity, place.peer, self._saying(place))
        if not session.greet(datagram):
            return
        self._shaking.pop(place, None)
        while len(self._shaking) >= HANDSHAKES:
            self._shaking.popitem(last=False)
            self._counts.values["refused_handshakes"] += 1
        self._shaking[place] = session
        self._shake(place, session)

    def _saying(self, place: Place) -> Callable[[bytes], None]:
        wire = self._sockets[place.socket]

        def say(datagram: bytes) -> None:
            with contextlib.suppress(OSError):  # as if it was lost on the way
                wire.sendto(datagram, place.peer)

        return say

    def _shake(self, place: Place, session: Session, datagram: bytes = b"") -> None:
        try:
            if not session.shake(datagram):
                return
        except Ended as error:
            del self._shaking[place]
            self._counts.values["refused_handshakes"] += 1
            self._counts.tell("handshake", f"{place.peer[0]}: refused: {error}", count=True)
            return
        del self._shaking[place]
        if session.identity is not self._identity and not session.is_vouched_for(self._identity):
            session.close()
            self._counts.values["refused_handshakes"] += 1
            self._counts.tell("cut off", f"{place.peer[0]}: refused: {session.device}: is cut off", count=True)
            return
        self._counts.values["handshakes"] += 1
        for former in (self._clients.get(place), self._named.get(session.device)):
            if former is not None:
                self._drop(former)
        while len(self._clients) >= self._settings.max_sessions:
            self._drop(min(self._clients.values(), key=lambda each: each.session.heard), "there are too many sessions")
        session.heard = time.monotonic()
        client = self._clients[place] = self._named[session.device] = Client(session, place)
        self._last_seen.heard(session.device)
        self._hear(client)

    def _hear(self, client: Client, datagram: bytes = b"") -> None:
        try:
            for data in client.session.read(datagram):
                self._last_seen.heard(client.session.device)
                self._message(client, data)
        except Ended:
            self._forget(client)

    # messages

    def _message(self, client: Client, data: bytes) -> None:
        try:
            message = codec.decode(data)
        except Malformed as error:
            if error.number is not None:
                self._send(client, codec.encode(Message(codec.RST, codec.EMPTY, error.number)))
            return
        if message.kind in (codec.ACK, codec.RST):
            return
        if message.is_request:
            self._request(client, message)
        elif message.kind == codec.CON:
            # A ping (§4.3), or an answer to what nobody asked.
            self._send(client, codec.encode(Message(codec.RST, codec.EMPTY, message.number)))

    def _request(self, client: Client, message: Message) -> None:
        now, device = time.monotonic(), client.session.device
        known = client.exchanges.get(message.number)
        if known is not None and now - known.since < LIFETIME:
            # The same again (§4.5): the same answer, or none yet.
            self._counts.values["repeated"] += 1
            if known.answer is not None and message.kind == codec.CON:
                self._send(client, known.answer)
            return
        waiting = client.waiting()
        exchange = client.exchanges[message.number] = Exchange(message, now)
        client.exchanges.move_to_end(message.number)
        while len(client.exchanges) > KEPT:
            client.exchanges.popitem(last=False)
        if device not in self._devices:
            self._answer(client, exchange, Answer(resource.UNAUTHORIZED))
            self._drop(client, f"{device}: is no active device of this gateway")
            return
        found = resource.judge(message, device)
        if isinstance(found, Answer):
            code = codec.code_text(found.code)
            self._counts.tell(f"{device} {code}", f"{device}: answered {code}", count=True)
            self._answer(client, exchange, found)
        elif waiting >= AT_ONCE or not self._broker.give((client, exchange), found):
            self._told((client, exchange), False)

    def _told(self, ticket: tuple[Client, Exchange], taken: bool) -> None:
        """What became of a message at the broker."""
        retry = ((codec.MAX_AGE, codec.value_of(RETRY_AFTER)),)
        self._answer(*ticket, Answer(resource.CHANGED) if taken else Answer(resource.UNAVAILABLE, retry))

    def _answer(self, client: Client, exchange: Exchange, answer: Answer) -> None:
        """Confirms and answers in one (§5.2.1), or without confirmation what asked for none."""
        request = exchange.request
        confirmed = request.kind == codec.CON
        number = request.number if confirmed else client.next_number()
        kind = codec.ACK if confirmed else codec.NON
        exchange.answer = codec.encode(Message(kind, answer.code, number, request.token, answer.options))
        self._counts.answer(answer.code)
        self._send(client, exchange.answer)

    def _send(self, client: Client, message: bytes) -> None:
        if self._clients.get(client.place) is client:
            try:
                client.session.write(message)
            except Ended:
                self._forget(client)

    # time

    def _tick(self, now: float) -> None:
        for place, session in list(self._shaking.items()):
            if now - session.begun > HANDSHAKE:
                del self._shaking[place]
                self._counts.values["refused_handshakes"] += 1
            else:
                self._shake(place, session)  # the library sends again what was not answered in time
        for client in list(self._clients.values()):
            if now - client.session.heard > self._settings.idle_seconds:
                self._drop(client)

    def _look(self) -> None:
        """Reads certificates, lists and devices again if they have changed, and judges the sessions by those of now.

        A broken file changes nothing. A handshake goes on with what it began with, and is judged at its end.
        """
        for client in [each for each in self._clients.values() if each.session.has_ended]:
            self._drop(client, f"{client.session.device}: its certificate has ended")
        found = self._files()
        if found != self._seen:
            self._seen = found
            try:
                self._identity, self._devices = self._read()
                self._counts.values["reloads"] += 1
                self._cut_off()
            except CoapError as error:
                self._counts.tell("files", f"{error}; the former ones stay")
        self._counts.values["sessions"] = len(self._clients)
        self._counts.write()
        self._last_seen.write(self._devices)

    def _cut_off(self) -> None:
        for client in list(self._clients.values()):
            if client.session.device not in self._devices or not client.session.is_vouched_for(self._identity):
                self._drop(client, f"{client.session.device}: is cut off")

    def _read(self) -> tuple[Identity, frozenset[str]]:
        given = self._settings
        identity = Identity(given.certificate, given.key, given.trust, self._cookies)
        return identity, read_devices(Path(given.devices))

    def _files(self) -> list[tuple[int, int, int]]:
        given, found = self._settings, []
        for path in (given.certificate, given.key, given.trust, given.devices):
            try:
                state = Path(path).stat()
                found.append((state.st_ino, state.st_mtime_ns, state.st_size))
            except OSError:
                found.append((0, 0, 0))
        return found

    def _drop(self, client: Client, why: str = "") -> None:
        if why:
            self._counts.tell(f"dropped: {why}", why)
        client.session.close()
        self._forget(client)

    def _forget(self, client: Client) -> None:
        if self._clients.get(client.place) is client:
            del self._clients[client.place]
        if self._named.get(client.session.device) is client:
            del self._named[client.session.device]


def _listening(place: tuple[str, int]) -> socket.socket:
    address, port = place
    wire = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        if wire.family == socket.AF_INET6:
            wire.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        wire.setblocking(False)
        wire.bind(place)
    except OSError as error:
        wire.close()
        raise CoapError(f"{address} port {port}: {error.strerror}") from None
    return wire
