"""Plays devices that report to a broker, well-behaved or not. Runs where devices are: Debian's Python with paho-mqtt.

A plan is an object of `broker` (`host`, `port`, `ca` PEM), `seconds` or `messages` (each device's; none: for ever),
`interval` (seconds between two messages), and `devices`, each with `name`, `chain` and `key` (PEM), `hmac` (hex),
`number` (of that key) and `behaviour`. Printed at the end: for each device the sequence numbers that the broker has
acknowledged, as ranges, and how many were sent.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import ssl
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

import paho.mqtt.client as mqtt

from gatehouse.messages.forms import LARGEST, sign
from gatehouse.messages.refusal import MessageError
from gatehouse.messages.rekey import command_topic, unwrap

Sent = tuple[str, bytes]
AHEAD = 500  # messages that a device has on the way before it waits for the broker


class Player:
    """One device, in one thread."""

    def __init__(self, plan: dict[str, Any], device: dict[str, Any], folder: str) -> None:
        self._plan, self._device = plan, device
        self.name = device["name"]
        self._signing = device["number"], bytes.fromhex(device["hmac"])
        # A device that has no memory for a counter begins with the time: it never falls behind itself.
        self._sequence = int(time.time()) << 20
        self._last: Sent | None = None
        self._sequences: dict[int, int] = {}
        self._early: set[int] = set()
        self._lock = threading.Lock()
        self.acknowledged: list[int] = []
        self.sent = 0
        options = {"client_id": self.name, "clean_session": False, "protocol": mqtt.MQTTv311}
        if hasattr(mqtt, "CallbackAPIVersion"):
            options["callback_api_version"] = mqtt.CallbackAPIVersion.VERSION1
        self._client = mqtt.Client(**options)
        place = os.path.join(folder, self.name)
        for name in ("chain", "key"):
            with open(f"{place}.{name}", "w") as file:
                file.write(device[name])
        with open(f"{place}.ca", "w") as file:
            file.write(plan["broker"]["ca"])
        self._client.tls_set(f"{place}.ca", f"{place}.chain", f"{place}.key", tls_version=ssl.PROTOCOL_TLS_CLIENT)
        self._client.max_inflight_messages_set(100)
        self._client.reconnect_delay_set(1, 2)
        self._client.on_publish = self._published
        self._client.on_connect = lambda client, *_: client.subscribe(command_topic(self.name), 1)
        self._client.on_message = self._told

    def _told(self, client: Any, data: Any, message: Any) -> None:
        """Takes up a new key that it is sent."""
        with contextlib.suppress(MessageError, UnicodeDecodeError):
            number, key = self._signing
            if message.payload:
                self._signing = unwrap({number: key}, self.name, message.payload.decode("ascii"))

    def _published(self, client: Any, data: Any, mid: int) -> None:
        with self._lock:
            sequence = self._sequences.pop(mid, None)
            if sequence is None:
                self._early.add(mid)
            else:
                self.acknowledged.append(sequence)

    def run(self, ended: threading.Event) -> None:
        """Reports until the plan ends, then waits for what the broker still owes."""
        broker, plan = self._plan["broker"], self._plan
        self._client.connect_async(broker["host"], broker["port"], keepalive=30)
        self._client.loop_start()
        until = time.monotonic() + plan["seconds"] if "seconds" in plan else float("inf")
        make = BEHAVIOURS[self._device.get("behaviour", "good")]
        while not ended.is_set() and time.monotonic() < until and self.sent < plan.get("messages", float("inf")):
            self._send(make(self))
            if plan["interval"]:
                ended.wait(plan["interval"])
            while len(self._sequences) > AHEAD and not ended.is_set():
                time.sleep(0.01)
        patience = time.monotonic() + plan.get("patience", 30)
        while self._sequences and time.monotonic() < patience:
            time.sleep(0.05)
        self._client.disconnect()
        self._client.loop_stop()

    def _send(self, messages: list[Sent]) -> None:
        for topic, payload in messages:
            sequence = self._sequence
            mid = self._client.publish(topic, payload, qos=1).mid
            with self._lock:
                if mid in self._early:
                    self._early.remove(mid)
                    self.acknowledged.append(sequence)
                else:
                    self._sequences[mid] = sequence
        self.sent += 1

    # what it may send

    def _signed(self, key: bytes | None = None, ago: float = 0, more: str = "") -> Sent:
        self._sequence += 1
        topic = f"devices/{self.name}/telemetry/climate"
        content = {"temperature": round(random.gauss(21, 1), 2), "humidity": round(random.gauss(45, 5), 1)}  # noqa: S311
        if more:
            content["more"] = more
        now_ms = int(1000 * (time.time() - ago))
        number, mine = self._signing
        made = sign(
            key or mine,
            topic,
            json.dumps(content).encode(),
            number=number,
            sequence=self._sequence,
            time_ms=now_ms,
        )
        return topic, made

    def good(self) -> list[Sent]:
        """As it should."""
        self._last = self._signed()
        return [self._last]

    def tampered(self) -> list[Sent]:
        """Changed on the way: one bit of the content."""
        topic, made = self._signed()
        return [(topic, made[:30] + bytes([made[30] ^ 1]) + made[31:])]

    def forged(self) -> list[Sent]:
        """Signed with a key that is not the device's."""
        return [self._signed(key=os.urandom(32))]

    def unsigned(self) -> list[Sent]:
        """JSON as it comes."""
        self._sequence += 1
        return [(f"devices/{self.name}/telemetry/climate", b'{"temperature": 21.5}')]

    def replayed(self) -> list[Sent]:
        """A good one, and the same again."""
        return self.good() * 2

    def late(self) -> list[Sent]:
        """By a clock that is two days behind."""
        return [self._signed(ago=172_800)]

    def early(self) -> list[Sent]:
        """By a clock that is two days ahead."""
        return [self._signed(ago=-172_800)]

    def oversize(self) -> list[Sent]:
        """More than a message may have."""
        topic, made = self._signed()
        return [(topic, made + bytes(LARGEST))]

    def wrong_topic(self) -> list[Sent]:
        """Under a topic that the broker takes and that means nothing."""
        topic, made = self._signed()
        return [(f"{topic}/in/the/cellar", made)]


BEHAVIOURS: dict[str, Callable[[Player], list[Sent]]] = {
    "good": Player.good,
    "flood": Player.good,
    "tampered": Player.tampered,
    "forged": Player.forged,
    "unsigned": Player.unsigned,
    "replayed": Player.replayed,
    "late": Player.late,
    "early": Player.early,
    "oversize": Player.oversize,
    "wrong-topic": Player.wrong_topic,
}


def ranges(numbers: list[int]) -> list[tuple[int, int]]:
    """First and last of each run of numbers."""
    found: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if found and number == found[-1][1] + 1:
            found[-1] = found[-1][0], number
        else:
            found.append((number, number))
    return found


def main(plan: dict[str, Any]) -> None:
    """Plays the plan to its end."""
    ended = threading.Event()
    with tempfile.TemporaryDirectory(prefix="simulator-") as folder:
        players = [Player(plan, device, folder) for device in plan["devices"]]
        threads = [threading.Thread(target=player.run, args=[ended]) for player in players]
        for thread in threads:
            thread.start()
        with contextlib.suppress(KeyboardInterrupt):
            for thread in threads:
                thread.join()
        ended.set()
    found = {p.name: {"sent": p.sent, "acknowledged": ranges(p.acknowledged)} for p in players}
    print(json.dumps(found), flush=True)
