"""Writes batches to the database, in a thread of its own, until the database has them."""

from __future__ import annotations

import os
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Protocol

from gatehouse.messages.counts import Counts
from gatehouse.messages.influx import Rejected
from gatehouse.messages.refusal import MessageError
from gatehouse.messages.state import Progress, State

SLOWEST = 5.0  # seconds between two attempts


class Storage(Protocol):
    """Where lines go; see `influx.Database`."""

    def write(self, lines: Sequence[str]) -> None: ...


@dataclass(frozen=True)
class Batch:
    """Lines with the device of each, what they change in the windows, and the deliveries to acknowledge afterwards.

    `session` tells which connection to the broker the numbers belong to.
    """

    lines: list[str]
    devices: list[str]
    progress: list[Progress]
    settled_ms: int
    numbers: list[int]
    session: int


class Writer:
    """Takes one batch at a time. `done` is called, from the thread, when one is stored and noted."""

    def __init__(self, storage: Storage, state: State, counts: Counts, done: Callable[[Batch], None]) -> None:
        self._storage, self._state, self._counts, self._done = storage, state, counts, done
        self._given: SimpleQueue[Batch | None] = SimpleQueue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="writer")
        self._thread.start()

    def take(self, batch: Batch) -> None:
        """Takes a batch over; the next one only when this is done."""
        self._given.put(batch)

    def stop(self, patience: float) -> None:
        """Ends the thread; a batch that it can't store within `patience` seconds the broker delivers again."""
        self._given.put(None)
        self._thread.join(patience)
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while (batch := self._given.get()) is not None:
                if self._store(batch):
                    self._done(batch)
        except Exception:
            # An intake that only receives is of no use: it ends, and the next one is delivered the same messages.
            traceback.print_exc()
            os._exit(1)

    def _store(self, batch: Batch) -> bool:
        pause = 0.1
        while not self._stopping.is_set():
            try:
                if batch.lines:
                    self._write(batch.lines, batch.devices)
                self._state.note(batch.progress, batch.settled_ms)
                return True
            except MessageError as error:
                self._counts.values["write_failures"] += 1
                self._counts.tell("database", f"{error}; {len(batch.lines)} messages wait, the others at the broker")
                self._stopping.wait(pause)
                pause = min(SLOWEST, 2 * pause)
        return False

    def _write(self, lines: list[str], devices: list[str]) -> None:
        """Writes all but what the database rejects, which it finds by halves. Raises `Unavailable`."""
        try:
            self._storage.write(lines)
            self._counts.values["batches"] += 1
            self._counts.values["stored"] += len(lines)
        except Rejected as error:
            if len(lines) == 1:
                self._counts.tell("rejected", str(error))
                self._counts.refuse("not-storable", devices[0])
                return
            half = len(lines) // 2
            self._write(lines[:half], devices[:half])
            self._write(lines[half:], devices[half:])
