"""What each device usually does, learned from the readings: how much it reports, and where it comes from. Pure.

A device's messages are counted in windows. Of these its mean and its spread are known (exponentially weighted, so that
what was long ago counts less), of its messages' size likewise. What is far beyond both is unusual. What is well beyond
them counts for less, so that a flood does not become usual within a day. Nothing is said of a device before it has been
watched for the learning time, but by what others of its model usually do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any, NamedTuple

from gatehouse.alerts.reading import LATE, Limits, Reading

MEMORY = 288
"""Windows that count: two days of ten minutes each."""
SPREADS = 6
"""So many standard deviations from the mean are usual."""
ENOUGH = 3
"""So many others of a model say what is usual for it, and so many windows with messages how large a device's are."""
GAP = 3
"""After so many windows without a reading, and `LATE`, nobody knows when something was sent."""
MOST_DEVICES = 1000
MOST_ADDRESSES = 8
ADDRESS_LIFE = 30 * 86_400  # seconds
IPV6 = "IPv6"
"""Stands for all of a device's IPv6 addresses: it makes and changes them itself (RFC 8981)."""


class Who(NamedTuple):
    """A device of the registry: its model, and the address that is reserved for it, empty where none is.

    It is silent when nothing has come of it for more than `silent_after` seconds; 0: it may be.
    """

    model: str
    address: str
    silent_after: int = 0


@dataclass
class Average:
    """An exponentially weighted mean, the square of the spread around it, and how many values they are made of."""

    number: int = 0
    mean: float = 0.0
    square: float = 0.0

    def take(self, value: float) -> None:
        """Adds a value; the first ones all count the same."""
        self.number += 1
        weight = max(1 / self.number, 1 / MEMORY)
        off = value - self.mean
        self.mean += weight * off
        self.square = (1 - weight) * (self.square + weight * off * off)

    def learn(self, value: float, least: float) -> None:
        """Adds one that may be unusual: for no more than is common."""
        self.take(min(value, max(least, 1.5 * self.mean, self.mean + SPREADS / 2 * math.sqrt(self.square))))

    def most(self, times: float, least: float) -> float:
        """What is still usual."""
        return max(least, times * self.mean, self.mean + SPREADS * math.sqrt(self.square))


@dataclass
class Habit:
    """A device: the window that is running, what was in the one before it, and what is usual by those before that: what
    is judged has not been learned from yet.

    `begun` is in seconds since 1970, `before` messages within a window and bytes a message (or zero), where known.
    """

    begun: float
    messages: float = 0.0
    bytes: float = 0.0
    before: tuple[float, float] | None = None
    rate: Average = field(default_factory=Average)
    size: Average = field(default_factory=Average)

    def begin(self, now: float) -> None:
        """A new window."""
        self.begun, self.messages, self.bytes = now, 0.0, 0.0

    def now(self) -> tuple[float, float]:
        """Messages and bytes a message of this window so far or of the one before, whichever is more."""
        messages, size = self.before or (0.0, 0.0)
        return max(messages, self.messages), max(size, self.bytes / self.messages if self.messages else 0.0)


