"""What the intake has to remember: which sequence numbers it has stored, so that no message is stored twice."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from gatehouse.messages.forms import Keys
from gatehouse.messages.refusal import MessageError
from gatehouse.messages.replay import WIDTH, Place, Window


class Progress(NamedTuple):
    """The window of one key as it is after a batch."""

    device: str
    number: int
    key: str
    highest: int
    seen: int


def fingerprint(key: bytes) -> str:
    """Tells one key from another, and nothing about it: a key is 256 random bits."""
    return hashlib.sha256(b"gatehouse fingerprint\0" + key).hexdigest()[:16]


class State:
    """A SQLite file. A batch is noted when the database has it and before the broker hears of it.

    A process that is killed in between writes the same points again, which changes nothing. Power that fails may take
    the last notes along; what is replayed then becomes the same points, too.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=NORMAL")
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS windows (device TEXT, number INTEGER, key TEXT, highest INTEGER, seen TEXT,"
                " PRIMARY KEY (device, number)) WITHOUT ROWID"
            )
            self._database.execute("CREATE TABLE IF NOT EXISTS settled (at INTEGER PRIMARY KEY)")
        except sqlite3.Error as error:
            raise MessageError(
                f"{path}: {error} (remove it: messages that come again are stored once all the same)"
            ) from None

    def windows(self, keys: Keys) -> dict[Place, Window]:
        """The windows of keys that are still the same."""
        found = {}
        for device, number, key, highest, seen in self._database.execute("SELECT * FROM windows"):
            known = keys.get(device, {}).get(number)
            if known is not None and fingerprint(known) == key:
                found[device, number] = Window(highest, int(seen, 16) & (1 << WIDTH) - 1)
        return found

    def settled_ms(self) -> int | None:
        """When everything that had been sent was last known to be received."""
        row = self._database.execute("SELECT max(at) FROM settled").fetchone()
        return None if row[0] is None else int(row[0])

    def note(self, progress: Iterable[Progress], settled_ms: int) -> None:
        """Notes what a batch has changed, all of it or nothing. Raises `MessageError`."""
        rows = [(p.device, p.number, p.key, p.highest, f"{p.seen:x}") for p in progress]
        try:
            self._database.execute("BEGIN")
            self._database.executemany("INSERT OR REPLACE INTO windows VALUES (?, ?, ?, ?, ?)", rows)
            self._database.execute("DELETE FROM settled")
            self._database.execute("INSERT INTO settled VALUES (?)", (settled_ms,))
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise MessageError(f"state: {error} (is the disk full?)") from None

    def close(self) -> None:
        """Closes the file."""
        self._database.close()
