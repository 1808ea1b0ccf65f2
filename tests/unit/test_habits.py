"""What a device usually does: how much it reports, where it comes from, and whether it is there twice."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import pytest

from gatehouse.alerts import __main__ as program
from gatehouse.alerts import book as books
from gatehouse.alerts import habits as module
from gatehouse.alerts.book import Book
from gatehouse.alerts.habits import IPV6, MEMORY, MOST_ADDRESSES, MOST_DEVICES, Average, Habits, Who, read_habits
from gatehouse.alerts.reading import Limits, Reading, Session, point
from gatehouse.alerts.rules import Counted, came, wrong
from gatehouse.collector import __main__ as collector
from gatehouse.collector import readings
from gatehouse.messages.counts import MOST_NAMED, Counts
from gatehouse.site.alerts import Thresholds

WINDOW, DAY = 600, 86_400
LIMITS = Limits(window=WINDOW, learning=DAY, **Thresholds().model_dump())
PUMP = {"pump-02": Who("relay", "")}
USUAL = 30  # messages within a window
SIZE = 100  # bytes


class Device:
    """A device's counters, and the habits that are made of them; a reading a minute."""

    def __init__(self, name: str = "pump-02", who: dict[str, Who] | None = None, habits: Habits | None = None) -> None:
        self.name, self.who = name, who or PUMP
        self.habits = habits or Habits()
        self.now, self.messages, self.bytes = 1e9, 0, 0
        self.minute(0)

    def minute(self, messages: int, size: int = SIZE, seconds: int = 60, come: tuple[str, ...] = ()) -> set[str]:
        """What is unusual after a minute with so many messages."""
        self.now += seconds
        self.messages, self.bytes = self.messages + messages, self.bytes + messages * size
        line = f"sent,device={self.name} messages={self.messages}i,bytes={self.bytes}i"
        self.habits.take(Reading(self.now, (point(line),), {}), {self.name: list(come)}, self.who, LIMITS)
        return set(self.habits.unusual(self.who, LIMITS))

    def days(self, days: float, a_minute: float = USUAL / 10, size: int = SIZE) -> set[str]:
        """All that was unusual in days with so many messages, as evenly as whole ones can be."""
        found: set[str] = set()
        for minute in range(int(days * 1440)):
            found |= self.minute(int((minute + 1) * a_minute) - int(minute * a_minute), size)
        return found


@pytest.fixture
def learned() -> Device:
    device = Device()
    assert device.days(1.1) == set()
    return device


# much


def test_a_flood_of_a_device_that_is_known_is_unusual_at_once_and_over_a_while_after_its_end(learned: Device) -> None:
    assert learned.minute(USUAL * 5) == {"unusual-rate pump-02"}
    text = learned.habits.unusual(PUMP, LIMITS)["unusual-rate pump-02"]
    assert text.endswith("messages within 600 s, 30 are usual for it")
    assert learned.days(0.02) == {"unusual-rate pump-02"}, "it lasts until a whole window was usual"
    assert learned.days(0.5) == set()


def test_messages_that_are_too_large_are_unusual_and_what_is_usual_beside_them_is_not(learned: Device) -> None:
    assert learned.minute(3, 30_000) == {"unusual-size pump-02"}
    assert "10" in learned.habits.unusual(PUMP, LIMITS)["unusual-size pump-02"]
    other = Device()
    other.days(1.1, size=400)
    assert other.minute(3, 1_200) == set(), "three times as large, where one message of many may be so"
    assert other.days(0.02, size=2_000) == {"unusual-size pump-02"}


def test_what_is_judged_has_not_been_learned_from_yet() -> None:
    """Where little was learned, as little as it takes, one window would change what is usual by much."""
    device = Device()
    limits = dataclasses.replace(LIMITS, learning=3 * WINDOW)
    for number, size in ((30, 20), (30, 20), (30, 20), (30, 20), (900, 700)):
        device.now += WINDOW
        device.messages, device.bytes = device.messages + number, device.bytes + number * size
        line = f"sent,device=pump-02 messages={device.messages}i,bytes={device.bytes}i"
        device.habits.take(Reading(device.now, (point(line),), {}), {}, PUMP, limits)
    assert set(device.habits.unusual(PUMP, limits)) == {"unusual-rate pump-02", "unusual-size pump-02"}


