"""The intake: takes what devices report from the broker, and stores what is signed, new and whole.

A message is acknowledged to the broker when the database has it and this is noted (`state`). Whatever dies in between,
the broker delivers again what was not acknowledged: what was noted is known then, and what was stored but not noted
becomes the same point once more. Memory is bounded by how many messages the broker may send without acknowledgement.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from gatehouse.messages import keyfile
from gatehouse.messages.counts import Counts
from gatehouse.messages.forms import Keys, verify
from gatehouse.messages.mqtt import Delivery, Disconnected, Subscriber, tls_of
from gatehouse.messages.points import MOST_NAMES, point
from gatehouse.messages.refusal import MessageError, Refused
from gatehouse.messages.replay import Place, ReplayGuard
from gatehouse.messages.settings import Settings
from gatehouse.messages.state import Progress, State, fingerprint
from gatehouse.messages.writer import Batch, Storage, Writer

FILTERS = ("devices/+/telemetry/#",)
WINDOW = 4000
"""Messages that the broker may send before the first of them is acknowledged."""
LARGEST_BATCH = 2000
LINGER = 0.05  # seconds that a message waits for others to be written with it
SETTLING = 2.0  # seconds
LOOK = 1.0  # seconds between two looks at the file with the keys
FAREWELL = 10.0  # seconds for the last batch
CLOCK_PATIENCE = 180.0  # seconds that the gateway's clock has to be set after a start


class Source(Protocol):
    """Where messages come from; see `mqtt.Subscriber`."""

    def connect(self, filters: Sequence[str]) -> None: ...
    def fileno(self) -> int: ...
    def read(self, seconds: float = 0) -> list[Delivery]: ...
    def acknowledge(self, numbers: Sequence[int]) -> None: ...
    def close(self) -> None: ...


class Intake:
    """One intake; `run` until `stop`. `storage` and `source` are its two ends."""

    def __init__(self, settings: Settings, source: Source, storage: Storage, counts: Counts) -> None:
        self._settings, self._source, self._counts = settings, source, counts
        self._keyfile = Path(settings.messages.keys)
        self._keys: Keys = keyfile.read(self._keyfile)
        self._looked, self._stat = time.monotonic(), self._keyfile_stat()
        self._counts.values["devices"] = len(self._keys)
        self._state = State(Path(settings.state))
        self._settled_ms = self._state.settled_ms() or _now_ms()
        limits = settings.messages
        windows = self._state.windows(self._keys)
        self._guard = ReplayGuard(1000 * limits.max_age, 1000 * limits.max_ahead, windows)
        self._names: dict[str, set[str]] = {}
        self._wake, self._woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._done: deque[Batch] = deque()
        self._writer = Writer(storage, self._state, counts, self._stored)
        self._session = 0
        self._unacknowledged = 0
        self._behind = time.monotonic()
        self._writing = self._stopping = False
        self._begin()

    def _begin(self) -> None:
        self._lines: list[str] = []
        self._devices: list[str] = []
        self._numbers: list[int] = []
        self._touched: set[Place] = set()
        self._since = 0.0

    def stop(self) -> None:
        """Ends `run` soon; may be called by a signal's handler."""
        self._stopping = True

    def run(self) -> None:
        """Takes messages until it is stopped; goes on whatever becomes of broker and database."""
        try:
            self._await_clock()
            self._take_all()
            self._hand_over()
        finally:
            self._writer.stop(FAREWELL)
        self._acknowledge()
        self._source.close()
        self._state.close()
        self._counts.values["connected"] = 0
        self._counts.write()

    def _await_clock(self) -> None:
        """A gateway without a battery for its clock starts in the past: all that is new would be from the future."""
        until = time.monotonic() + CLOCK_PATIENCE
        ahead_ms = 1000 * self._settings.messages.max_ahead
        while not self._stopping and time.monotonic() < until and _now_ms() + ahead_ms < self._settled_ms:
            self._counts.tell("clock", "the clock is behind the last messages: they wait at the broker until it is set")
            self._counts.write()
            time.sleep(0.2)
        self._settled_ms = min(self._settled_ms, _now_ms())

    def _take_all(self) -> None:
        pause = 0.2
        while not self._stopping:
            try:
                self._source.connect(FILTERS)
                self._session += 1
                self._behind = time.monotonic()
                self._counts.values["connections"] += 1
                self._counts.values["connected"] = 1
                pause = 0.2
                self._serve()
            except Disconnected as error:
                self._counts.values["connected"] = 0
                self._source.close()
                if not self._stopping:
                    self._counts.tell("broker", str(error))
                    self._drain(pause)
                    pause = min(5.0, 2 * pause)

    def _drain(self, pause: float) -> None:
        """Waits until all that is here is stored: the broker delivers it again, and it must be known by then."""
        until = time.monotonic() + pause
        while not self._stopping and (self._writing or self._numbers or time.monotonic() < until):
            self._hand_over()
            select.select([self._wake], [], [], 0.1)
            self._acknowledge()
            self._counts.write()

    def _serve(self) -> None:
        while not self._stopping:
            ready = select.select([self._source.fileno(), self._wake], [], [], self._patience())[0]
            came = self._source.read() if not ready or self._source.fileno() in ready else []
            now_ms = _now_ms()
            for delivery in came:
                self._take(delivery, now_ms)
            self._settle(now_ms)
            self._acknowledge()
            if len(self._numbers) >= LARGEST_BATCH or time.monotonic() >= self._since + LINGER:
                self._hand_over()
            if time.monotonic() >= self._looked + LOOK:
                self._look()

    def _settle(self, now_ms: int) -> None:
        """Where messages had waited in the broker, the window would be full soon after the connection is there."""
        now = time.monotonic()
        if len(self._numbers) + self._unacknowledged >= WINDOW // 2:
            self._behind = now
        elif now > self._behind + SETTLING:
            self._settled_ms = now_ms

    def _patience(self) -> float:
        """Seconds until there is something to do though nothing comes."""
        if self._numbers and not self._writing:
            return max(0.0, self._since + LINGER - time.monotonic())
        return LOOK

    def _take(self, delivery: Delivery, now_ms: int) -> None:
        """Verifies a message; good or not, it is acknowledged in its turn."""
        topic, payload, number, again = delivery
        self._counts.values["received"] += 1
        if not self._numbers:
            self._since = time.monotonic()
        self._numbers.append(number)
        name = topic.decode("ascii", "replace")
        try:
            message = verify(self._keys, name, payload, json_form=self._settings.messages.json_form)
            self._guard.admit(message, now_ms, self._settled_ms)
            line, names = point(message)
            self._limit(message.device, message.kind, names)
        except Refused as refused:
            if again and refused.reason == "replay":
                self._counts.values["redelivered"] += 1
            else:
                device = _device(name)
                self._counts.count(device, len(payload))
                self._counts.refuse(refused.reason, device)
            return
        self._counts.count(message.device, len(payload))
        self._lines.append(line)
        self._devices.append(message.device)
        self._touched.add((message.device, message.key_number))

    def _limit(self, device: str, kind: str, names: list[str]) -> None:
        known = self._names.setdefault(device, set())
        new = {f"{kind} {name}" for name in names} - known
        if new:
            if len(known) + len(new) > MOST_NAMES:
                raise Refused("too-many-names")
            known |= new

    def _hand_over(self) -> None:
        """Gives the writer all that has come, if it has nothing to do."""
        if self._writing or not self._numbers:
            return
        progress = []
        for device, number in self._touched:
            key = self._keys.get(device, {}).get(number)
            window = self._guard.window((device, number))
            if key is not None and window is not None:
                progress.append(Progress(device, number, fingerprint(key), window.highest, window.seen))
        self._writing = True
        numbers, self._unacknowledged = self._numbers, len(self._numbers)
        self._writer.take(Batch(self._lines, self._devices, progress, self._settled_ms, numbers, self._session))
        self._begin()

    def _stored(self, batch: Batch) -> None:
        """Called by the writer's thread."""
        self._done.append(batch)
        os.write(self._woken, b"!")

    def _acknowledge(self) -> None:
        """Tells the broker what is stored; what came over an earlier connection it has forgotten."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake, 16)
        while self._done:
            batch = self._done.popleft()
            self._writing, self._unacknowledged = False, 0
            self._counts.values["last_stored_seconds"] = int(time.time())
            if batch.session == self._session and self._source.fileno() >= 0:
                try:
                    self._source.acknowledge(batch.numbers)
                except Disconnected:
                    # It delivers them again, and they are known.
                    self._source.close()

    def _look(self) -> None:
        """Reads the keys again if they have changed, and writes down the numbers. A broken file changes nothing."""
        self._looked = time.monotonic()
        self._counts.values["waiting"] = len(self._lines)
        self._counts.write()
        found = self._keyfile_stat()
        if found == self._stat:
            return
        self._stat = found
        try:
            keys = keyfile.read(self._keyfile)
        except MessageError as error:
            self._counts.tell("keys", f"{error}; the former keys stay")
            return
        for device, numbers in self._keys.items():
            for number, key in numbers.items():
                if keys.get(device, {}).get(number) not in (key, None):
                    self._guard.forget((device, number))
        self._keys = keys
        self._counts.values["devices"] = len(keys)
        self._counts.values["reloads"] += 1

    def _keyfile_stat(self) -> tuple[int, int, int]:
        try:
            found = self._keyfile.stat()
        except OSError:
            return 0, 0, 0
        return found.st_ino, found.st_mtime_ns, found.st_size


def subscriber_of(settings: Settings) -> Subscriber:
    """The intake's session at the broker. Raises `MessageError`."""
    broker = settings.broker
    place, largest = (broker.address, broker.port), min(broker.largest_packet, 1 << 20)
    return Subscriber(place, tls_of(broker.ca, broker.client), broker.name, broker.user, WINDOW, largest)


def _device(topic: str) -> str:
    """The name in a topic, for the journal: the broker lets a device write under its own name only."""
    parts = topic.split("/")
    name = parts[1] if len(parts) > 1 and parts[0] == "devices" else ""
    return "".join(c for c in name if c.isascii() and (c.isalnum() or c == "-"))[:63] or "nobody known"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
