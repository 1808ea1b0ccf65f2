#!/usr/bin/python3
"""Runs on the gateway: looks at what is retained on topics of the broker, and puts something there.

    mosquitto-exchange <REQUEST >ANSWER

REQUEST is JSON: {"chain": PEM, "key": PEM, "listeners": [["10.10.10.1", 8883], …], "look": [TOPIC, …], "put": {TOPIC:
TEXT, …}}, a short-lived certificate of a client that may do both. What is put is retained, QoS 1; an empty text removes
what is there. ANSWER is JSON: {TOPIC: TEXT, …}, the topics of "look" on which something is retained, of each text at
most 32 KiB.

The broker lets a name have one session, so those who run this at the same time take turns.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import ssl
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TURN = Path("/run/lock/gatehouse-mosquitto-exchange")
PATIENCE = 60.0  # seconds, for all of it
LONGEST = 32 * 1024
# Topics in one SUBSCRIBE: fewer than what a broker queues for one client.
AT_ONCE = 20

# MQTT 5 §2.1.2; CONNECT with clean start and no identifier: the certificate names the client.
CONNECT = bytes([0x10, 13, 0, 4, *b"MQTT", 5, 2, 0, 60, 0, 0, 0])
CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, PINGRESP = 0x20, 0x30, 0x40, 0x82, 0x90, 0xD0
PINGREQ, DISCONNECT = bytes([0xC0, 0]), bytes([0xE0, 0])
RETAINED_AT_QOS_1 = PUBLISH | 0x03


class Failed(Exception):
    """The broker does not do what it was asked to do."""


class Session:
    """A client's session on an open connection, until `end` (monotonic seconds)."""

    def __init__(self, connection: ssl.SSLSocket, end: float) -> None:
        self._connection, self._end = connection, end
        self._buffer = b""
        self._packets = self._read()
        connection.sendall(CONNECT)
        code = self._answer(CONNACK)[1]
        if code:
            raise Failed(f"the broker refuses the client with reason code {code}")

    def look(self, topics: list[str]) -> dict[str, str]:
        """What is retained there. At QoS 0 the broker keeps nothing for this client, so there is no limit to it."""
        found: dict[str, str] = {}
        for begin in range(0, len(topics), AT_ONCE):
            some = topics[begin : begin + AT_ONCE]
            filters = b"".join(string(topic) + b"\0" for topic in some)
            # What is retained is sent while SUBSCRIBE is worked on (§3.8.4), so before what follows is answered.
            self._connection.sendall(packet(SUBSCRIBE, b"\0\1\0" + filters) + PINGREQ)
            for kind, body in self._packets:
                if kind & 0xF0 == PUBLISH:
                    topic, text = message(kind, body)
                    found[topic] = text
                elif kind == SUBACK and max(body[-len(some) :]) >= 128:
                    raise Failed(f"the broker refuses to show {some[0]}")
                elif kind == PINGRESP:
                    break
        return {topic: text for topic, text in found.items() if text}

    def put(self, topic: str, text: str) -> None:
        """Waits until the broker has it."""
        self._connection.sendall(packet(RETAINED_AT_QOS_1, string(topic) + b"\0\1\0" + text.encode()))
        answer = self._answer(PUBACK)
        if len(answer) > 2 and answer[2] >= 128:
            raise Failed(f"the broker refuses a message on {topic} with reason code {answer[2]}")

    def _answer(self, wanted: int) -> bytes:
        for kind, body in self._packets:
            if kind == wanted:
                return body
        raise Failed("the broker ended the session")

    def _read(self) -> Iterator[tuple[int, bytes]]:
        """Kind and body of each packet that the broker sends."""
        while True:
            while (taken := unpacked(self._buffer)) is None:
                left = self._end - time.monotonic()
                if left <= 0:
                    raise Failed("the broker takes too long")
                self._connection.settimeout(left)
                data = self._connection.recv(65536)
                if not data:
                    raise Failed("the broker ended the session")
                self._buffer += data
            kind, body, self._buffer = taken
            if kind == DISCONNECT[0]:
                raise Failed(f"the broker ended the session with reason code {body[0] if body else 0}")
            yield kind, body


def string(text: str) -> bytes:
    """A UTF-8 string with its length (§1.5.4)."""
    data = text.encode()
    return struct.pack(">H", len(data)) + data


def packet(kind: int, body: bytes) -> bytes:
    """First byte, length as variable byte integer (§1.5.5), body."""
    length, encoded = len(body), b""
    while True:
        length, digit = divmod(length, 128)
        encoded += bytes([digit | (0x80 if length else 0)])
        if not length:
            return bytes([kind]) + encoded + body


def integer(data: bytes, at: int) -> tuple[int, int] | None:
    """A variable byte integer and where it ends; None where it is not all there."""
    value = 0
    for count, byte in enumerate(data[at : at + 4]):
        value |= (byte & 127) << 7 * count
        if not byte & 128:
            return value, at + count + 1
    return None


def unpacked(data: bytes) -> tuple[int, bytes, bytes] | None:
    """Kind and body of the first packet, and what follows it; None where it is not all there."""
    head = integer(data, 1)
    if head is None or len(data) < sum(head):
        return None
    length, begin = head
    return data[0], data[begin : begin + length], data[begin + length :]


def message(kind: int, body: bytes) -> tuple[str, str]:
    """Topic and text of a PUBLISH (§3.3)."""
    at = 2 + int.from_bytes(body[:2], "big")
    topic = body[2:at].decode("utf-8", "replace")
    properties = integer(body, at + (2 if kind & 0x06 else 0))
    begin = sum(properties) if properties else len(body)
    return topic, body[begin : begin + LONGEST].decode("utf-8", "replace")


def exchange(request: dict[str, Any]) -> dict[str, str]:
    """Does what is asked at the first listener that lets the client in."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # The broker is this machine's own; what is proven here is the client's name to it, not the other way round.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    credential = os.memfd_create("credential")
    os.write(credential, (request["chain"] + request["key"]).encode())
    context.load_cert_chain(f"/proc/self/fd/{credential}")
    os.close(credential)
    end = time.monotonic() + PATIENCE
    reason: Exception = Failed("it listens nowhere")
    for address, port in request["listeners"]:
        try:
            with socket.create_connection((address, port), timeout=5) as wire, context.wrap_socket(wire) as connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                session = Session(connection, end)
                for topic, text in request["put"].items():
                    session.put(topic, text)
                found = session.look(request["look"])
                connection.sendall(DISCONNECT)
                return found
        except OSError as error:
            reason = error
    raise Failed(f"the broker can't be reached: {reason}")


def main() -> int:
    """Exit status 0 when all was done; 1 with one line otherwise: what was put so far is there."""
    request = json.load(sys.stdin)
    try:
        with TURN.open("w") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            json.dump(exchange(request), sys.stdout)
    except (Failed, OSError) as error:
        print(f"mosquitto-exchange: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
