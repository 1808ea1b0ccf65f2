"""What is wrong, by one reading of the collector's and what was counted before. Pure: no clock, no files.

What is wrong goes by a key of kind and subject, such as `rejected-messages kitchen-01`:

    rejected-messages DEVICE    the intake rejected messages of a device
    refused-packets DEVICE      the firewall refused packets of a device
    unknown-hardware *          the firewall refused packets of hardware addresses that are no device's
    broker-refusals REASON      the broker turned away connections, at TLS (`handshake`) or by their names (`login`)
    dropped-packets SEGMENT     the firewall dropped packets from a segment
    certificate NAME            a certificate is in the last fifth of its life
    disk FOLDER                 a file system is nearly full
    unit UNIT                   a unit has failed
    restart UNIT                a unit ended by itself, and systemd started it again
    verification *              the nightly verification found something wrong, or was not made
    numbers *                   the collector leaves no readings
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

FIFTH = 0.2
LATE = 300  # seconds without a reading
MOST_COUNTED = 2000
"""Things that are counted within a window at a time: those that were counted most."""
AGAIN = 1.2
"""A disk is no longer nearly full when so many times as much is free."""


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


@dataclass(frozen=True)
class Reading:
    """What the collector read at a time (seconds since 1970), and what the broker refused since a start, by reason."""

    when: float
    points: tuple[Point, ...]
    broker: Mapping[str, int]

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Reading:
        """From the file that the collector leaves. Raises `ValueError`, `KeyError`, `TypeError` or `AttributeError`."""
        broker = {str(reason): int(number) for reason, number in document["broker"].items()}
        return cls(float(document["when"]), tuple(map(point, document["points"])), broker)


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


@dataclass
class Counted:
    """What of the counters is known: the time of the reading before, each one's number then, and what was added since.

    `added` are pairs of time and number, none older than the window.
    """

    when: float = 0.0
    last: dict[str, float] = field(default_factory=dict)
    added: dict[str, list[list[float]]] = field(default_factory=dict)

    def take(self, reading: Reading, window: int) -> None:
        """Adds what a reading counts. The very first one says only where counting begins."""
        first, now = not self.when, reading.when
        if now == self.when:
            return
        totals = _totals(reading)
        for key, (total, whole) in totals.items():
            before = self.last.get(key, 0.0)
            # A counter that begins anew has counted what it says; of many that are added up, one was forgotten.
            more = total - before if total >= before else total if whole else 0.0
            if more > 0 and not first:
                self.added.setdefault(key, []).append([now, more])
        self.when, self.last = now, {key: total for key, (total, _) in totals.items()}
        # A clock that was set back leaves entries in the future.
        kept = {key: [e for e in entries if now - window < e[0] <= now] for key, entries in self.added.items()}
        most = sorted((key for key in kept if kept[key]), key=lambda key: -sum(n for _, n in kept[key]))
        self.added = {key: kept[key] for key in most[:MOST_COUNTED]}

    def within(self, now: float, window: int) -> dict[str, int]:
        """How much each has counted within the window."""
        sums = {key: sum(n for when, n in entries if when > now - window) for key, entries in self.added.items()}
        return {key: int(total) for key, total in sums.items() if total}


def _totals(reading: Reading) -> dict[str, tuple[float, bool]]:
    """Each counter's number, and whether it is one counter and not a sum of what comes and goes."""
    found: dict[str, tuple[float, bool]] = {}

    def add(key: str, number: float, whole: bool = True) -> None:
        found[key] = found.get(key, (0.0, whole))[0] + number, whole

    for measurement, tags, fields in reading.points:
        if measurement == "rejected":
            add(f"rejected-messages {tags['device']}", fields["messages"])
        elif measurement == "refused":
            device = tags["device"]
            # Addresses are forgotten after a day.
            add("unknown-hardware *" if device == "unknown" else f"refused-packets {device}", fields["packets"], False)
        elif measurement == "firewall":
            add(f"dropped-packets {tags['segment']}", fields["packets"])
        elif measurement == "unit":
            add(f"restart {tags['name']}", fields["restarts"])
    for reason, number in reading.broker.items():
        add(f"broker-refusals {reason}", number)
    return found


_COUNTS = {
    "rejected-messages": ("rejected_messages", "{subject}: {n} messages rejected within {window} s"),
    "refused-packets": ("refused_packets", "{subject}: {n} packets refused within {window} s"),
    "unknown-hardware": ("unknown_packets", "{n} packets of unknown hardware addresses refused within {window} s"),
    "broker-refusals": ("broker_refusals", "the broker refused {n} connections within {window} s, at the {subject}"),
    "dropped-packets": ("dropped_packets", "{n} packets from {subject} dropped within {window} s"),
}


def wrong(
    reading: Reading | None, counted: Counted, limits: Limits, raised: Mapping[str, str], now: float, awake: float
) -> dict[str, str]:
    """What is wrong now, in a line each, by key. `counted` has taken the reading, `raised` is what was wrong before.

    `awake` is for how long there could have been a reading: soon after a start there is none yet. While there is none,
    whatever was wrong is.
    """
    if reading is None or now - reading.when > LATE:
        late = {"numbers *": f"no reading of the gateway's own numbers for more than {LATE} s"} if awake > LATE else {}
        return {**raised, **late}
    found: dict[str, str] = {}
    for key, number in counted.within(reading.when, limits.window).items():
        kind, _, subject = key.partition(" ")
        if kind == "restart":
            found[key] = f"{subject} ended by itself and was started again, {number} times within {limits.window} s"
        elif number >= getattr(limits, _COUNTS[kind][0]):
            found[key] = _COUNTS[kind][1].format(subject=subject, n=number, window=limits.window)
    for each in reading.points:
        found |= _state(each, limits, raised)
    return found


def _state(given: Point, limits: Limits, was: Mapping[str, str]) -> dict[str, str]:
    """What of one point is wrong by itself."""
    measurement, tags, fields = given
    if measurement == "certificate":
        days, life = fields["days"], fields.get("life", 0.0)
        if days <= (FIFTH * life if life else limits.certificate_days):
            end = f"has {days:.1f} days left" if days > 0 else "is over"
            return {f"certificate {tags['name']}": f"the certificate of {tags['name']} {end}"}
    elif measurement == "disk":
        key, least = f"disk {tags['folder']}", float(limits.disk_free_percent)
        if fields["free"] < (least * AGAIN if key in was else least):
            return {key: f"{tags['folder']}: {fields['free']:.0f} % free, {limits.disk_free_percent} % are needed"}
    elif measurement == "unit" and fields["failed"]:
        return {f"unit {tags['name']}": f"{tags['name']} has failed"}
    elif measurement == "verified":
        if fields["wrong"]:
            return {"verification *": f"the nightly verification found {int(fields['wrong'])} wrong"}
        if fields["hours"] > limits.verification_hours:
            return {"verification *": f"the last nightly verification was {fields['hours']:.0f} hours ago"}
    return {}
