"""The intake between a broker and a database that do what a test wants: nothing is lost, nothing is stored twice."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gatehouse.messages import LARGEST_CONTENT, REASONS, MessageError, keyfile, sign, sign_json
from gatehouse.messages.counts import Counts
from gatehouse.messages.influx import Rejected, Unavailable
from gatehouse.messages.intake import WINDOW, Intake
from gatehouse.messages.mqtt import Delivery, Disconnected
from gatehouse.messages.settings import BrokerSettings, DatabaseSettings, MessageSettings, Settings
from gatehouse.messages.state import State

KEY, OTHER = bytes(32), bytes(range(32))
TOPIC = "devices/kitchen-01/telemetry/climate"


class Broker:
    """Keeps a session: delivers what was not acknowledged again, with the mark of that, after each connection."""

    def __init__(self) -> None:
        self._here, self._there = socket.socketpair()
        self._there.setblocking(False)
        self.messages: dict[int, tuple[bytes, bytes, bool]] = {}
        self.acknowledged: list[int] = []
        self._number = 0
        self._waiting: list[int] = []
        self.away = False
        self._open = False
        self._lock = threading.Lock()

    def publish(self, payload: bytes, topic: str = TOPIC) -> int:
        with self._lock:
            self._number += 1
            self.messages[self._number] = (topic.encode(), payload, False)
            self._waiting.append(self._number)
        self._say(b"!")
        return self._number

    def _say(self, word: bytes) -> None:
        # Where nobody looks, the words that are there already will do.
        with contextlib.suppress(BlockingIOError):
            self._there.send(word)

    def cut(self) -> None:
        """Ends the connection."""
        self._say(b"x")

    # the subscriber's side

    def connect(self, filters: Sequence[str]) -> None:
        if self.away:
            raise Disconnected("away")
        with self._lock:
            self._open = True
            self._waiting = sorted(self.messages)
            self.messages = {n: (topic, payload, True) for n, (topic, payload, _) in self.messages.items()}
        self._say(b"!")

    def fileno(self) -> int:
        return self._here.fileno() if self._open else -1

    def read(self, seconds: float = 0) -> list[Delivery]:
        self._here.settimeout(0)
        try:
            if b"x" in self._here.recv(4096):
                raise Disconnected("cut")
        except BlockingIOError:
            return []
        with self._lock:
            found = [Delivery(*self.messages[n][:2], n, self.messages[n][2]) for n in self._waiting]
            self._waiting = []
        return found

    def acknowledge(self, numbers: Sequence[int]) -> None:
        with self._lock:
            for number in numbers:
                self.messages.pop(number, None)
                self.acknowledged.append(number)

    def close(self) -> None:
        self._open = False


@dataclass
class Store:
    """A database: points by what makes them one, and what it is to refuse."""

    points: dict[str, str] = field(default_factory=dict)
    writes: int = 0
    away: bool = False
    rejects: str = "\0"

    def write(self, lines: Sequence[str]) -> None:
        self.writes += 1
        if self.away:
            raise Unavailable("away")
        good = [line for line in lines if self.rejects not in line]
        for line in good:
            tags, fields, when = line.rsplit(" ", 2)
            self.points[f"{tags} {when}"] = fields
        if len(good) < len(lines):
            raise Rejected("partial write")


@dataclass
class Bench:
    """An intake that runs in a thread, and its two ends."""

    folder: Path
    broker: Broker = field(default_factory=Broker)
    store: Store = field(default_factory=Store)
    said: list[str] = field(default_factory=list)
    sequence: int = 0

    def begin(self, json_form: bool = False) -> None:
        places = {name: str(self.folder / name) for name in ("keys", "state", "metrics")}
        if not (self.folder / "keys").exists():
            self.keys(("kitchen-01", 1, KEY))
        settings = Settings(
            BrokerSettings("127.0.0.1", 1, "broker", "", "", "gatehouse-intake", 65536),
            MessageSettings(places["keys"], json_form, 3600, 300),
            DatabaseSettings("influxdb1", "https://x", "", "", ""),
            places["state"],
            places["metrics"],
        )
        self.counts = Counts(Path(places["metrics"]), self.said.append)
        self.intake = Intake(settings, self.broker, self.store, self.counts)
        self.thread = threading.Thread(target=self.intake.run, daemon=True)
        self.thread.start()

    def keys(self, *keys: tuple[str, int, bytes]) -> None:
        (self.folder / "new").write_bytes(keyfile.render(keys, "test"))
        (self.folder / "new").rename(self.folder / "keys")

    def end(self) -> None:
        self.intake.stop()
        self.thread.join(30)
        assert not self.thread.is_alive()

    def message(
        self, content: bytes = b'{"a": 1}', *, key: bytes = KEY, sequence: int = -1, ago: float = 0, number: int = 1
    ) -> bytes:
        if sequence < 0:
            self.sequence = sequence = self.sequence + 1
        now_ms = int(1000 * (time.time() - ago))
        return sign(key, TOPIC, content, number=number, sequence=sequence, time_ms=now_ms)

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline, f"{self.counts.values} {self.counts.refused} {self.said}"
            time.sleep(0.01)

    def stored(self, number: int) -> None:
        self.until(lambda: len(self.store.points) == number and not self.broker.messages)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    made.begin()
    yield made
    if made.thread.is_alive():
        made.store.away = False
        made.end()


def test_a_message_is_stored_and_then_acknowledged(bench: Bench) -> None:
    bench.broker.publish(bench.message())
    bench.stored(1)
    assert bench.broker.acknowledged == [1]
    assert next(iter(bench.store.points)).startswith("telemetry,device=kitchen-01,kind=climate ")


def test_nothing_is_acknowledged_while_the_database_is_away(bench: Bench) -> None:
    bench.store.away = True
    for _ in range(50):
        bench.broker.publish(bench.message())
    bench.until(lambda: bench.store.writes >= 2)
    assert not bench.broker.acknowledged
    bench.store.away = False
    bench.stored(50)
    assert bench.broker.acknowledged == list(range(1, 51))
    assert bench.counts.values["write_failures"] >= 2


def test_an_intake_that_ends_while_the_database_is_away_loses_nothing(bench: Bench, monkeypatch) -> None:
    monkeypatch.setattr("gatehouse.messages.intake.FAREWELL", 0.2)
    bench.store.away = True
    for _ in range(20):
        bench.broker.publish(bench.message())
    bench.until(lambda: bench.store.writes >= 1)
    bench.end()
    assert not bench.broker.acknowledged
    bench.store.away = False
    bench.begin()
    bench.stored(20)


def test_what_was_stored_but_not_acknowledged_is_known_when_it_comes_again(bench: Bench) -> None:
    payload = bench.message()
    bench.broker.publish(payload)
    bench.stored(1)
    bench.end()
    # As if the acknowledgement had been lost with the connection.
    bench.broker.publish(payload)
    bench.begin()
    bench.until(lambda: not bench.broker.messages)
    assert len(bench.store.points) == 1
    assert bench.counts.values["redelivered"] + bench.counts.refused["replay"] == 1
    assert bench.counts.values["stored"] == 0


def test_what_was_stored_but_not_noted_becomes_the_same_point(bench: Bench) -> None:
    payload = bench.message()
    bench.broker.publish(payload)
    bench.stored(1)
    bench.end()
    for name in ("state", "state-wal", "state-shm"):
        (bench.folder / name).unlink(missing_ok=True)
    bench.broker.publish(payload)
    bench.begin()
    bench.until(lambda: bench.counts.values["stored"] == 1)
    assert len(bench.store.points) == 1


def test_what_can_t_be_noted_for_want_of_room_is_not_acknowledged_until_it_can(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = threading.Event()
    note = State.note

    def full(*arguments: object) -> None:
        if not room.is_set():
            raise MessageError("state: database or disk is full (is the disk full?)")
        note(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(State, "note", full)
    bench.broker.publish(bench.message())
    bench.until(lambda: bench.store.writes >= 2)
    assert not bench.broker.acknowledged and any("disk is full" in line for line in bench.said)
    room.set()
    bench.stored(1)
    assert bench.broker.acknowledged == [1]


def test_a_connection_that_is_lost_costs_nothing_while_the_database_is_away(bench: Bench) -> None:
    bench.store.away = True
    for _ in range(30):
        bench.broker.publish(bench.message())
    bench.until(lambda: bench.store.writes >= 1)
    bench.broker.cut()
    bench.until(lambda: bench.counts.values["connected"] == 0)
    bench.store.away = False
    bench.stored(30)
    assert bench.counts.values["stored"] == 30
    assert bench.counts.values["redelivered"] == 30


def test_what_is_refused_is_counted_and_said_with_the_devices_name_whatever_the_reason(bench: Bench) -> None:
    bench.store.rejects = " seq=5i,"
    good, names = bench.message(), b", ".join(b'"f%d": 1' % n for n in range(64))
    bench.broker.publish(good)
    bench.stored(1)
    for refused in (
        good,
        bench.message(key=OTHER),
        bench.message(number=9),
        bench.message(ago=86_400),
        bench.message(ago=-86_400),
        bench.message(b"21.5"),
        bench.message(b'{"a": [1]}'),
        bench.message(sequence=5),
        b'{"a": 1}',
        b"x",
        b"x" * 65_000,
        *(bench.message(b"{%s}" % names.replace(b"f", b"f%d_" % n)) for n in range(512 // 64)),
    ):
        bench.broker.publish(refused)
    bench.broker.publish(bench.message(), "devices/kitchen-01/telemetry")
    bench.broker.publish(bench.message(), "devices/stranger/telemetry/climate")
    bench.stored(1 + 512 // 64 - 1)
    assert bench.counts.refused == dict.fromkeys(REASONS, 1)
    told = {f"refused a message of kitchen-01: {reason}" for reason in REASONS if reason != "unknown-device"}
    said = {line for line in bench.said if line.startswith("refused")}
    assert said == {*told, "refused a message of stranger: unknown-device"}
    assert len(bench.broker.acknowledged) == 1 + 11 + 8 + 2


def test_a_site_that_takes_json_stores_what_is_signed_and_new(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.begin(json_form=True)
    good = sign_json(KEY, {"device": "kitchen-01", "a": 1, "timestamp": time.time(), "seq": 7})
    for each in (good, good, good.replace(b'"a": 1', b'"a": 2'), b'{"a": 1}', bench.message()):
        bench.broker.publish(each)
    bench.stored(2)
    bench.end()
    assert {reason: count for reason, count in bench.counts.refused.items() if count} == {
        "replay": 1,
        "bad-signature": 2,
    }
    assert sorted(line.partition(" ")[0] for line in bench.store.points.values()) == ["seq=1i,a=1.0", "seq=7i,a=1.0"]


def test_a_flood_of_bad_messages_is_one_line_a_minute_in_the_journal(bench: Bench) -> None:
    for _ in range(500):
        bench.broker.publish(bench.message(key=OTHER))
    bench.until(lambda: bench.counts.refused["bad-signature"] == 500)
    assert [line for line in bench.said if "bad-signature" in line] == [
        "refused a message of kitchen-01: bad-signature"
    ]
    assert KEY.hex() not in str(bench.said)


def test_what_the_database_rejects_does_not_keep_the_others_from_it(bench: Bench) -> None:
    bench.store.rejects = " seq=7i,"
    for _ in range(20):
        bench.broker.publish(bench.message())
    bench.stored(19)
    assert bench.counts.refused["not-storable"] == 1


def test_changed_keys_are_read_without_a_restart_and_broken_ones_are_not(bench: Bench) -> None:
    bench.broker.publish(bench.message(key=OTHER))
    bench.until(lambda: bench.counts.refused["bad-signature"] == 1)
    bench.keys(("kitchen-01", 1, OTHER))
    bench.until(lambda: bench.counts.values["reloads"] == 1)
    bench.broker.publish(bench.message(key=OTHER))
    bench.stored(1)
    (bench.folder / "keys").write_text("kitchen-01 1 nonsense")
    bench.until(lambda: any("line 1" in line for line in bench.said))
    assert "nonsense" not in str(bench.said)
    bench.broker.publish(bench.message(key=OTHER))
    bench.stored(2)
    bench.keys(("pump-02", 1, KEY))
    bench.until(lambda: bench.counts.values["reloads"] == 2)
    bench.broker.publish(bench.message(key=OTHER))
    bench.until(lambda: bench.counts.refused["unknown-device"] == 1)
    assert len(bench.store.points) == 2


def test_a_device_that_was_enrolled_anew_begins_with_low_numbers_again(bench: Bench) -> None:
    bench.broker.publish(bench.message(sequence=5000))
    bench.stored(1)
    bench.end()
    bench.keys(("kitchen-01", 1, OTHER))
    bench.begin()
    bench.broker.publish(bench.message(key=OTHER, sequence=1))
    bench.stored(2)


def test_what_waited_at_the_broker_for_days_is_not_too_old_when_the_intake_comes_back(bench: Bench) -> None:
    bench.broker.publish(bench.message())
    bench.stored(1)
    bench.end()
    # As if this had been noted two days ago, and nobody had received since.
    import sqlite3

    with sqlite3.connect(bench.folder / "state") as state:
        state.execute("UPDATE settled SET at = at - 172800000")
    bench.broker.publish(bench.message(ago=100_000))
    bench.begin()
    bench.stored(2)


def test_one_device_cannot_make_names_without_end(bench: Bench) -> None:
    now_ms = int(1000 * time.time())
    for n in range(12):
        content = ("{" + ", ".join(f'"f{n}_{i}": 1' for i in range(60)) + "}").encode()
        bench.broker.publish(sign(KEY, TOPIC, content, number=1, sequence=n, time_ms=now_ms))
    bench.until(lambda: not bench.broker.messages)
    assert bench.counts.refused["too-many-names"] == 12 - 512 // 60


def test_the_numbers_are_a_file_that_prometheus_reads(bench: Bench) -> None:
    bench.broker.publish(bench.message())
    bench.stored(1)
    bench.end()
    lines = (bench.folder / "metrics").read_text().splitlines()
    assert "gatehouse_intake_stored_total 1" in lines
    assert 'gatehouse_intake_refused_total{reason="replay"} 0' in lines
    assert all(line.startswith("#") or len(line.rsplit(" ", 1)) == 2 for line in lines)
    assert os.stat(bench.folder / "metrics").st_mode & 0o777 == 0o644


def test_memory_is_bounded_by_what_the_broker_may_send_while_the_database_is_away(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.store.away = True
    text = ", ".join(f'"f{n}": "{"x" * 250}"' for n in range(15))
    largest = b"{%s}" % text.encode()
    assert LARGEST_CONTENT * 0.9 < len(largest) <= LARGEST_CONTENT
    for _ in range(WINDOW):
        bench.broker.publish(bench.message(largest))
    tracemalloc.start()
    try:
        bench.begin()
        bench.until(lambda: bench.counts.values["received"] == WINDOW and bench.store.writes >= 2)
        assert tracemalloc.get_traced_memory()[1] < 75_000_000
    finally:
        tracemalloc.stop()
    bench.store.away = False
    bench.stored(WINDOW)
    bench.end()


def test_a_clock_that_starts_in_the_past_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench, behind = Bench(tmp_path), 0.0
    now = time.time_ns
    monkeypatch.setattr("gatehouse.messages.intake.time.time_ns", lambda: now() - int(behind * 1e9))
    bench.begin()
    bench.broker.publish(bench.message())
    bench.stored(1)
    bench.end()
    behind = 86_400.0
    bench.broker.publish(bench.message())
    bench.begin()
    bench.until(lambda: any("the clock is behind" in line for line in bench.said))
    assert bench.counts.values["connected"] == 0 and len(bench.broker.messages) == 1
    behind = 0.0
    bench.stored(2)
    bench.end()
    assert not any(bench.counts.refused.values())


def test_a_clock_that_stays_in_the_past_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gatehouse.messages.intake.CLOCK_PATIENCE", 0.5)
    bench, behind = Bench(tmp_path), 0.0
    now = time.time_ns
    monkeypatch.setattr("gatehouse.messages.intake.time.time_ns", lambda: now() - int(behind * 1e9))
    bench.begin()
    bench.broker.publish(bench.message())
    bench.stored(1)
    bench.end()
    behind = 86_400.0
    bench.begin()
    bench.broker.publish(bench.message(ago=behind))
    bench.stored(2)
    bench.end()
