"""The table of a site's devices."""

from __future__ import annotations

import datetime
import json
from typing import Any

from gatehouse.identity import roster
from gatehouse.site import Device

NOW = datetime.datetime(2026, 6, 1, 12, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)


def device(name: str, age: int | None = None, left: int = 0, **facts: Any) -> Device:
    life = {} if age is None else {"not_before": NOW - age * DAY, "not_after": NOW + left * DAY}
    return Device(**{"name": name, "model": "esp32", "gateway": "gw1", **life, **facts})


def test_the_table_tells_age_and_days_left_and_marks_what_is_due() -> None:
    lines = roster.table(
        roster.rows(
            [device("c"), device("b", 300, 65, status="quarantined"), device("a", 100, 265), device("d", 366, -1)], NOW
        )
    )
    assert [line.split() for line in lines] == [
        ["NAME", "MODEL", "SEGMENT", "STATUS", "AGE", "LEFT", "LAST", "SEEN"],
        ["a", "esp32", "iot", "active", "100", "265", "-"],
        ["b", "esp32", "iot", "quarantined", "300", "65", "!", "-"],
        ["c", "esp32", "iot", "active", "-", "-", "-"],
        ["d", "esp32", "iot", "active", "366", "expired", "!", "-"],
    ]


def test_the_gateway_is_shown_where_there_is_more_than_one() -> None:
    assert "GATEWAY" not in roster.table(roster.rows([device("a")], NOW))[0]
    assert "GATEWAY" in roster.table(roster.rows([device("a"), device("b", gateway="gw2")], NOW))[0]


def test_a_site_without_devices_has_a_table_with_its_heads_only() -> None:
    assert len(roster.table(roster.rows([], NOW))) == 1


def test_the_rows_are_plain_values_for_machines() -> None:
    (row,) = roster.rows([device("a", 100, 265)], NOW, {"a": NOW - DAY})
    assert json.loads(json.dumps(row)) == {
        "name": "a",
        "model": "esp32",
        "gateway": "gw1",
        "segment": "iot",
        "status": "active",
        "certificate_age_days": 100,
        "certificate_days_left": 265,
        "certificate_due": False,
        "last_seen": "2026-05-31T12:00:00+00:00",
    }