@pytest.mark.parametrize("window", [60, 3600])
def test_what_is_usual_within_another_window_is_learned_anew(learned: Device, window: int) -> None:
    limits = dataclasses.replace(LIMITS, window=window, learning=5 * window)

    def windows(number: int, messages: int) -> set[str]:
        found: set[str] = set()
        for _ in range(number):
            learned.now += window
            learned.messages, learned.bytes = learned.messages + messages, learned.bytes + messages * SIZE
            line = f"sent,device=pump-02 messages={learned.messages}i,bytes={learned.bytes}i"
            learned.habits.take(Reading(learned.now, (point(line),), {}), {}, PUMP, limits)
            found |= learned.habits.unusual(PUMP, limits).keys()
        return found

    usual = USUAL * window // WINDOW
    assert windows(4, usual) == set(), "it has no past yet"
    learned.habits = read_habits(json.loads(json.dumps(dataclasses.asdict(learned.habits))))
    assert windows(4, usual) == set()
    assert windows(1, max(10 * usual, LIMITS.unusual_messages + 10)) == {"unusual-rate pump-02"}


@pytest.mark.parametrize("hours", [0, 1, 23])
def test_a_new_device_cries_no_wolf(hours: int) -> None:
    device = Device()
    device.days(hours / 24)
    assert device.minute(100_000, 50_000) == set()


def test_a_device_that_is_quiet_may_say_something() -> None:
    device = Device()
    assert device.days(2, a_minute=1 / 360) == set(), "a message in six hours"
    assert device.minute(LIMITS.unusual_messages, 500) == set()
    assert device.minute(1) == {"unusual-rate pump-02"}, "and not any number of them"


def test_a_device_that_reports_in_bursts_keeps_to_them() -> None:
    device, found = Device(), set[str]()
    for hour in range(24 * 6):
        found |= device.minute(1000)
        for _ in range(59):
            found |= device.minute(0)
        assert hour < 24 or not found, hour
    assert found == set()
    assert device.minute(5000) == {"unusual-rate pump-02"}


def test_what_varies_as_it_always_has_is_usual() -> None:
    device, chance, found = Device(), random.Random(7), set[str]()  # noqa: S311  no secret
    for _ in range(int(5 * 1440)):
        found |= device.minute(chance.randrange(0, 40), chance.randrange(20, 300))
    assert found == set()


def test_a_flood_is_not_usual_within_hours_and_what_a_device_does_from_now_on_is_within_days(learned: Device) -> None:
    flood = USUAL / 10 * 8
    assert learned.days(0.25, flood) == {"unusual-rate pump-02"}
    assert learned.minute(0) == {"unusual-rate pump-02"}
    assert learned.days(1, flood) == {"unusual-rate pump-02"}
    learned.days(6, flood)
    assert learned.days(0.1, flood) == set()


def test_a_device_is_judged_by_others_of_its_model_before_it_has_a_past_of_its_own() -> None:
    names = [f"pump-{n}" for n in range(4)]
    who = {**{name: Who("relay", "") for name in names}, "new": Who("relay", ""), "other": Who("sensor", "")}
    habits = Habits()

    def minute(now: float, total: int, **more: int) -> set[str]:
        lines = [f"sent,device={name} messages={total}i,bytes={total * SIZE}i" for name in names]
        lines += [f"sent,device={name} messages={n}i,bytes={n * SIZE}i" for name, n in more.items()]
        habits.take(Reading(now, tuple(map(point, lines)), {}), {}, who, LIMITS)
        return set(habits.unusual(who, LIMITS))

    for n in range(1600):
        assert minute(60.0 + 60 * n, 3 * n) == set()
    now = 60.0 + 60 * 1600
    assert minute(now, 4800, new=0, other=0) == set()
    assert minute(now + 60, 4803, new=290, other=290) == set(), "less than ten times as many"
    assert minute(now + 120, 4806, new=400, other=400) == {"unusual-rate new"}, "and nothing is known of the other's"
    assert habits.unusual(who, LIMITS)["unusual-rate new"].endswith("30 are usual for other relay")


