"""A device that falls silent is told, once it has spoken, and not because its gateway was away."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

from deploy.devices import bring
from gatehouse.alerts import __main__ as program
from gatehouse.alerts import book as books
from gatehouse.alerts.habits import Who
from gatehouse.alerts.reading import LATE, Reading, point
from gatehouse.alerts.silence import Silence
from gatehouse.collector import __main__ as collector
from gatehouse.collector import readings
from gatehouse.identity import Pki, SecretStore
from gatehouse.messages.counts import MOST_NAMED, Counts
from gatehouse.site import SiteError
from gatehouse.site.alerts import SilentAfter, Thresholds
from roles.alerts import files
from roles.target import Target
from tests.unit.machine import ROOT
from tests.unit.test_alerts_site import site, target
from tests.unit.test_cut_off import Told

BOUND = 600
WHO = {"kitchen-01": Who("sht31", "", BOUND), "pump-02": Who("relay", "", BOUND), "test-03": Who("relay", "")}
ALL = tuple(WHO)


class Field:
    """Devices that send, and a gateway that takes a reading a minute."""

    def __init__(self, who: dict[str, Who] | None = None) -> None:
        self.who, self.silence = dict(who or WHO), Silence()
        self.now, self.sent = 1e9, dict[str, int]()
        self.sessions, self.failures, self.connected = 1, 0, True

    def minute(self, *speak: str, seconds: int = 60) -> set[str]:
        """Who is silent after a minute in which these spoke."""
        self.now += seconds
        for name in speak:
            self.sent[name] = self.sent.get(name, 0) + 1
        points = [f"sent,device={name} messages={n}i,bytes={n * 9}i" for name, n in self.sent.items()]
        points.append(f"intake connected={int(self.connected)}i,sessions={self.sessions}i,failures={self.failures}i")
        self.silence.take(Reading(self.now, tuple(map(point, points)), {}), self.who)
        return {key.removeprefix("silent-device ") for key in self.silence.found(self.who)}

    def minutes(self, number: int, *speak: str) -> set[str]:
        """All who were silent in so many."""
        return {name for _ in range(number) for name in self.minute(*speak)}


@pytest.fixture
def here() -> Field:
    made = Field()
    assert made.minutes(30, *ALL) == set()
    return made


def test_a_device_that_falls_silent_is_told_from_its_bound_on_until_it_speaks(here: Field) -> None:
    assert here.minutes(10, "kitchen-01") == set(), "just as long as it may"
    assert here.minute("kitchen-01") == {"pump-02"}
    assert (
        here.silence.found(WHO)["silent-device pump-02"] == "pump-02: nothing has come for 11 min, 10 min are the most"
    )
    assert here.minutes(60, "kitchen-01") == {"pump-02"}
    assert here.minute("kitchen-01", "pump-02") == set()


def test_whose_model_has_no_bound_may_be_silent(here: Field) -> None:
    assert here.minutes(100, "kitchen-01", "pump-02") == set()


def test_a_device_is_watched_from_its_first_message_on() -> None:
    field = Field()
    assert field.minutes(100, "kitchen-01") == set(), "the other one was never switched on"
    assert field.minutes(10, "kitchen-01", "pump-02") == set()
    assert field.minutes(11, "kitchen-01") == {"pump-02"}


def test_what_was_counted_before_alerts_began_is_a_message_too() -> None:
    field = Field()
    field.sent = {"pump-02": 4711}
    assert field.minutes(11) == set()
    assert field.minute() == {"pump-02"}


def restart(field: Field) -> None:
    field.sent = {}
    field.minute(seconds=90)


def long_restart(field: Field) -> None:
    field.sent = {}
    field.minute(seconds=LATE + 1)


def new_session(field: Field) -> None:
    field.sessions += 1
    field.minute()


def database_away(field: Field) -> None:
    field.failures += 3
    field.minute()


def intake_away(field: Field) -> None:
    field.connected, field.sent = False, {}
    field.minutes(60)
    field.connected = True
    field.minute()


def clock_set(field: Field) -> None:
    field.minute(seconds=86_400)


def clock_set_back(field: Field) -> None:
    field.minute(seconds=-86_400)


@pytest.mark.parametrize(
    "away", [restart, long_restart, new_session, database_away, intake_away, clock_set, clock_set_back]
)
def test_while_the_gateway_did_not_listen_nobody_falls_silent_and_all_have_the_whole_time_anew(
    here: Field, away: Any
) -> None:
    here.minutes(9)
    away(here)
    assert here.minutes(10) == set()
    assert here.minute() == {"kitchen-01", "pump-02"}, "who does not come back is told"


@pytest.mark.parametrize("away", [restart, new_session, database_away, intake_away])
def test_who_was_silent_before_still_is(here: Field, away: Any) -> None:
    assert here.minutes(11, "kitchen-01") == {"pump-02"}
    away(here)
    assert here.minute("kitchen-01") == {"pump-02"}
    assert here.minute("kitchen-01", "pump-02") == set()


def test_while_the_intake_is_away_nobody_is_told_for_that(here: Field) -> None:
    here.connected = False
    assert here.minutes(100) == set()
    points = [point("sent,device=pump-02 messages=9i,bytes=9i")]
    here.silence.take(Reading(here.now + 6000, tuple(points), {}), WHO)
    assert here.silence.found(WHO) == {}, "nor by a reading without a word of it"


def test_who_is_watched_no_longer_is_silent_no_longer(here: Field) -> None:
    assert here.minutes(11) == {"kitchen-01", "pump-02"}
    here.who["pump-02"] = here.who["pump-02"]._replace(silent_after=0)
    here.who["kitchen-01"] = here.who["kitchen-01"]._replace(silent_after=7200)
    assert here.minute() == set()
    del here.who["kitchen-01"]
    assert here.minute() == set() and here.silence.since == {}


def test_whom_the_intake_does_not_count_is_not_said_to_be_silent() -> None:
    field = Field({f"d{n}": Who("m", "", BOUND) for n in range(MOST_NAMED + 1)})
    field.minute(*field.who)
    field.sent = dict.fromkeys(list(field.who)[:MOST_NAMED], 1)  # the intake began anew
    for _ in range(20):
        assert f"d{MOST_NAMED}" not in field.minute(*list(field.who)[: MOST_NAMED - 1])
    assert field.minute() == {f"d{MOST_NAMED - 1}"}


@pytest.mark.parametrize(("seconds", "shown"), [(119, "119 s"), (120, "2 min"), (5400, "90 min"), (86_400, "1 d")])
def test_times_are_shown_in_units_that_people_use(seconds: int, shown: str) -> None:
    field = Field({"a": Who("m", "", 60)})
    field.minute("a")
    field.minute(seconds=60)
    field.silence.since["a"], field.silence.silent = field.now - seconds, ["a"]
    assert field.silence.found(field.who)["silent-device a"].startswith(f"a: nothing has come for {shown},")


# the programs


def test_the_collector_says_whether_the_intake_listens(tmp_path: Path) -> None:
    counts = Counts(tmp_path / "metrics")
    counts.values |= {"connected": 1, "connections": 3, "write_failures": 2}
    assert readings.listens(counts.render()) == ["intake connected=1i,sessions=3i,failures=2i"]
    assert readings.listens("") == []
    counts.write()
    (tmp_path / "registry").write_text("{}")
    (tmp_path / "names").write_text("{}")
    settings = {
        "metrics": str(tmp_path / "metrics"), "names": str(tmp_path / "names"), "registry": str(tmp_path / "registry"),
        "broker": "", "certificates": {}, "bridges": [],
    }  # fmt: skip
    points, _ = collector.collected(settings)
    assert "intake connected=1i,sessions=3i,failures=2i" in points
    assert all(each.startswith(readings.NOT_STORED) for each in points if each.startswith("intake"))


def test_it_is_told_once_and_its_end_is_and_both_outlive_a_restart(tmp_path: Path) -> None:
    (tmp_path / "devices.json").write_text(json.dumps({"a": {"model": "m", "address": "", "silent_after": BOUND}}))
    settings = {
        "devices": str(tmp_path / "devices.json"), "own": [], "site": "home", "gateway": "gw", "calm": 0, "ways": {},
        "reading": str(tmp_path / "reading.json"), "state": str(tmp_path),
        "limits": {"window": 600, "learning": 86_400, **Thresholds().model_dump()},
    }  # fmt: skip

    def minute(now: int, messages: int) -> tuple[set[str], int]:
        points = [f"sent,device=a messages={messages}i,bytes=9i", "intake connected=1i,sessions=1i,failures=0i"]
        (tmp_path / "reading.json").write_text(json.dumps({"when": now, "points": points, "broker": {}}))
        assert program.run(settings, now, 1e6) == []
        book = books.read(tmp_path / "state.json")
        return set(book.raised), book.number

    assert [minute(60 * n, 7) for n in range(1, 12)] == [(set(), 0)] * 11
    assert [minute(60 * n, 7) for n in range(12, 20)] == [({"silent-device a"}, 1)] * 8
    assert minute(1200, 8) == (set(), 2)


def test_a_book_of_before_is_read(tmp_path: Path) -> None:
    books.write(tmp_path / "state.json", books.Book())
    before = json.loads((tmp_path / "state.json").read_text())
    del before["silence"]
    (tmp_path / "state.json").write_text(json.dumps(before))
    assert books.read(tmp_path / "state.json") == books.Book()


# the site


def test_a_device_s_own_time_counts_more_than_its_model_s() -> None:
    wanted = SilentAfter(models={"relay": "15m"}, devices={"pump-02": "1d", "test-03": "never"})
    assert wanted.of("pump-01", "relay") == "15m"
    assert wanted.of("pump-02", "relay") == "1d"
    assert wanted.of("test-03", "relay") == wanted.of("kitchen-01", "sht31") == ""


def test_on_a_gateway_each_device_that_is_active_has_its_own() -> None:
    devices = [
        {"name": "kitchen-01", "model": "sht31", "gateway": "gw"},
        {"name": "pump-02", "model": "relay", "gateway": "gw"},
        {"name": "pump-03", "model": "relay", "gateway": "gw", "status": "quarantined"},
    ]
    wanted = {"silent_after": {"models": {"relay": "15m"}, "devices": {"kitchen-01": "2h"}}}
    found = json.loads(files.devices(target(wanted, devices=devices)).content)
    assert {name: each["silent_after"] for name, each in found.items()} == {
        "kitchen-01": 7200, "pump-02": 900, "pump-03": 0,
    }  # fmt: skip
    found = json.loads(files.devices(target({}, devices=devices)).content)
    assert {each["silent_after"] for each in found.values()} == {0}, "off where nothing is said"


def test_a_gateway_is_told_at_once_who_is_cut_off_and_may_be_silent(tmp_path: Path) -> None:
    pump = {"name": "pump-02", "model": "relay", "gateway": "gw", "address": "10.10.10.51"}
    pki = Pki(SecretStore(), "home", "home.internal", ["10.0.0.0/8", "fd10::/16"]).ensure()
    for status, after in (("active", 900), ("quarantined", 0)):
        wanted = {"silent_after": {"models": {"relay": "15m"}}}
        here = Target(site(wanted, devices=[{**pump, "status": status}]), "gw", lambda: pki)
        told = Told(tmp_path / status)
        bring(told, here, here.site.devices)  # type: ignore[arg-type]
        assert json.loads(told.files()[files.DEVICES])["pump-02"]["silent_after"] == after


def test_a_site_may_say_what_the_document_says() -> None:
    text = (ROOT / "docs" / "alerts.md").read_text()
    (shown,) = re.findall(r"```python\nalerts = (\{[^`]*silent_after[^`]*)```", text)
    devices = [{"name": name, "model": "esp32-relay", "gateway": "gw"} for name in ("pump-02", "bench-01", "pump-03")]
    found = json.loads(files.devices(target(ast.literal_eval(shown), devices=devices)).content)
    assert [each["silent_after"] for each in found.values()] == [86_400, 0, 7200]


@pytest.mark.parametrize(
    ("after", "said"),
    [
        ({"models": {"relay": "10 min"}}, "relay: '10 min' is no time (use one such as 15m, 2h, 1d"),
        ({"models": {"relay": "1m"}}, "'1m' is no time"),
        ({"models": {"relay": "0h"}}, "'0h' is no time"),
        ({"models": {"relay": 600}}, "alerts silent_after models relay"),
        ({"devices": {"pmup-02": "1h"}}, "'pmup-02' is no device of the registry (take it out, or enrol it)"),
        ({"device": {"pump-02": "1h"}}, "alerts silent_after device: unknown key"),
        ({"devices": ["pump-02"]}, "alerts silent_after devices"),
        ("15m", "alerts silent_after"),
    ],
)  # fmt: skip
def test_a_slip_is_told_in_the_operator_s_words(after: Any, said: str) -> None:
    with pytest.raises(SiteError) as told:
        site({"silent_after": after}, devices=[{"name": "pump-02", "model": "relay", "gateway": "gw"}])
    assert said in str(told.value), told.value
    assert "pydantic" not in str(told.value)
