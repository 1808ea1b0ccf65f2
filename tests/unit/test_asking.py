"""Several gateways are asked at a time, however each answers, and told in their order."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from pyinfra.context import ctx_host, ctx_state

from deploy import asking, drift, drops, vulnerabilities
from deploy.remote import RemoteError
from gatehouse.proof.vulnerabilities import Side
from gatehouse.site import Site
from tests.unit.test_drift import Deaf, connected_to, lab_site

__all__ = ["lab_site"]  # a fixture
NAMES = ("attic", "barn", "cellar")
PATIENCE = 30.0  # seconds; nobody waits for so long who is not alone


def of_three(site: Site) -> Site:
    """The site with three gateways."""
    (one,) = site.gateways.values()
    assert site.remote is not None
    (tunnel,) = site.remote.tunnels.values()
    remote = site.remote.model_copy(update={"tunnels": dict.fromkeys(NAMES, tunnel)})
    return site.model_copy(update={"gateways": dict.fromkeys(NAMES, one), "devices": (), "remote": remote})


def meeting(name: str, barrier: threading.Barrier) -> None:
    """All are asked before the first answers, and the first in order answers last."""
    barrier.wait(PATIENCE)
    time.sleep(0.1 * (len(NAMES) - NAMES.index(name)))


def test_all_are_asked_and_told_in_their_order_and_no_more_than_a_few_at_a_time() -> None:
    running, most, lock = set[str](), 0, threading.Lock()

    def ask(name: str) -> str:
        nonlocal most
        with lock:
            running.add(name)
            most = max(most, len(running))
        time.sleep(0.01)
        with lock:
            running.discard(name)
        return name.upper()

    many = [f"gateway-{n}" for n in range(40)]
    assert asking.each(many, ask) == [name.upper() for name in many]
    assert 1 < most <= asking.AT_ONCE
    assert asking.each([], ask) == []


def test_whoever_fails_is_named_and_the_others_are_asked_all_the_same() -> None:
    asked = []

    def ask(name: str) -> str:
        asked.append(name)
        if name in silent:
            raise RemoteError(f"{name}: no SSH")
        return name

    silent = {"barn"}
    with pytest.raises(RemoteError, match="^barn: no SSH$"):
        asking.each(NAMES, ask)
    assert sorted(asked) == sorted(NAMES)
    silent = {"attic", "cellar"}
    with pytest.raises(asking.Unanswered, match="^attic: no SSH\ncellar: no SSH$"):
        asking.each(NAMES, ask)


def test_gateways_are_compared_at_once_and_each_as_if_it_were_alone(
    lab_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drift, "connected", connected_to(Deaf()))
    (alone,) = drift.compare(lab_site.model_copy(update={"devices": ()}))
    barrier = threading.Barrier(len(NAMES))

    @contextmanager
    def connected(site: Site, name: str) -> Iterator[Any]:
        class Slow(Deaf):
            def ask(self, commands: Any) -> Any:
                if not self.asked:
                    meeting(name, barrier)
                return super().ask(commands)

        yield SimpleNamespace(shell=Slow)  # noqa: S604  no process

    monkeypatch.setattr(drift, "connected", connected)
    found = drift.compare(of_three(lab_site))
    assert [each.gateway for each in found] == list(NAMES)
    for each in found:
        assert (each.round_trips, len(each.differences)) == (alone.round_trips, len(alone.differences))
        assert {d.kind for d in each.differences} == {d.kind for d in alone.differences}
    assert ctx_state.get() is None and ctx_host.get() is None


def test_gateways_are_asked_for_known_vulnerabilities_at_once_and_the_feed_is_fetched_once(
    lab_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    barrier, fetched = threading.Barrier(len(NAMES)), []

    def of_gateway(site: Site, name: str, tracker: vulnerabilities.Tracker) -> Side:
        meeting(name, barrier)
        return Side(name, tracker.feed("bookworm")[0], 7)

    def judged(tracker: vulnerabilities.Tracker, suite: str) -> tuple[str, bytes]:
        fetched.append(suite)
        time.sleep(0.1)
        return f"the feed of {suite}", b""

    monkeypatch.setattr(vulnerabilities, "of_python", lambda *_: Side(vulnerabilities.OPERATOR, "a feed", 3))
    monkeypatch.setattr(vulnerabilities, "_of_gateway", of_gateway)
    monkeypatch.setattr(vulnerabilities.Tracker, "_judged", judged)
    sides = vulnerabilities.look(of_three(lab_site), "", "", "", print)
    assert [side.name for side in sides] == [vulnerabilities.OPERATOR, *NAMES]
    assert fetched == ["bookworm"]


def test_gateways_are_asked_whom_they_refused_at_once(lab_site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    barrier = threading.Barrier(len(NAMES))

    @contextmanager
    def connected(site: Site, name: str) -> Iterator[Any]:
        def run(script: str) -> str:
            meeting(name, barrier)
            element = {"val": {"concat": ["02:00:00:00:00:01", "br-iot"]}, "counter": {"packets": 3, "bytes": 180}}
            return json.dumps({"nftables": [{"set": {"name": "forged", "elem": [{"elem": element}]}}]})

        yield SimpleNamespace(run=run)

    monkeypatch.setattr(drops, "connected", connected)
    assert [row["gateway"] for row in drops.rows(of_three(lab_site))] == list(NAMES)