def test_an_intake_that_starts_again_and_one_that_was_away_change_nothing(learned: Device) -> None:
    learned.messages = learned.bytes = 0
    assert learned.minute(3) == set(), "the counters begin anew"
    assert learned.days(0.1) == set()
    before = learned.habits.devices["pump-02"].rate.mean
    learned.habits.take(Reading(learned.now + 60, (), {}), {}, PUMP, LIMITS)
    assert learned.minute(2000, seconds=7200) == set(), "when they were sent nobody knows"
    assert learned.habits.devices["pump-02"].rate.mean == before
    assert learned.minute(3, seconds=-5000) == set(), "a clock that was set back"
    assert learned.days(0.2) == set()
    assert learned.minute(1000) == {"unusual-rate pump-02"}


def test_what_was_sent_before_anybody_looked_is_nobody_s_alert_and_one_reading_counts_once(learned: Device) -> None:
    fresh = Device(habits=Habits())
    fresh.messages = 1_000_000
    fresh.habits = dataclasses.replace(learned.habits, when=0.0, last={})
    fresh.now = learned.now
    assert fresh.minute(3) == set()
    learned.minute(100)
    again = Reading(learned.now, (point(f"sent,device=pump-02 messages={learned.messages + 900}i,bytes=1i"),), {})
    learned.habits.take(again, {}, PUMP, LIMITS)
    assert learned.habits.unusual(PUMP, LIMITS) == {}


def test_only_devices_of_the_registry_are_watched_and_so_many_at_most() -> None:
    device = Device("gatehouse-probe-1")
    device.days(2)
    assert device.habits.devices == {} and device.minute(100_000) == set()
    who = {f"d{n}": Who("relay", "") for n in range(MOST_DEVICES + 50)}
    habits = Habits()
    lines = tuple(point(f"sent,device={name} messages=1i,bytes=1i") for name in who)
    habits.take(Reading(60.0, lines, {}), {}, who, LIMITS)
    assert len(habits.devices) == MOST_DEVICES
    habits.take(Reading(120.0, lines, {}), {}, {"d7": who["d7"]}, LIMITS)
    assert list(habits.devices) == ["d7"], "who is no longer registered is forgotten"


def test_the_mean_and_the_spread_are_those_of_the_numbers_and_forget_slowly() -> None:
    average = Average()
    for value in (2, 4, 4, 4, 5, 5, 7, 9):
        average.take(value)
    assert (average.mean, average.square) == (pytest.approx(5), pytest.approx(4))
    for _ in range(5 * MEMORY):
        average.take(50)
    assert average.mean == pytest.approx(50, rel=0.01)


def test_habits_outlive_a_restart(learned: Device, tmp_path: Path) -> None:
    learned.minute(3, come=("10.0.0.9",))
    books.write(tmp_path / "state.json", Book(habits=learned.habits))
    learned.habits = books.read(tmp_path / "state.json").habits
    assert learned.minute(1000) == {"unusual-rate pump-02"}
    assert read_habits(json.loads(json.dumps(dataclasses.asdict(learned.habits)))).known == {
        "pump-02": {"10.0.0.9": learned.now - 60}
    }
    book = json.loads((tmp_path / "state.json").read_text())
    del book["habits"]
    (tmp_path / "state.json").write_text(json.dumps(book))
    assert books.read(tmp_path / "state.json").habits == Habits(), "the book of a former version"


# from where


