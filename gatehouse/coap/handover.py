"""What is on its way to the broker: handed over as the broker's window allows, and told when it is there, or is not."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, NamedTuple, Protocol, TypeVar

from gatehouse.coap.counts import Counts
from gatehouse.coap.resource import Report
from gatehouse.messages.mqtt import Disconnected

PATIENCE = 1.5
"""Seconds that the broker has for a message: a client sends it again after two at the soonest (RFC 7252 §4.8)."""
WAITING = 1000  # messages
PAUSE = 0.2, 5.0  # seconds between two tries to reach the broker, at first and at most

Ticket = TypeVar("Ticket")


class Outlet(Protocol):
    """Where messages go; see `publisher.Publisher`."""

    def connect(self, *, patience: float) -> None: ...
    def fileno(self) -> int: ...
    def publish(self, topic: str, message: bytes) -> int: ...
    def taken(self) -> list[tuple[int, bool]]: ...
    def close(self) -> None: ...


class _Waiting(NamedTuple, Generic[Ticket]):
    ticket: Ticket
    report: Report
    until: float


class Handover(Generic[Ticket]):
    """Messages on their way. `told` is called once for each ticket: whether the broker has the message, in time."""

    def __init__(self, outlet: Outlet, window: int, counts: Counts, told: Callable[[Ticket, bool], None]) -> None:
        self._outlet, self._window, self._counts, self._told = outlet, window, counts, told
        self._queue: list[_Waiting[Ticket]] = []
        # None for those that were told of already: the broker still owes an acknowledgement.
        self._handed: dict[int, _Waiting[Ticket] | None] = {}
        self._again, self._pause = 0.0, PAUSE[0]
        self.connected = False

    @property
    def busy(self) -> bool:
        """Whether somebody waits."""
        return bool(self._queue or self._handed)

    def fileno(self) -> int:
        """The broker's connection, for `select`."""
        return self._outlet.fileno()

    def give(self, ticket: Ticket, report: Report) -> bool:
        """Takes a message; False where it can't, and nothing will be told then."""
        if not self.connected or len(self._queue) + len(self._handed) >= WAITING:
            return False
        self._queue.append(_Waiting(ticket, report, time.monotonic() + PATIENCE))
        self._try(self._hand_over)
        return True

    def turn(self) -> None:
        """Does what there is to do: reaches the broker, hears it, and tells those whom it lets wait too long."""
        if not self.connected and time.monotonic() >= self._again:
            self._try(self._reach)
        if self.connected:
            self._try(self._hear)
        now = time.monotonic()
        for number, waiting in self._handed.items():
            if waiting is not None and now >= waiting.until:
                self._handed[number] = None
                self._told(waiting.ticket, False)
        late = [waiting for waiting in self._queue if now >= waiting.until]
        self._queue = [waiting for waiting in self._queue if now < waiting.until]
        for waiting in late:
            self._told(waiting.ticket, False)

    def close(self) -> None:
        """Ends the session at the broker."""
        self._outlet.close()
        self.connected = False
        self._counts.values["connected"] = 0

    def _try(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Disconnected as error:
            self._counts.tell("broker", str(error))
            self.close()
            self._again, self._pause = time.monotonic() + self._pause, min(PAUSE[1], 2 * self._pause)
            # Whether it has what it did not acknowledge, only the broker knows: it is sent again, and stored once.
            lost = [*(waiting for waiting in self._handed.values() if waiting is not None), *self._queue]
            self._handed, self._queue = {}, []
            for waiting in lost:
                self._told(waiting.ticket, False)

    def _reach(self) -> None:
        self._outlet.connect(patience=3)
        self.connected, self._pause = True, PAUSE[0]
        self._counts.values["connected"] = 1

    def _hand_over(self) -> None:
        while self._queue and len(self._handed) < self._window:
            number = self._outlet.publish(*self._queue[0].report)
            self._handed[number] = self._queue.pop(0)

    def _hear(self) -> None:
        for number, taken in self._outlet.taken():
            waiting = self._handed.pop(number, None)
            if not taken:
                self._counts.tell("not taken", "the broker does not take what is published (deploy the gateway again)")
            if waiting is not None:
                self._told(waiting.ticket, taken)
        self._hand_over()
