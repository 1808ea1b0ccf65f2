"""What the collector read at a time, and from which number on something is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

LATE = 300  # seconds without a reading


class Point(NamedTuple):
    """A point of InfluxDB's line protocol, as far as the collector makes use of that."""

    measurement: str
    tags: Mapping[str, str]
    fields: Mapping[str, float]


def point(line: str) -> Point:
    """Reads one. Raises `ValueError`."""
    head, _, tail = line.partition(" ")
    measurement, *tags = head.split(",")
    named = dict(tag.split("=", 1) for tag in tags)
    values = {name: float(value.removesuffix("i")) for name, value in (f.split("=", 1) for f in tail.split(","))}
    return Point(measurement, named, values)


class Session(NamedTuple):
    """A client of the broker: how often its session was taken over since a start, and how often it came from where."""

    taken: int
    addresses: Mapping[str, int]


@dataclass(frozen=True)
class Reading:
    """What the collector read at a time (seconds since 1970); what the broker refused since a start, by reason, and who
    connected, by name.
    """

    when: float
    points: tuple[Point, ...]
    broker: Mapping[str, int]
    sessions: Mapping[str, Session] = field(default_factory=dict)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Reading:
        """From the file that the collector leaves. Raises `ValueError`, `KeyError`, `TypeError` or `AttributeError`."""
        broker = {str(reason): int(number) for reason, number in document["broker"].items()}
        sessions = {
            str(name): Session(int(each["taken"]), {str(place): int(n) for place, n in each["from"].items()})
            for name, each in document.get("sessions", {}).items()
        }
        return cls(float(document["when"]), tuple(map(point, document["points"])), broker, sessions)

    def is_late(self, now: float) -> bool:
        """Whether there should be a newer one by now."""
        return now - self.when > LATE


@dataclass(frozen=True)
class Limits:
    """From which number on something is wrong: see `gatehouse.site.alerts.Thresholds`. Times in seconds."""

    window: int
    rejected_messages: int
    refused_packets: int
    unknown_packets: int
    broker_refusals: int
    dropped_packets: int
    certificate_days: int
    disk_free_percent: int
    verification_hours: int
    takeovers: int
    unusual_times: float
    model_times: float
    unusual_messages: int
    unusual_bytes: int
    learning: int
