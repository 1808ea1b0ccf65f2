"""When devices were last seen, by the broker's journal and by gateways that may be away."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from deploy import lastseen
from deploy.remote import RemoteError, connected
from gatehouse.site import Site
from roles.mosquitto import seen as program
from roles.mosquitto.seen import seen
from tests.unit.enrolling import a_site

NOW = 1_800_000_000.0
OWN = ["10.10.10.1"]


def journal(*lines: tuple[int, str]) -> list[str]:
    """Lines as journalctl prints them, newest first; a moment is in seconds before now."""
    shown = [f"{NOW - ago:.6f} gateway mosquitto[812]: {text}" for ago, text in lines]
    return shown[::-1]


def came(name: str, address: str = "10.10.10.50") -> str:
    return f"New client connected from {address}:40123 as {name} (p5, c1, k60, u'{name}')."


def ago(lines: list[str], *names: str) -> dict[str, float]:
    found, _ = seen(lines, names, OWN, NOW)
    return {name: NOW - moment for name, moment in found.items()}


def test_a_device_in_a_session_is_seen_now_and_one_that_left_when_it_left() -> None:
    lines = journal((900, came("a")), (800, came("b")), (700, "Client b disconnected."))
    assert ago(lines, "a", "b", "c") == {"a": 0, "b": 700}


@pytest.mark.parametrize(
    "end",
    [
        "Client a closed its connection.",
        "Client a has exceeded timeout, disconnecting.",
        "Client a disconnected: Protocol error.",
    ],
)
def test_however_a_session_ended_it_is_over(end: str) -> None:
    assert ago(journal((900, came("a")), (10, end)), "a") == {"a": 10}


def test_a_session_that_the_broker_took_with_it_lasted_until_then() -> None:
    start = "mosquitto version 2.0.11 starting"
    ended = journal((900, came("a")), (500, "mosquitto version 2.0.11 terminating"), (400, start), (300, came("b")))
    assert ago(ended, "a", "b") == {"a": 500, "b": 0}
    power_cut = journal((900, came("a")), (600, "New connection from 10.10.10.7:1 on port 8883."), (400, start))
    assert ago(power_cut, "a") == {"a": 600}
    again = journal((900, came("a")), (500, start), (450, came("a")), (300, "Client a disconnected."))
    assert ago(again, "a") == {"a": 300}


def test_the_kit_itself_in_the_name_of_a_device_is_not_the_device() -> None:
    lines = journal(
        (900, came("a")),
        (100, "Client a already connected, closing old connection."),
        (100, came("a", "10.10.10.1")),
        (99, "Client a disconnected."),
    )
    assert ago(lines, "a") == {"a": 100}
    assert ago(lines[:2], "a") == {}


def test_lines_of_others_and_names_that_only_begin_alike_mean_nothing() -> None:
    lines = journal((900, came("a-1")), (800, "Client <unknown> disconnected: Protocol error."), (700, "nonsense"))
    assert ago(["-- Boot 1 --", "", *lines], "a", "unknown") == {}


def test_nothing_is_read_beyond_what_is_asked_or_for_longer_than_there_is_time() -> None:
    def endless() -> Iterator[str]:
        yield from journal((5, came("a")))
        while True:
            yield from journal((9, came("b")))

    assert seen(endless(), ["a"], OWN, NOW) == ({"a": NOW}, NOW - 5)
    assert seen(endless(), ["a", "c"], OWN, NOW, until=0.0) == ({"a": NOW}, NOW - 5)


# the operator's side


Gateways = dict[str, Callable[[], dict[str, Any]]]


@pytest.fixture
def site() -> Site:
    devices = [{"name": f"d{number}", "model": "m", "gateway": f"gw{number}"} for number in (1, 2)]
    return a_site(gateways=2, devices=devices)


def asked(site: Site, gateways: Gateways, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, datetime], list[str]]:
    @contextlib.contextmanager
    def connected(_: Site, gateway: str) -> Iterator[mock.Mock]:
        yield mock.Mock(run=lambda script, stdin: json.dumps(gateways[gateway]()))

    monkeypatch.setattr(lastseen, "connected", connected)
    return lastseen.last_seen(site)


def at(name: str, moment: float) -> Callable[[], dict[str, Any]]:
    return lambda: {"seen": {name: moment}, "since": 1_700_000_000}


def away() -> dict[str, Any]:
    raise RemoteError("gw2: no SSH to 10.20.20.1 port 22: timed out")


def test_a_gateway_that_is_away_costs_its_own_devices_only(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    moment = datetime.fromtimestamp(NOW, UTC)
    assert asked(site, {"gw1": at("d1", NOW), "gw2": at("d2", NOW)}, monkeypatch) == ({"d1": moment, "d2": moment}, [])
    found, notes = asked(site, {"gw1": at("d1", NOW), "gw2": away}, monkeypatch)
    assert found == {"d1": moment}
    assert notes == [
        "gw2: no SSH to 10.20.20.1 port 22: timed out: when its devices were last seen is unknown",
    ]


def test_a_gateway_that_never_answers_is_not_waited_for(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def hangs() -> dict[str, Any]:
        over.wait()
        raise RemoteError("too late")

    monkeypatch.setattr(lastseen, "PATIENCE", 0.3)
    try:
        found, notes = asked(site, {"gw1": at("d1", NOW), "gw2": hangs}, monkeypatch)
    finally:
        over.set()
    assert found.keys() == {"d1"}
    assert notes == ["gw2: no answer within 0 s: when its devices were last seen is unknown"]


def test_a_device_that_the_journal_does_not_name_is_unknown_and_it_is_said_since_when(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = at("not-a-device", NOW)
    assert asked(site, {"gw1": stranger, "gw2": at("d2", NOW)}, monkeypatch) == (
        {"d2": datetime.fromtimestamp(NOW, UTC)},
        ["gw1: 1 not seen since 2023-11-14 22:13 UTC; what was before is unknown"],
    )


def test_the_program_reads_the_journal_of_the_broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "journalctl"
    lines = "\n".join(journal((7, came("a"))))
    fake.write_text(f'#!/bin/sh\ncase "$*" in *--reverse*mosquitto.service*) cat <<"E"\n{lines}\nE\nesac\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    request = json.dumps({"names": ["b"], "own": [], "seconds": 3})
    done = subprocess.run([sys.executable, program.__file__], input=request, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"seen": {}, "since": NOW - 7}


def test_a_gateway_whose_host_key_is_not_pinned_is_told_apart_from_one_that_is_off() -> None:
    site = a_site()
    gateway = next(iter(site.gateways))
    mend = r"host key is not pinned yet \(`./kit trust --site"
    with pytest.raises(RemoteError, match=mend), connected(site, gateway):
        pass