@dataclass
class Habits:
    """All of them. `last` is what each device's counters said, `known` when it was last seen at which address.

    `since` is when a device's addresses were begun to be noted, `moved` where and when it came from elsewhere.
    `window` is that which messages were counted in (seconds): what is usual within another is not known.
    """

    when: float = 0.0
    window: int = 0
    last: dict[str, tuple[float, float]] = field(default_factory=dict)
    devices: dict[str, Habit] = field(default_factory=dict)
    known: dict[str, dict[str, float]] = field(default_factory=dict)
    since: dict[str, float] = field(default_factory=dict)
    moved: dict[str, tuple[str, str, float]] = field(default_factory=dict)

    def take(self, reading: Reading, came: Mapping[str, list[str]], who: Mapping[str, Who], limits: Limits) -> None:
        """Learns from a reading. `came` are the addresses that a device has connected from since the one before."""
        first, now = not self.when, reading.when
        if now == self.when:
            return
        self._measure(limits.window)
        totals = {
            tags["device"]: (fields["messages"], fields["bytes"])
            for measurement, tags, fields in reading.points
            if measurement == "sent" and tags["device"] in who
        }
        # Without a number of any device it is not known that they sent nothing.
        if totals:
            self._count(totals, first, now, limits)
            self.last = totals
        self.when = now
        self.devices = {name: habit for name, habit in self.devices.items() if name in who}
        for name, addresses in came.items():
            for address in addresses if name in who else ():
                self._seen(name, address, who[name], now, limits)
        self._forget(who, now, limits)

    def _measure(self, window: int) -> None:
        if self.window not in (0, window):
            for habit in self.devices.values():
                habit.rate, habit.before = Average(), None
        self.window = window

    def _count(self, totals: Mapping[str, tuple[float, float]], first: bool, now: float, limits: Limits) -> None:
        for name in totals:
            if name not in self.devices and len(self.devices) < MOST_DEVICES:
                self.devices[name] = Habit(now)
        for name, habit in self.devices.items():
            if not habit.begun <= now <= habit.begun + max(GAP * limits.window, LATE):
                habit.begin(now)
                habit.before = None
                continue
            before = self.last.get(name, (0.0, 0.0))
            total = totals.get(name, before)
            # Counters that begin anew have counted what they say.
            new = total if total[0] < before[0] else (total[0] - before[0], total[1] - before[1])
            if not first:
                habit.messages, habit.bytes = habit.messages + new[0], habit.bytes + new[1]
            if now - habit.begun >= limits.window:
                self._close(habit, now, limits)

    @staticmethod
    def _close(habit: Habit, now: float, limits: Limits) -> None:
        if habit.before is not None:
            messages, size = habit.before
            learned = _learned(habit, limits)
            for average, value, least in (
                (habit.rate, messages, limits.unusual_messages),
                (habit.size, size, limits.unusual_bytes),
            ):
                # How large its messages are is not known where there were none.
                if average is habit.rate or messages:
                    average.learn(value, least) if learned else average.take(value)
        size = habit.bytes / habit.messages if habit.messages else 0.0
        habit.before = habit.messages * limits.window / (now - habit.begun), size
        habit.begin(now)

    def _seen(self, name: str, address: str, who: Who, now: float, limits: Limits) -> None:
        place = IPV6 if ":" in address else address
        known = self.known.setdefault(name, {})
        since = self.since.setdefault(name, now)
        if who.address:
            if place not in (who.address, IPV6):
                self.moved[name] = address, who.address, now
        elif known and place not in known and now - since >= limits.learning:
            self.moved[name] = address, max(known, key=lambda each: known[each]), now
        known[place] = now

    def _forget(self, who: Mapping[str, Who], now: float, limits: Limits) -> None:
        for name, places in self.known.items():
            latest = sorted(places, key=lambda each: -places[each])[:MOST_ADDRESSES]
            self.known[name] = {each: places[each] for each in latest if now - ADDRESS_LIFE < places[each]}
        self.known = {name: places for name, places in self.known.items() if places and name in who}
        self.since = {name: when for name, when in self.since.items() if name in self.known}
        self.moved = {n: each for n, each in self.moved.items() if n in who and now - limits.window < each[2] <= now}

    def unusual(self, who: Mapping[str, Who], limits: Limits) -> dict[str, str]:
        """What is unusual now, in a line each, by key."""
        found = {
            f"source-address {name}": f"{name}: connected from {address}, it is to come from {usual}"
            if who[name].address
            else f"{name}: connected from {address}, where it never was; it used to come from {usual}"
            for name, (address, usual, _) in self.moved.items()
            if name in who
        }
        of_models = self._of_models(who, limits)
        for name, habit in self.devices.items():
            found |= dict(self._much(name, habit, who[name].model, of_models, limits)) if name in who else {}
        return found

    def _of_models(self, who: Mapping[str, Who], limits: Limits) -> dict[str, list[tuple[str, float, float]]]:
        found: dict[str, list[tuple[str, float, float]]] = {}
        for name, habit in self.devices.items():
            if name in who and _learned(habit, limits):
                found.setdefault(who[name].model, []).append((name, habit.rate.mean, habit.size.mean))
        return found

    @staticmethod
    def _much(
        name: str, habit: Habit, model: str, of_models: Mapping[str, list[tuple[str, float, float]]], limits: Limits
    ) -> Iterator[tuple[str, str]]:
        messages, size = habit.now()
        rate = f"unusual-rate {name}", messages, limits.unusual_messages, f"messages within {limits.window} s"
        bytes_ = f"unusual-size {name}", size, limits.unusual_bytes, "bytes a message"
        for number, ((key, value, least, what), own) in enumerate(((rate, habit.rate), (bytes_, habit.size))):
            if value <= least:
                continue
            if _learned(habit, limits) and own.number >= ENOUGH and value > own.most(limits.unusual_times, least):
                yield key, f"{name}: {value:.0f} {what}, {own.mean:.0f} are usual for it"
                continue
            others = [means[number] for other, *means in of_models.get(model, ()) if other != name]
            usual = median(others) if len(others) >= ENOUGH else math.inf
            if value > limits.model_times * usual:
                yield key, f"{name}: {value:.0f} {what}, {usual:.0f} are usual for other {model}"


def _learned(habit: Habit, limits: Limits) -> bool:
    """Whether it has been watched for long enough."""
    return habit.rate.number * limits.window >= limits.learning


def read_habits(found: Mapping[str, Any]) -> Habits:
    """From what `dataclasses.asdict` made of them. Raises `TypeError`, `KeyError` or `AttributeError`."""
    devices = {
        str(name): Habit(**{**each, "rate": Average(**each["rate"]), "size": Average(**each["size"])})
        for name, each in found.get("devices", {}).items()
    }
    return Habits(**{**found, "devices": devices})
