"""How old secrets are, and what is said of those that are too old."""

from __future__ import annotations

import datetime
import json

import pytest

from gatehouse.identity import SecretStore, ages
from gatehouse.identity.store import Entry
from gatehouse.site import Secret, Service, Site
from roles import declared
from tests.unit.enrolling import a_site

NOW = datetime.datetime(2026, 6, 1, 12, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)


def site(*secrets: Secret, **more: object) -> Site:
    devices = [
        {"name": "kitchen-01", "model": "m", "gateway": "gw1", "hmac_key": 2},
        {"name": "lost-02", "model": "m", "gateway": "gw1", "hmac_key": 1, "status": "revoked"},
    ]
    service = Service(name="database", title="Database", secrets=secrets)
    return a_site(services=(*a_site().services, service), devices=devices, **more)


def vault(**days: int) -> SecretStore:
    """Entries by name, each so many days old."""
    store = SecretStore()
    for name, age in days.items():
        store._entries[name] = Entry(b"value", "password", (NOW - age * DAY).isoformat())
    return store


def secret(name: str = "database.admin", **more: object) -> Secret:
    return Secret(**{"name": name, "kind": "password", "rotation_days": 100, "consumers": ("database",), **more})


@pytest.mark.parametrize(
    ("age", "state"), [(0, "fresh"), (99, "fresh"), (100, "due"), (113, "due"), (114, "overdue"), (999, "overdue")]
)
def test_a_secret_is_due_on_its_day_and_overdue_two_weeks_later(age: int, state: str) -> None:
    (found,) = ages.ages(site(secret()), vault(**{"database.admin": age}))
    assert (found.state(NOW), found.due) == (state, NOW + (100 - age) * DAY)


def test_what_was_begun_and_not_ended_is_told_after_two_weeks() -> None:
    store = vault(**{"database.admin": 3})
    for days, state in ((13, "fresh"), (15, "unfinished")):
        journal = {"phase": "move", "begun": (NOW - days * DAY).isoformat()}
        store.set("rotation/database.admin/journal", json.dumps(journal), "record")
        (found,) = ages.ages(site(secret()), store)
        assert found.state(NOW) == state
    assert "being replaced" not in ages.table(ages.rows([found], NOW))[1]
    assert "unfinished" in ages.table(ages.rows([found], NOW))[1]


def test_one_declaration_stands_for_many_and_those_that_are_nobodys_are_left_out() -> None:
    store = vault(**{
        "devices/kitchen-01/hmac/1": 900, "devices/kitchen-01/hmac/2": 7, "devices/kitchen-01/hmac/3": 0,
        "devices/lost-02/hmac/1": 900, "devices/unknown-03/hmac/1": 900, "devices/lost-02/psk": 900,
        "broker/programs/homeassistant/password": 8, "broker/programs/former/password": 900,
    })  # fmt: skip
    declared = (secret("h", kept="devices/*/hmac/*"), secret("k", kept="devices/*/psk"),
                secret("p", kept="broker/programs/*/password"))  # fmt: skip
    found = ages.ages(site(*declared, programs={"homeassistant": {"reads": ["devices/+/status"]}}), store)
    assert {age.name: (NOW - age.made).days for age in found} == {
        "devices/kitchen-01/hmac": 7,
        "broker/programs/homeassistant/password": 8,
    }


def test_the_table_and_the_rows_show_no_value() -> None:
    found = ages.rows(ages.ages(site(secret()), vault(**{"database.admin": 30})), NOW)
    assert json.loads(json.dumps(found)) == [
        {
            "name": "database.admin", "service": "database", "kind": "password", "consumers": ["database"],
            "made": "2026-05-02T12:00:00+00:00", "age_days": 30, "rotation_days": 100, "next": "2026-08-10",
            "replaced_by": "rotate", "state": "fresh", "begun": None,
        }
    ]  # fmt: skip
    assert [line.split() for line in ages.table(found)] == [
        ["NAME", "AGE", "NEXT", "REPLACED", "BY", "USED", "BY"],
        ["database.admin", "30", "2026-08-10", "rotate", "database"],
    ]


def test_every_service_says_how_its_secrets_are_replaced_and_certificates_come_by_themselves() -> None:
    for service in declared():
        for each in service.secrets:
            assert each.consumers, f"{service.name}: {each.name}: nobody uses it"
            if each.kind == "certificate":
                assert each.replaced_by == "harden", f"{service.name}: {each.name}"
