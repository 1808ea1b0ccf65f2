"""Which devices have fallen silent: nothing has come of them for longer than the site says. Pure: no clock, no files.

A device is watched from its first message on: one that waits in a drawer is no alert. Only time counts in which the
gateway listened. Whenever it did not, because it was off itself, or its broker, its intake or its database was away,
each device that was not silent by then has the whole time anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gatehouse.alerts.habits import Who
from gatehouse.alerts.reading import LATE, Reading
from gatehouse.messages.counts import MOST_NAMED

_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"))


@dataclass
class Silence:
    """Of each device that is watched, what its counter said and since when nothing has come (seconds since 1970).

    `when` is the time of the last reading, `took` what the intake had counted of its own affairs by then, None while
    it took nothing. `silent` are the devices that were silent then.
    """

    when: float = 0.0
    took: list[float] | None = None
    counted: dict[str, float] = field(default_factory=dict)
    since: dict[str, float] = field(default_factory=dict)
    silent: list[str] = field(default_factory=list)

    def take(self, reading: Reading, who: Mapping[str, Who]) -> None:
        """Learns from a reading."""
        now = reading.when
        if now == self.when:
            return
        took = _took(reading)
        totals = {t["device"]: fields["messages"] for measurement, t, fields in reading.points if measurement == "sent"}
        began_anew = any(totals.get(name, 0.0) < total for name, total in self.counted.items())
        listened = took is not None and took == self.took and not began_anew and 0 < now - self.when <= LATE
        watched = {name for name, device in who.items() if device.silent_after}
        if len(totals) >= MOST_NAMED:
            watched &= totals.keys()  # of others the intake counts nothing
        for name in watched & totals.keys():
            # A counter that begins anew has counted what it says.
            if totals[name] != self.counted.get(name, 0.0):
                self.since[name] = now
        self.since = {name: since for name, since in self.since.items() if name in watched}
        still = {name for name in self.silent if now - self.since.get(name, now) > who[name].silent_after > 0}
        if not listened:
            self.since |= dict.fromkeys(self.since.keys() - still, now)
        self.silent = sorted(n for n, since in self.since.items() if n in still or now - since > who[n].silent_after)
        self.when, self.took = now, took
        if took is not None:
            self.counted = totals

    def found(self, who: Mapping[str, Who]) -> dict[str, str]:
        """Who is silent now, in a line each, by key."""
        return {
            f"silent-device {name}": f"{name}: nothing has come for {_shown(self.when - self.since[name])},"
            f" {_shown(who[name].silent_after)} are the most"
            for name in self.silent
            if name in who
        }


def _took(reading: Reading) -> list[float] | None:
    """What changes whenever the intake was away, or was not taken from; None while it is."""
    for measurement, _, fields in reading.points:
        if measurement == "intake" and fields["connected"]:
            return [fields["sessions"], fields["failures"]]
    return None


def _shown(seconds: float) -> str:
    for length, unit in _UNITS:
        if seconds >= 2 * length or seconds == length:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds:.0f} s"
