"""MQTT 5 sessions over TLS (OASIS MQTT 5.0), as small as a probe needs: with reason codes, and the server's TLS alerts.

A probe of kind `mqtt` is a play: credentials by name, and steps that several sessions take in turn.
"""

from __future__ import annotations

import ssl
import struct
import time
from collections.abc import Callable
from typing import Any

from gatehouse.proof.probes.keyed import Connection, open_keyed
from gatehouse.proof.probes.reach import Probe, Result, patient
from gatehouse.proof.probes.tls import failed, has_ticket, open_session

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK = 0x10, 0x20, 0x30, 0x40, 0x82, 0x90
PINGREQ, PINGRESP, DISCONNECT = 0xC0, 0xD0, 0xE0

PATIENCE = 4.0  # seconds for an answer of the broker


def text(value: str) -> bytes:
    """A UTF-8 string with its length (§1.5.4)."""
    data = value.encode()
    return struct.pack(">H", len(data)) + data


def packet(kind: int, body: bytes) -> bytes:
    """A control packet: first byte, length as variable byte integer (§1.5.5), body."""
    length, encoded = len(body), b""
    while True:
        length, digit = divmod(length, 128)
        encoded += bytes([digit | (0x80 if length else 0)])
        if not length:
            return bytes([kind]) + encoded + body


def properties_end(data: bytes, at: int) -> int:
    """Where the properties that start at `at` end."""
    length = shift = 0
    while True:
        digit = data[at]
        length |= (digit & 127) << shift
        at, shift = at + 1, shift + 7
        if not digit & 128:
            return at + length


class Session:
    """One client, in one thread: what the broker sends is read while this side waits, at most `PATIENCE`."""

    def __init__(self) -> None:
        self.received: list[dict[str, Any]] = []
        self.ended: Result | None = None
        self._connection: ssl.SSLSocket | Connection | None = None
        self._buffer = b""
        self._answers: dict[tuple[int, int], bytes] = {}
        self._number = 0

    def connect(self, probe: Probe, client_id: str, username: str | None, keep_alive: int = 60) -> Result:
        """Connects and waits for CONNACK: `accepted`, `denied` with a reason code, or what became of TLS; and whether a
        `ticket` for the next session came.

        No session expiry is asked for, so that the broker forgets the session when it ends (§3.1.2.11.2).
        """
        connection: ssl.SSLSocket | Connection | None
        connection, agreed = open_keyed(probe) if "psk" in probe else open_session(probe)
        if connection is None:
            return agreed
        self._connection = connection
        username, password = username or probe.get("username"), probe.get("password")
        flags = 0x02 | (0x80 if username is not None else 0) | (0x40 if password is not None else 0)
        body = text("MQTT") + bytes([5, flags]) + struct.pack(">H", keep_alive) + b"\0" + text(client_id)
        self._send(packet(CONNECT, body + b"".join(text(given) for given in (username, password) if given is not None)))
        answer = self._answer((CONNACK, 0))
        if answer is None:
            return {**agreed, **(self.ended or {"outcome": "silent"})}
        code = answer[1]
        ticket = connection.has_ticket() if isinstance(connection, Connection) else has_ticket(connection)
        return {**agreed, "outcome": "accepted" if code == 0 else "denied", "code": code, "ticket": ticket}

    def subscribe(self, topic: str) -> Result:
        """Subscribes at QoS 1; the broker's reason code (0 to 2: granted)."""
        number = self._next()
        self._send(packet(SUBSCRIBE, struct.pack(">H", number) + b"\0" + text(topic) + b"\1"))
        answer = self._answer((SUBACK, number))
        if answer is None:
            return self.ended or {"outcome": "silent"}
        code = answer[properties_end(answer, 2)]
        return {"outcome": "granted" if code <= 2 else "denied", "code": code}

    def publish(self, topic: str, payload: bytes) -> Result:
        """Publishes at QoS 1, never retained; the broker's reason code (0 and 16: taken, 135: not authorised)."""
        number = self._next()
        body = text(topic) + struct.pack(">H", number) + b"\0" + payload
        self._send(packet(PUBLISH | 0x02, body))
        answer = self._answer((PUBACK, number))
        if answer is None:
            return self.ended or {"outcome": "silent"}
        code = answer[2] if len(answer) > 2 else 0
        return {"outcome": "taken" if code < 128 else "denied", "code": code}

    def ping(self) -> Result:
        """Whether the session is still served."""
        self._send(packet(PINGREQ, b""))
        if self._answer((PINGRESP, 0)) is not None:
            return {"outcome": "answered"}
        return self.ended or {"outcome": "silent"}

    def wait_for(self, payload: str, seconds: float) -> Result:
        """Whether a message with that payload arrives within that time."""
        self._read(lambda: self._has(payload), patient(seconds))
        return {"outcome": "received" if self._has(payload) else "nothing"}

    def close(self) -> None:
        """Reads what has come meanwhile, and says goodbye."""
        if self._connection is not None:
            self._read(lambda: False, 0.1)
            self._send(packet(DISCONNECT, b""))
            self._connection.close()
            self._connection = None

    def _has(self, payload: str) -> bool:
        return any(message["payload"] == payload for message in self.received)

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _send(self, data: bytes) -> None:
        if self._connection is None or self.ended is not None:
            return
        try:
            self._connection.settimeout(patient(PATIENCE))
            self._connection.sendall(data)
        except OSError as error:
            # The alert that says why may still be there to be read.
            self._read(lambda: False, 0.5)
            self.ended = self.ended or failed(error)

    def _answer(self, key: tuple[int, int]) -> bytes | None:
        self._read(lambda: key in self._answers, patient(PATIENCE))
        return self._answers.pop(key, None)

    def _read(self, enough: Callable[[], bool], seconds: float) -> None:
        """Takes in what the broker sends until it is enough, the connection ends, or the time is over."""
        end = time.monotonic() + seconds
        while not enough() and self.ended is None and self._connection is not None:
            left = end - time.monotonic()
            if left <= 0:
                return
            try:
                self._connection.settimeout(left)
                data = self._connection.recv(65_536)
                if not data:
                    self.ended = {"outcome": "cut"}
                self._buffer += data
                self._take_packets()
            except TimeoutError:
                return
            except OSError as error:
                self.ended = failed(error)
            except (IndexError, ValueError, struct.error) as error:
                self.ended = {"outcome": "error", "error": f"no MQTT: {error}"}

    def _take_packets(self) -> None:
        while len(self._buffer) >= 2:
            length, at, shift = 0, 1, 0
            while True:
                if at >= len(self._buffer):
                    return
                digit = self._buffer[at]
                length |= (digit & 127) << shift
                at, shift = at + 1, shift + 7
                if not digit & 128:
                    break
                if shift > 21:
                    raise ValueError("a length of more than four bytes")
            if len(self._buffer) < at + length:
                return
            kind, body = self._buffer[0], self._buffer[at : at + length]
            self._buffer = self._buffer[at + length :]
            self._take(kind, body)

    def _take(self, kind: int, body: bytes) -> None:
        if kind & 0xF0 == PUBLISH:
            self._take_message(kind, body)
        elif kind == DISCONNECT:
            self.ended = {"outcome": "ended", "code": body[0] if body else 0}
        else:
            number = int.from_bytes(body[:2], "big") if kind in (PUBACK, SUBACK) else 0
            self._answers[kind, number] = body

    def _take_message(self, kind: int, body: bytes) -> None:
        at = 2 + int.from_bytes(body[:2], "big")
        topic, qos = body[2:at].decode("utf-8", "replace"), kind >> 1 & 3
        if qos:
            self._send(packet(PUBACK, body[at : at + 2]))
            at += 2
        payload = body[properties_end(body, at) :].decode("utf-8", "replace")
        if len(self.received) < 1000:
            self.received.append({"topic": topic, "payload": payload[:200], "retained": bool(kind & 1)})


