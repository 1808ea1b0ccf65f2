"""Where a device stands with a release, and when too many have failed for anybody else to be given it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gatehouse.updates import manifest as manifests
from gatehouse.updates.judgement import turn_of
from gatehouse.updates.manifest import Manifest
from gatehouse.updates.rollout import Limits, Progress, Standing, progress, read_report, standing

NOW, HOUR = 1_790_000_000, 3_600
LIMITS = Limits()
POINTS = (b"\1" * 64, b"\2" * 64)


def release(counter: int = 2, share: int = manifests.WHOLE_SHARE, **changes: Any) -> Manifest:
    made = Manifest(
        model="relay", version=f"1.{counter}", counter=counter, minimum_counter=0, image_format=2, chip=0xFFFF, size=5,
        sha256=bytes([counter]) * 32, url="https://updates.home.arpa/relay/1.bin", issued=NOW - 48 * HOUR,
        expires=NOW + 48 * HOUR, share=share, seed=b"s" * 16, keys=POINTS,
    )  # fmt: skip
    return replace(made, **changes)


def said(counter: int, ago: int = 60, **more: Any) -> dict[str, Any]:
    return {"time": NOW - ago, "version": "1.0", "counter": float(counter), **more}


def of(report: Any, *offers: Manifest, name: str = "pump-01") -> Standing:
    return standing(name, "relay", "gw1", offers, report, NOW, LIMITS)


@pytest.mark.parametrize(
    ("report", "state"),
    [
        (said(2), "current"),
        (said(3), "ahead"),
        (said(1), "pending"),
        (said(1, update="installed"), "pending"),
        (said(1, update="no-answer"), "hindered"),
        (said(1, update="no-time"), "hindered"),
        (said(1, update="wrong-image"), "refuses"),
        (said(1, update="bad-signature"), "refuses"),
        (said(1, failed=2.0, update="failed-before"), "failed"),
        (said(1, failed=1.0), "pending"),  # an earlier one
        (said(2, failed=2.0), "current"),  # it was signed again, and tried again
        (said(1, ago=27 * HOUR), "lost"),
        (said(2, ago=27 * HOUR), "lost"),
        (said(1, ago=80 * HOUR), "silent"),  # since before there was a release
        (None, "silent"),
        ({}, "unreadable"),
        ([], "unreadable"),
        ("1.0", "unreadable"),
        ({"time": NOW, "version": "1.0"}, "unreadable"),
        (said(1) | {"version": 7}, "unreadable"),
        (said(1) | {"version": "1\n2"}, "unreadable"),
        (said(1) | {"counter": "two"}, "unreadable"),
        (said(1) | {"counter": -1}, "unreadable"),
        (said(1) | {"counter": 1.5}, "unreadable"),
        (said(1) | {"counter": True}, "unreadable"),
        (said(1) | {"counter": float("nan")}, "unreadable"),
        (said(1) | {"counter": 2.0**40}, "unreadable"),
        (said(1) | {"failed": "x"}, "unreadable"),
        (said(1) | {"time": "yesterday"}, "unreadable"),
    ],
)
def test_a_device_stands_where_its_last_report_says(report: Any, state: str) -> None:
    assert of(report, release()).state == state


def test_what_a_device_said_before_the_release_was_signed_is_no_word_on_it() -> None:
    before = said(1, ago=50 * HOUR - 26 * HOUR, update="bad-signature")
    assert of(before, release(issued=NOW - 23 * HOUR)).state == "pending"
    assert of(before, release(issued=NOW - 25 * HOUR)).state == "refuses"


def test_a_device_outside_of_the_share_waits_and_one_that_has_failed_stays_so() -> None:
    names = sorted((f"pump-{number:02}" for number in range(50)), key=lambda name: turn_of(b"s" * 16, name))
    offered = release(share=1000)
    assert of(said(1), offered, name=names[0]).state == "pending"
    assert of(said(1), offered, name=names[-1]).state == "waiting"
    assert of(said(1, ago=27 * HOUR), offered, name=names[-1]).state == "silent"  # it had nothing to be lost by
    assert of(said(1, failed=2.0), release(share=0), name=names[0]).state == "failed"


def test_where_nothing_is_published_nobody_is_behind() -> None:
    assert [of(report).state for report in (said(1), None, said(1, ago=27 * HOUR))] == [
        "no release", "no release", "silent"
    ]  # fmt: skip


def test_a_release_for_one_device_is_none_of_the_others() -> None:
    mine = release(device=manifests.sha256(b"pump-01").digest())
    assert of(said(1), mine).state == "pending"
    assert of(said(1), mine, name="pump-02").state == "no release"
    assert of(said(1), mine, release(1), name="pump-02").state == "current"


def test_a_number_of_the_database_is_read_as_the_device_sent_it() -> None:
    report = read_report(said(7, failed=3.0, update="failed-before"))
    assert report is not None
    assert (report.counter, report.failed, report.update) == (7, 3, "failed-before")


def fares(*states: str, share: int = manifests.WHOLE_SHARE) -> Progress:
    reports = {
        "current": said(2), "failed": said(1, failed=2.0), "lost": said(1, ago=27 * HOUR), "pending": said(1),
        "silent": None, "refuses": said(1, update="wrong-chip"), "hindered": said(1, update="no-answer"),
    }  # fmt: skip
    offered = release(share=share)
    standings = [of(reports[state], offered, name=f"pump-{number}") for number, state in enumerate(states)]
    assert [each.state for each in standings] == list(states)
    return progress("relay", offered, standings)


@pytest.mark.parametrize(
    ("states", "halts"),
    [
        (("failed", "failed", "current"), True),
        (("failed", "lost", *["current"] * 5), True),
        (("failed", *["current"] * 5), False),  # one alone may be broken, or somebody's
        (("failed", *["pending"] * 5), False),
        (("failed",), True),  # nobody else had a turn
        (("failed", "failed", *["current"] * 18), False),  # 10 % are not more than 10 %
        (("failed", "failed", *["current"] * 17), True),
        (("failed", "failed", *["pending"] * 50), True),  # those that have not tried it say nothing for it
        (("silent", "silent", "refuses", "refuses", "hindered", "hindered"), False),  # no harm was done
        ((), False),
    ],
)
def test_a_roll_out_is_halted_when_too_many_of_those_that_tried_it_were_harmed(
    states: tuple[str, ...], halts: bool
) -> None:
    assert fares(*states).too_many(LIMITS) is halts


def test_a_site_can_be_stricter_and_more_patient() -> None:
    one = fares("failed", *["current"] * 5)
    assert one.too_many(Limits(share=0, least=1))
    assert not fares("failed", "failed", "current").too_many(Limits(share=0.9))


def test_only_devices_of_the_model_that_the_release_is_offered_to_count() -> None:
    offered = release()
    mine = of(said(1, failed=2.0), offered)
    others = [replace(mine, model="sensor"), replace(mine, offered=release(3)), replace(mine, offered=None)]
    found = progress("relay", offered, [mine, *others])
    assert (found.harmed, found.tried, found.turns) == (1, 1, 1)
    assert not found.halted and progress("relay", release(share=0), []).halted
