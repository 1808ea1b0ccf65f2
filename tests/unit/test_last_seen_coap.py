"""When devices that speak CoAP alone were last seen: what the endpoint keeps, and what comes of it in the list."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gatehouse.coap import lastseen
from gatehouse.coap.lastseen import LastSeen
from gatehouse.messages.counts import Journal
from roles.mosquitto import seen as program
from tests.unit.test_last_seen import NOW, came

PAST = 1_700_000_000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds, of both clocks."""
    now = [NOW]
    monkeypatch.setattr(lastseen.time, "time", lambda: now[0])
    monkeypatch.setattr(lastseen.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "seen.json"


def made(path: Path, said: list[str] | None = None) -> LastSeen:
    return LastSeen(path, Journal((said if said is not None else []).append))


def test_it_is_written_once_a_minute_and_read_again(path: Path, clock: list[float]) -> None:
    kept = made(path)
    kept.heard("a")
    kept.write({"a", "b"})
    assert not path.exists()
    clock[0] += 60
    kept.write({"a", "b"})
    assert json.loads(path.read_text()) == {"a": int(NOW)}
    again = made(path)
    again.heard("b")
    again.write({"a", "b"}, at_once=True)
    assert json.loads(path.read_text()) == {"a": int(NOW), "b": int(NOW) + 60}


def test_nothing_is_written_where_nothing_was_heard_and_strangers_are_forgotten(path: Path, clock: list[float]) -> None:
    kept = made(path)
    kept.write({"a"}, at_once=True)
    assert not path.exists()
    for name in ("a", "probe"):
        kept.heard(name)
    kept.write({"a"}, at_once=True)
    assert json.loads(path.read_text()).keys() == {"a"}


@pytest.mark.parametrize("broken", ["", "{", "[]", '{"a": "x"}', "7", "\0"])
def test_a_broken_file_is_begun_anew(broken: str, path: Path, clock: list[float]) -> None:
    path.write_text(broken)
    kept = made(path)
    kept.heard("a")
    kept.write({"a"}, at_once=True)
    assert json.loads(path.read_text()) == {"a": int(NOW)}


def test_that_it_can_t_be_written_is_said_and_stops_nothing(path: Path) -> None:
    said: list[str] = []
    kept = made(path / "no folder" / "seen.json", said)
    kept.heard("a")
    kept.write({"a"}, at_once=True)
    assert len(said) == 1 and said[0].endswith("not written: No such file or directory")


# what is asked of the gateway


def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: Any, *names: str) -> dict[str, float]:
    fake = tmp_path / "journalctl"
    told = ((600, came("mqtt")), (700, "Client both disconnected."), (900, came("both")))
    lines = "\n".join(f"{PAST - ago:.6f} gateway mosquitto[812]: {text}" for ago, text in told)
    fake.write_text(f'#!/bin/sh\ncat <<"E"\n{lines}\nE\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (tmp_path / "seen.json").write_text(kept if isinstance(kept, str) else json.dumps(kept))
    paths = [str(tmp_path / "seen.json"), str(tmp_path / "none.json")]
    request = json.dumps({"names": names, "own": [], "seconds": 3, "kept": paths})
    done = subprocess.run([sys.executable, program.__file__], input=request, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)["seen"]
    return found


def test_a_device_is_seen_by_the_way_that_it_came_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {"coap": PAST - 50, "both": PAST - 500, "other": PAST}
    found = asked(tmp_path, monkeypatch, kept, "coap", "both", "none")
    assert found == {"coap": PAST - 50, "both": PAST - 500}
    kept["both"] = PAST - 800
    assert asked(tmp_path, monkeypatch, kept, "both") == {"both": PAST - 700}


def test_nobody_is_seen_in_the_future(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began = time.time()
    found = asked(tmp_path, monkeypatch, {"coap": began + 9e6}, "coap")
    assert began <= found["coap"] <= time.time()


@pytest.mark.parametrize("broken", ["", "[]", '{"coap": []}'])
def test_a_file_that_is_broken_says_nothing(broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(tmp_path, monkeypatch, broken, "coap", "mqtt").keys() == {"mqtt"}
