"""What was told and what waits to be told: on the disk in one file, bounded, replaced in one step."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from gatehouse.alerts.habits import Habits, read_habits
from gatehouse.alerts.rules import Counted
from gatehouse.alerts.silence import Silence

DAY = 86_400
MOST_RAISED = 200
MOST_WAITING = 500
"""Messages that wait on one way; the oldest are given up, and counted."""
State = Literal["raised", "lasts", "ended", "test"]
Message = dict[str, Any]


@dataclass
class Raised:
    """An alert: since when, when it was seen and told last (seconds since 1970), and what is wrong in a line."""

    since: float
    seen: float
    told: float
    text: str


@dataclass
class Way:
    """One way out: what waits, since when it fails (0: it doesn't) and how, and how many messages were given up."""

    waiting: list[Message] = field(default_factory=list)
    failing: float = 0.0
    error: str = ""
    lost: int = 0


@dataclass
class Book:
    """All of it. `number` is that of the last message, `begun` when the book was (seconds since 1970)."""

    counted: Counted = field(default_factory=Counted)
    raised: dict[str, Raised] = field(default_factory=dict)
    ways: dict[str, Way] = field(default_factory=dict)
    number: int = 0
    begun: float = 0.0
    habits: Habits = field(default_factory=Habits)
    silence: Silence = field(default_factory=Silence)

    def settle(self, wrong: Mapping[str, str], now: float, calm: int) -> list[tuple[str, State, Raised]]:
        """Takes what is wrong now; returns what is to be told: each once, once a day while it lasts, and its end."""
        told: list[tuple[str, State, Raised]] = []
        for key, text in wrong.items():
            alert = self.raised.get(key)
            if alert is None and len(self.raised) >= MOST_RAISED:
                continue
            if alert is None:
                alert = self.raised[key] = Raised(now, now, now, text)
                told.append((key, "raised", alert))
                continue
            alert.seen, alert.text = now, text
            # A clock that was set back must not keep it quiet for longer.
            if not 0 <= now - alert.told < DAY:
                alert.told = now
                told.append((key, "lasts", alert))
        for key in [key for key in self.raised if key not in wrong]:
            alert = self.raised[key]
            if not 0 <= now - alert.seen < calm:
                del self.raised[key]
                told.append((key, "ended", alert))
        return told

    def put(self, message: Message, ways: list[str]) -> None:
        """Has a message wait on these ways."""
        for name in ways:
            way = self.ways.setdefault(name, Way())
            way.waiting.append(message)
            while len(way.waiting) > MOST_WAITING:
                del way.waiting[0]
                way.lost += 1

    def keep_ways(self, known: list[str]) -> None:
        """Forgets ways that the site has no longer."""
        self.ways = {name: self.ways.get(name, Way()) for name in known}

    def status(self, now: float) -> dict[str, float]:
        """Numbers for the collector; they name nobody."""
        return {
            "when": now,
            "raised": len(self.raised),
            "waiting": sum(len(way.waiting) for way in self.ways.values()),
            "failing": sum(1 for way in self.ways.values() if way.failing),
        }


def message(site: str, gateway: str, number: int, key: str, state: State, alert: Raised, now: float) -> Message:
    """What is sent. Times in seconds since 1970."""
    kind, _, subject = key.partition(" ")
    return {
        "site": site, "gateway": gateway, "number": number, "alert": kind, "about": subject, "state": state,
        "since": int(alert.since), "at": int(now), "text": alert.text,
    }  # fmt: skip


def test_message(site: str, gateway: str, text: str) -> Message:
    """What is sent to try the ways: the same at any time, but for the text."""
    return {"site": site, "gateway": gateway, "alert": "test", "state": "test", "text": text}


test_message.__test__ = False  # type: ignore[attr-defined]  # not one of pytest's


def body(given: Message) -> bytes:
    """A message on its way."""
    return json.dumps(given, sort_keys=True).encode()


def read(path: Path) -> Book:
    """The book; an empty one where there is none. Raises `ValueError` for a file that is none."""
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return Book()
    try:
        return Book(
            Counted(**found["counted"]),
            {str(key): Raised(**alert) for key, alert in found["raised"].items()},
            {str(name): Way(**way) for name, way in found["ways"].items()},
            int(found["number"]),
            float(found["begun"]),
            # Books of former versions have none.
            read_habits(found.get("habits", {})),
            Silence(**found.get("silence", {})),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: {error}") from None


def write(path: Path, book: Book) -> None:
    """Replaces the book in one step; it is on the disk then. Raises `OSError`."""
    replace(path, asdict(book), 0o600)


def replace(path: Path, document: Any, mode: int) -> None:
    """Replaces a JSON file in one step. Raises `OSError`."""
    beside = path.with_name(f".{path.name}.new")
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(document, file)
        file.flush()
        os.fchmod(file.fileno(), mode)
        os.fsync(file.fileno())
    os.replace(beside, path)