def mqtt(probe: Probe) -> Result:
    """Plays `steps`, each `{"do": …, "as": SESSION, …}`; one outcome a step, and what each session received.

    connect (`with`: a name in `credentials`, with `chain` and `key`, `username` and `password`, or `identity` and `psk`
    with the highest version of TLS as `maximum`; absent for none; `client_id`, `username`), subscribe (`topic`),
    publish (`topic`, `payload`, or `hex`, or its `size` in bytes), await (`payload`, `seconds`), ping, close. A step of
    a session that is not connected is `skipped`.
    """
    sessions: dict[str, Session] = {}
    outcomes: list[Result] = []
    server: Probe = {key: probe[key] for key in ("address", "port", "ca", "server_name") if key in probe}
    try:
        for step in probe["steps"]:
            started = time.monotonic()
            outcome = _step(step, sessions, server, probe.get("credentials", {}))
            outcomes.append({**step, **outcome, "ms": round(1000 * (time.monotonic() - started))})
    finally:
        for session in sessions.values():
            session.close()
    received = {name: session.received for name, session in sessions.items()}
    return {"outcome": "played", "steps": outcomes, "received": received}


def _step(step: dict[str, Any], sessions: dict[str, Session], server: Probe, credentials: dict[str, Any]) -> Result:
    name = step["as"]
    if step["do"] == "connect":
        if name in sessions:
            sessions.pop(name).close()
        session = Session()
        result = session.connect(
            {**server, **credentials.get(step.get("with", ""), {})}, step["client_id"], step.get("username")
        )
        if result["outcome"] == "accepted":
            sessions[name] = session
        else:
            session.close()
        return result
    if name not in sessions:
        return {"outcome": "skipped"}
    session = sessions[name]
    if step["do"] == "subscribe":
        return session.subscribe(step["topic"])
    if step["do"] == "publish":
        return session.publish(step["topic"], _payload(step))
    if step["do"] == "await":
        return session.wait_for(step["payload"], step["seconds"])
    if step["do"] == "ping":
        return session.ping()
    session.close()
    return {"outcome": "closed"}


def _payload(step: dict[str, Any]) -> bytes:
    if "hex" in step:
        return bytes.fromhex(step["hex"])
    return b"x" * step["size"] if "size" in step else str(step["payload"]).encode()
