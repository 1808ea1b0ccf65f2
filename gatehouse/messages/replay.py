"""Whether a signed message is new: not seen before, and neither too old nor from the future."""

from __future__ import annotations

from collections.abc import Mapping

from gatehouse.messages.forms import Message
from gatehouse.messages.refusal import Refused

WIDTH = 4096
"""How many sequence numbers below the highest a message may come late.

A client library that has a backlog may send what is new ahead of it when it connects again; paho-mqtt 1.6 does.
"""
_MASK = (1 << WIDTH) - 1

Place = tuple[str, int]
"""A device's name and the number of its key: each key has sequence numbers of its own."""


class Window:
    """The sequence numbers that were seen of one key: the highest, and a bit for each of those below (RFC 4303 §3.4.3).

    `seen` is the lowest bit for `highest` itself.
    """

    __slots__ = ("highest", "seen")

    def __init__(self, highest: int = -1, seen: int = 0) -> None:
        self.highest, self.seen = highest, seen

    def is_new(self, sequence: int) -> bool:
        """Whether the number was not seen, and would have been noticed if it had."""
        behind = self.highest - sequence
        return behind < 0 or (behind < WIDTH and not self.seen >> behind & 1)

    def add(self, sequence: int) -> None:
        """Notes a number."""
        ahead = sequence - self.highest
        if ahead > 0:
            self.seen = (self.seen << ahead & _MASK if ahead < WIDTH else 0) | 1
            self.highest = sequence
        elif -ahead < WIDTH:
            self.seen |= 1 << -ahead


class ReplayGuard:
    """The windows of all devices. Ages and clock differences in milliseconds.

    `settled_ms` is when everything that had been sent was last known to be received: what waited in the broker while
    nobody received is as old as the wait, and not too old for that.
    """

    def __init__(self, max_age_ms: int, max_ahead_ms: int, windows: Mapping[Place, Window] | None = None) -> None:
        self.max_age_ms, self.max_ahead_ms = max_age_ms, max_ahead_ms
        self._windows: dict[Place, Window] = dict(windows or {})

    def admit(self, message: Message, now_ms: int, settled_ms: int | None = None) -> None:
        """Notes a message as seen. Raises `Refused`, and notes nothing then."""
        since = now_ms if settled_ms is None else min(now_ms, settled_ms)
        if message.time_ms < since - self.max_age_ms:
            raise Refused("too-old")
        if message.time_ms > now_ms + self.max_ahead_ms:
            raise Refused("from-the-future")
        place = message.device, message.key_number
        window = self._windows.get(place)
        if window is None:
            window = self._windows[place] = Window()
        elif not window.is_new(message.sequence):
            raise Refused("replay")
        window.add(message.sequence)

    def window(self, place: Place) -> Window | None:
        """What was seen of a key; None where that is nothing."""
        return self._windows.get(place)

    def forget(self, place: Place) -> None:
        """Begins anew with a key: another one has its number now."""
        self._windows.pop(place, None)