def test_a_device_that_comes_from_elsewhere_than_its_reservation_is_told_at_once() -> None:
    who = {"pump-02": Who("relay", "10.0.0.9")}
    device = Device(who=who)
    assert device.minute(1, come=("10.0.0.9",)) == set()
    assert device.minute(1, come=("10.0.0.77", "10.0.0.9")) == {"source-address pump-02"}
    assert "from 10.0.0.77, it is to come from 10.0.0.9" in device.habits.unusual(who, LIMITS)["source-address pump-02"]
    for _ in range(WINDOW // 60 - 1):
        assert device.minute(1, come=("10.0.0.9",)) == {"source-address pump-02"}
    assert device.minute(1) == set(), "after a window it is over"
    assert device.minute(1, come=("10.0.0.77",)) == {"source-address pump-02"}, "it is never where it belongs"
    assert Device(who=who).minute(1, come=("fd00::9",)) == set(), "IPv6 addresses are the device's to make"


def test_without_a_reservation_it_is_where_it_never_was_once_it_is_known() -> None:
    device = Device()
    assert device.minute(1, come=("10.0.0.9",)) == set()
    assert device.minute(1, come=("10.0.0.10",)) == set(), "a new device may move"
    device.days(1)
    assert device.minute(1, come=("10.0.0.9",)) == set()
    assert device.minute(1, come=("10.0.0.77",)) == {"source-address pump-02"}
    assert "it used to come from 10.0.0.9" in device.habits.unusual(PUMP, LIMITS)["source-address pump-02"]
    device.days(0.1)
    assert device.minute(1, come=("10.0.0.77",)) == set(), "it was there before"
    assert device.minute(1, come=("fd00::1",)) == {"source-address pump-02"}
    device.days(0.1)
    assert device.minute(1, come=("fd00::2",)) == set() and IPV6 in device.habits.known["pump-02"]
    for n in range(30):
        device.minute(1, come=(f"10.0.1.{n}",))
    assert len(device.habits.known["pump-02"]) == MOST_ADDRESSES


def test_an_address_of_long_ago_is_forgotten() -> None:
    device = Device()
    device.minute(1, come=("10.0.0.9",))
    device.now += 2 * DAY
    device.minute(1, come=("10.0.0.10",))
    device.now += module.ADDRESS_LIFE
    device.minute(1, come=("10.0.0.10",))
    assert list(device.habits.known["pump-02"]) == ["10.0.0.10"]


# twice


def sessions(counted: Counted, now: float, taken: int, **addresses: int) -> dict[str, str]:
    """What is wrong when a client's session was taken over so often in all, and it came so often from each address."""
    places = {name.strip("_").replace("_", "."): number for name, number in addresses.items()}
    reading = Reading(now, (), {}, {"pump-02": Session(taken, places), "gatehouse-probe-1-thief": Session(900, places)})
    counted.take(reading, WINDOW)
    return wrong(reading, counted, LIMITS, {}, now, 1e6, ["10.0.0.1"])


def test_one_certificate_in_two_places_is_told_and_where_they_are() -> None:
    counted = Counted()
    assert sessions(counted, 1000.0, 0, _10_0_0_9=1) == {}
    assert sessions(counted, 1060.0, 1, _10_0_0_9=1, _10_0_0_77=1) == {}, "it may have moved"
    found = sessions(counted, 1120.0, 2, _10_0_0_9=2, _10_0_0_77=1)
    assert set(found) == {"shared-certificate pump-02"}
    assert (
        "taken over 2 times within 600 s, from 10.0.0.77, 10.0.0.9: do two use" in found["shared-certificate pump-02"]
    )
    assert sessions(counted, 1120.0 + WINDOW, 2, _10_0_0_9=2, _10_0_0_77=1) == {}


def test_a_bad_connection_is_no_second_place_and_again_and_again_is() -> None:
    counted = Counted()
    sessions(counted, 1000.0, 0, _10_0_0_9=1)
    assert sessions(counted, 1060.0, 9, _10_0_0_9=10) == {}
    assert set(sessions(counted, 1120.0, 10, _10_0_0_9=11)) == {"shared-certificate pump-02"}


def test_what_the_kit_does_in_a_device_s_name_is_not_the_device() -> None:
    counted = Counted()
    sessions(counted, 1000.0, 0, **{"10_0_0_9": 1})
    assert sessions(counted, 1060.0, 3, **{"10_0_0_9": 2, "10_0_0_1": 2}) == {}, "a revocation ends its session so"
    assert came(["connects pump-02 10.0.0.1", "connects pump-02 10.0.0.9", "restart x"], ["10.0.0.1"]) == {
        "pump-02": ["10.0.0.9"]
    }


# what the intake and the collector leave for it

LOG = """\
New connection from 10.0.0.9:40001 on port 8883.
New client connected from 10.0.0.9:40001 as pump-02 (p5, c1, k60, u'pump-02').
Client pump-02 already connected, closing old connection.
New client connected from 10.0.0.77:50002 as pump-02 (p5, c0, k60, u'pump-02').
New client connected from fd00::50:50003 as kitchen-01 (p2, c0, k30, u'kitchen-01').
Client kitchen-01 disconnected.
Client <unknown> disconnected, not authorised.
""".splitlines()


def test_who_connects_from_where_and_who_takes_over_is_read_and_counted_on(tmp_path: Path) -> None:
    lines = readings.sessions(LOG)
    assert lines == [
        "connects,client=pump-02,address=10.0.0.9 count=1i",
        "connects,client=pump-02,address=10.0.0.77 count=1i",
        "connects,client=kitchen-01,address=fd00::50 count=1i",
        "takeovers,client=pump-02 count=1i",
    ]
    assert all(line.startswith(readings.NOT_STORED) for line in lines)
    path = tmp_path / "reading.json"
    for when in (1.0, 2.0):
        collector.leave(path, lines, when)
    collector.leave(path, ["disk,folder=/ free=1.0"], 3.0)
    left = Reading.of(json.loads(path.read_text())).sessions
    assert left["pump-02"] == Session(2, {"10.0.0.9": 2, "10.0.0.77": 2})
    assert left["kitchen-01"] == Session(0, {"fd00::50": 2})
    path.write_text('{"when": 1, "points": [], "broker": {}, "sessions": 7}')
    collector.leave(path, lines, 4.0)
    assert Reading.of(json.loads(path.read_text())).sessions["pump-02"].taken == 1


def test_how_many_clients_and_addresses_are_counted_is_bounded() -> None:
    found: dict[str, Any] = {}
    for n in range(readings.MOST_CLIENTS + 5):
        found = readings.known_sessions([f"connects,client=c{n},address=10.0.0.9 count=1i"], found)
    assert len(found) == readings.MOST_CLIENTS and "c0" not in found
    for n in range(20):
        found = readings.known_sessions([f"connects,client=c9,address=10.0.0.{n} count=1i"], found)
    assert list(found["c9"]["from"]) == [f"10.0.0.{n}" for n in range(20 - readings.MOST_ADDRESSES, 20)]


def test_the_intake_counts_messages_and_bytes_by_device_up_to_a_bound(tmp_path: Path) -> None:
    counts = Counts(tmp_path / "metrics.prom", lambda _: None)
    assert readings.sent(counts.render()) == []
    for size in (10, 20):
        counts.count("pump-02", size)
    counts.count("nobody known", 5)
    for n in range(MOST_NAMED + 5):
        counts.count(f"d{n}", 1)
    lines = readings.sent(counts.render())
    assert len(lines) == MOST_NAMED and "sent,device=pump-02 messages=2i,bytes=30i" in lines
    assert all(line.startswith(readings.NOT_STORED) for line in lines)
    assert readings.rejected(counts.render()) == []


# the program


def test_without_the_devices_the_rest_is_judged_all_the_same(tmp_path: Path) -> None:
    settings = {
        "site": "home", "gateway": "gw", "reading": str(tmp_path / "reading.json"), "state": str(tmp_path), "ways": {},
        "limits": {"window": WINDOW, "learning": DAY, **Thresholds().model_dump()}, "calm": 300, "own": [],
        "devices": str(tmp_path / "devices.json"),
    }  # fmt: skip
    failed = "unit,name=ssh.service failed=1i,restarts=0i"
    (tmp_path / "reading.json").write_text(json.dumps({"when": 1000.0, "points": [failed], "broker": {}}))
    (said,) = program.run(settings, 1001.0, 1e6)
    assert "devices.json: FileNotFoundError" in said
    assert set(books.read(tmp_path / "state.json").raised) == {"unit ssh.service"}


def test_the_program_tells_what_is_unusual(tmp_path: Path) -> None:
    (tmp_path / "devices.json").write_text(json.dumps({"pump-02": {"model": "relay", "address": "10.0.0.9"}}))
    settings = {
        "site": "home", "gateway": "gw", "reading": str(tmp_path / "reading.json"), "state": str(tmp_path), "ways": {},
        "limits": {"window": WINDOW, "learning": DAY, **Thresholds().model_dump()}, "calm": 300, "own": ["10.0.0.1"],
        "devices": str(tmp_path / "devices.json"),
    }  # fmt: skip

    def run(when: float, address: str, number: int) -> set[str]:
        sessions = {"pump-02": {"taken": 0, "from": {address: number}}}
        document = {"when": when, "points": [], "broker": {}, "sessions": sessions}
        (tmp_path / "reading.json").write_text(json.dumps(document))
        assert program.run(settings, when + 1, 1e6) == []
        return set(books.read(tmp_path / "state.json").raised)

    assert run(1000.0, "10.0.0.77", 1) == set(), "what was there before anybody looked"
    assert run(1060.0, "10.0.0.1", 1) == set(), "the kit itself"
    assert run(1120.0, "10.0.0.77", 2) == {"source-address pump-02"}
