"""The endpoint's session at the broker: publishes at QoS 1, and tells which messages the broker has acknowledged."""

from __future__ import annotations

import ssl
import struct

from gatehouse.messages.mqtt import PUBACK, Subscriber, packet, text

TAKEN = (0x00, 0x10)
"""MQTT 5.0 §3.4.2.1: delivered, and delivered to nobody."""


class Publisher(Subscriber):
    """A session that ends with its connection. Raises `Disconnected` from everything that talks to the broker."""

    start, expiry = 0x02, 0

    def __init__(self, address: tuple[str, int], tls: ssl.SSLContext, server_name: str, client_id: str) -> None:
        super().__init__(address, tls, server_name, client_id, window=1, largest=1 << 16)
        self._next = 0
        self._answers: list[tuple[int, int]] = []

    def publish(self, topic: str, message: bytes) -> int:
        """Sends it; the number that `taken` will tell."""
        self._next = self._next % 0xFFFF + 1
        self.send(packet(0x32, text(topic) + struct.pack(">HB", self._next, 0) + message))
        return self._next

    def taken(self) -> list[tuple[int, bool]]:
        """What the broker has answered since: number, and whether it has taken that."""
        self.read()
        found, self._answers = self._answers, []
        return [(number, code in TAKEN) for number, code in found]

    def take(self, kind: int, body: bytes) -> None:
        """A PUBACK (§3.4)."""
        if kind == PUBACK and len(body) >= 2:
            self._answers.append((body[0] << 8 | body[1], body[2] if len(body) > 2 else 0))
