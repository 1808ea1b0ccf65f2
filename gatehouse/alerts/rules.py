"""What is wrong, by one reading of the collector's and what was counted before. Pure: no clock, no files.

What is wrong goes by a key of kind and subject, such as `rejected-messages kitchen-01`:

    rejected-messages DEVICE    the intake rejected messages of a device
    refused-packets DEVICE      the firewall refused packets of a device
    unknown-hardware *          the same of hardware addresses that are no device's, in segments that hold devices
    shared-certificate CLIENT   sessions of one certificate took each other over: two use it
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

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from gatehouse.alerts.reading import LATE, Limits, Point, Reading

FIFTH = 0.2
TAKEN, CAME = "takeovers", "connects"
UNKNOWN, ELSEWHERE = "unknown", "elsewhere"
"""Whose hardware addresses are no device's, in segments that hold devices and in others; see the collector."""
PROBES = "gatehouse-probe-"
"""What the compliance suite's own clients are called: they take each other over to see what comes of it."""
MOST_COUNTED = 2000
"""Things that are counted within a window at a time: those that were counted most."""
AGAIN = 1.2
"""A disk is no longer nearly full when so many times as much is free."""


@dataclass
class Counted:
    """What of the counters is known: the time of the reading before, each one's number then, and what was added since.

    `added` are pairs of time and number, none older than the window.
    """

    when: float = 0.0
    last: dict[str, float] = field(default_factory=dict)
    added: dict[str, list[list[float]]] = field(default_factory=dict)

    def take(self, reading: Reading, window: int) -> list[str]:
        """Adds what a reading counts; returns what has counted. The very first one says only where counting begins."""
        first, now = not self.when, reading.when
        if now == self.when:
            return []
        risen = []
        totals = _totals(reading)
        for key, (total, whole) in totals.items():
            before = self.last.get(key, 0.0)
            # A counter that begins anew has counted what it says; of many that are added up, one was forgotten.
            more = total - before if total >= before else total if whole else 0.0
            if more > 0 and not first:
                self.added.setdefault(key, []).append([now, more])
                risen.append(key)
        self.when, self.last = now, {key: total for key, (total, _) in totals.items()}
        # A clock that was set back leaves entries in the future.
        kept = {key: [e for e in entries if now - window < e[0] <= now] for key, entries in self.added.items()}
        most = sorted((key for key in kept if kept[key]), key=lambda key: -sum(n for _, n in kept[key]))
        self.added = {key: kept[key] for key in most[:MOST_COUNTED]}
        return risen

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
            # Addresses are forgotten after a day. Who is refused where there are no devices is nobody's alert.
            if device != ELSEWHERE:
                key = "unknown-hardware *" if device == UNKNOWN else f"refused-packets {device}"
                add(key, fields["packets"], False)
        elif measurement == "firewall":
            add(f"dropped-packets {tags['segment']}", fields["packets"])
        elif measurement == "unit":
            add(f"restart {tags['name']}", fields["restarts"])
    for reason, number in reading.broker.items():
        add(f"broker-refusals {reason}", number)
    for client, session in reading.sessions.items():
        add(f"{TAKEN} {client}", session.taken)
        for address, number in session.addresses.items():
            add(f"{CAME} {client} {address}", number)
    return found


def came(risen: list[str], own: Collection[str]) -> dict[str, list[str]]:
    """From what has counted: the addresses that each client connected from. The gateway's own are the kit's."""
    found: dict[str, list[str]] = {}
    for key in risen:
        kind, _, rest = key.partition(" ")
        client, _, address = rest.partition(" ")
        if kind == CAME and address not in own:
            found.setdefault(client, []).append(address)
    return found


def _shared(within: Mapping[str, int], limits: Limits, own: Collection[str]) -> dict[str, str]:
    """Sessions that were taken over: back and forth between two addresses, or again and again from one."""
    addresses, found = came(list(within), own), {}
    for key, number in within.items():
        kind, _, client = key.partition(" ")
        places = sorted(addresses.get(client, ()))
        if kind == TAKEN and not client.startswith(PROBES) and number >= (2 if len(places) > 1 else limits.takeovers):
            found[f"shared-certificate {client}"] = (
                f"{client}: its session was taken over {number} times within {limits.window} s,"
                f" from {', '.join(places) or 'this gateway'}: do two use its certificate?"
            )
    return found


_COUNTS = {
    "rejected-messages": ("rejected_messages", "{subject}: {n} messages rejected within {window} s"),
    "refused-packets": ("refused_packets", "{subject}: {n} packets refused within {window} s"),
    "unknown-hardware": ("unknown_packets", "{n} packets of unknown hardware addresses refused within {window} s"),
    "broker-refusals": ("broker_refusals", "the broker refused {n} connections within {window} s, at the {subject}"),
    "dropped-packets": ("dropped_packets", "{n} packets from {subject} dropped within {window} s"),
}


def wrong(
    reading: Reading | None,
    counted: Counted,
    limits: Limits,
    raised: Mapping[str, str],
    now: float,
    awake: float,
    own: Collection[str] = (),
) -> dict[str, str]:
    """What is wrong now, in a line each, by key. `counted` has taken the reading, `raised` is what was wrong before.

    `awake` is for how long there could have been a reading: soon after a start there is none yet. While there is none,
    whatever was wrong is.
    """
    if reading is None or reading.is_late(now):
        late = {"numbers *": f"no reading of the gateway's own numbers for more than {LATE} s"} if awake > LATE else {}
        return {**raised, **late}
    within = counted.within(reading.when, limits.window)
    found = _shared(within, limits, own)
    for key, number in within.items():
        kind, _, subject = key.partition(" ")
        if kind == "restart":
            found[key] = f"{subject} ended by itself and was started again, {number} times within {limits.window} s"
        elif kind in _COUNTS and number >= getattr(limits, _COUNTS[kind][0]):
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
