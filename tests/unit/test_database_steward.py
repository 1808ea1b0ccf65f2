"""The gateway's steward with the engine of 2.x, against a stand-in that follows its maker's API documentation."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from gatehouse.identity.pki import Pki
from gatehouse.identity.store import SecretStore
from gatehouse.proof import database as proof
from gatehouse.proof.observation import Observation
from gatehouse.proof.probes.https import https
from roles import influxdb
from tests.standins.influxdb2 import DAY, Influx, serving

GATEWAY = Path(__file__).parent.parent.parent / "roles" / "influxdb" / "gateway"
MODULES = ("common", "tokens", "one", "two", "engines")
SERVER = "influxdb.home.internal"


@pytest.fixture(scope="module")
def steward() -> Iterator[dict[str, ModuleType]]:
    """The steward's modules, as they find each other on the gateway."""
    sys.path.insert(0, str(GATEWAY))
    try:
        yield {name: importlib.import_module(name) for name in MODULES}
    finally:
        sys.path.remove(str(GATEWAY))
        for name in MODULES:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def pki() -> Pki:
    return Pki(SecretStore(), "home", "home.internal").ensure()


class Database:
    """A stand-in that was set up in private, and an engine that talks to it over TLS."""

    def __init__(self, steward: dict[str, ModuleType], influx: Influx, port: int, folder: Path) -> None:
        self.steward, self.influx, self.port, self.folder = steward, influx, port, folder
        self.settings = self.described()

    def described(self, **changes: Any) -> Any:
        return self.steward["common"].Settings(
            **{
                "engine": "influxdb2",
                "port": self.port,
                "server_name": SERVER,
                "database": "gatehouse",
                "numbers": "gateway",
                "administrator": "gatehouse-admin",
                "password": "correct-horse",
                "passwords": {"intake": "-", "collector": "-", "dashboards": "-"},
                "accounts": {},
                "retention": 30 * DAY,
                "shard": DAY,
                "summaries": {"every": "1h", "retention": 182 * DAY, "shard": 7 * DAY},
                **changes,
            }
        )

    def engine(self, settings: Any = None) -> Any:
        return self.steward["two"].Engine(settings or self.settings)

    def token(self, consumer: str) -> str:
        return (self.folder / f"{consumer}.credential").read_text().strip()

    def write(self, *devices: str) -> None:
        self.influx.points += [{"bucket": "gatehouse", "device": device} for device in devices]
        self.influx.points += [{"bucket": "gatehouse-summaries", "device": device} for device in set(devices)]


@pytest.fixture
def fresh(
    steward: dict[str, ModuleType], pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Database]:
    """Not set up yet."""
    server = pki.server("influxdb", [SERVER])
    (tmp_path / "ca.crt").write_bytes(pki.trust_anchor)
    (tmp_path / "chain").write_bytes(server.chain_pem)
    (tmp_path / "key").write_bytes(server.private_key_pem)
    monkeypatch.setattr(steward["common"], "FOLDER", tmp_path)
    # Only root can give files away.
    monkeypatch.setattr(os, "fchown", lambda *_: None)
    mine = (os.getuid(), os.getgid(), 0o600)
    monkeypatch.setattr(steward["common"], "credential", lambda _, name: (tmp_path / f"{name}.credential", mine))
    with serving(tmp_path / "chain", tmp_path / "key") as (influx, port):
        yield Database(steward, influx, port, tmp_path)


@pytest.fixture
def database(fresh: Database) -> Database:
    """As a deploy leaves it."""
    fresh.engine().administrate()
    fresh.engine().settle()
    return fresh


def test_a_new_database_is_set_up_once_and_its_first_token_is_gone(fresh: Database) -> None:
    fresh.engine().administrate()
    assert [user["name"] for user in fresh.influx.users.values()] == ["gatehouse-admin"]
    assert fresh.influx.authorizations == {}
    with pytest.raises(fresh.steward["common"].Trouble, match="knows no user gatehouse-admin"):
        fresh.engine().administrate()


def test_after_settling_nothing_differs_and_settling_again_changes_nothing(database: Database) -> None:
    assert list(database.engine().differences()) == []
    before = (database.token("intake"), dict(database.influx.authorizations))
    database.engine().settle()
    assert (database.token("intake"), dict(database.influx.authorizations)) == before


def test_each_consumer_has_a_token_for_one_thing(database: Database) -> None:
    rights = {
        a["description"].rpartition(" ")[0]: {
            (p["action"], p["resource"]["type"], p["resource"]["id"]) for p in a["permissions"]
        }
        for a in database.influx.authorizations.values()
    }
    ids = {bucket["name"]: bucket["id"] for bucket in database.influx.buckets.values()}
    assert rights == {
        "gatehouse intake": {("write", "buckets", ids["gatehouse"])},
        "gatehouse collector": {("write", "buckets", ids["gateway"])},
        "gatehouse dashboards": {
            ("read", "buckets", ids[name]) for name in ("gatehouse", "gateway", "gatehouse-summaries")
        },
    }
    assert database.token("intake") != database.token("dashboards")


def test_what_was_changed_by_hand_is_seen_and_put_right(database: Database) -> None:
    influx, engine = database.influx, database.engine()
    org = next(iter(influx.orgs.values()))

    def stranger() -> None:
        influx.users["x"] = {"id": "x", "name": "guest"}
        influx.add_authorization(org, "who made it", [{"action": "write", "resource": {"type": "users"}}])

    def token() -> None:
        influx.add_authorization(org, "found on the web", [{"action": "read", "resource": {"type": "buckets"}}])

    def more() -> None:
        intake = next(a for a in influx.authorizations.values() if " intake " in a["description"])
        intake["permissions"] = [*intake["permissions"], {"action": "read", "resource": {"type": "buckets"}}]

    def endless() -> None:
        bucket = next(b for b in influx.buckets.values() if b["name"] == "gatehouse")
        bucket["retentionRules"] = []

    def forgotten() -> None:
        (database.folder / "intake.credential").unlink()

    def unsummarised() -> None:
        influx.tasks.clear()

    for change in (stranger, token, more, endless, forgotten, unsummarised):
        assert list(engine.differences()) == [], change
        change()
        assert list(engine.differences()), change
        engine.settle()
    assert [user["name"] for user in influx.users.values()] == ["gatehouse-admin"]


def test_an_administrator_whose_password_is_not_the_settings_is_let_in_again(database: Database) -> None:
    org = next(iter(database.influx.orgs.values()))
    everything = [{"action": "write", "resource": {"type": "users"}}]
    operator = database.influx.add_authorization(org, "gatehouse-admin's Recovery Token", everything)["token"]
    later = database.described(password="of-another-year")
    assert not database.engine(later).enters()
    database.engine(later).readmit(operator)
    assert database.influx.authorization(operator) is None
    assert list(database.engine(later).differences()) == []
    assert not database.engine().enters()


def test_a_consumer_that_lost_its_token_gets_another_and_the_old_one_ends(database: Database) -> None:
    old, other = database.token("intake"), database.token("dashboards")
    (database.folder / "intake.credential").write_text("something else\n")
    database.engine().settle()
    assert database.token("intake") != old
    assert database.influx.authorization(old) is None
    assert database.influx.authorization(database.token("intake"))
    assert database.token("dashboards") == other


def test_a_token_is_replaced_with_both_good_until_the_former_one_is_retired(database: Database) -> None:
    old = database.token("intake")
    coming = database.described(others={"intake": ["intake:new"]})
    assert list(database.engine(coming).differences()) == []
    moved = database.described(
        passwords={"intake": "new", "collector": "-", "dashboards": "-"}, others={"intake": ["intake:-"]}
    )
    assert list(database.engine(moved).differences())
    database.engine(moved).settle()
    new = database.token("intake")
    assert new != old and database.influx.authorization(old) and database.influx.authorization(new)
    assert list(database.engine(moved).differences()) == []
    assert database.engine(moved).takes("intake", "new") and database.engine(moved).takes("intake", "-")
    retired = database.described(passwords={"intake": "new", "collector": "-", "dashboards": "-"})
    assert list(database.engine(retired).differences()) == ["there is a token that is not declared"]
    database.engine(retired).settle()
    assert database.token("intake") == new
    assert database.engine(retired).takes("intake", "new") and not database.engine(retired).takes("intake", "-")
    assert database.influx.authorization(old) is None


@pytest.mark.parametrize("died", ["_new_token", "put", "keep"])
def test_a_replacement_that_dies_leaves_a_good_token_in_the_file(
    database: Database, monkeypatch: pytest.MonkeyPatch, died: str
) -> None:
    moved = database.described(
        passwords={"intake": "new", "collector": "-", "dashboards": "-"}, others={"intake": ["intake:-"]}
    )

    class Died(BaseException):
        pass

    two, common = database.steward["two"], database.steward["common"]
    owner = {"_new_token": two.Engine, "put": database.steward["tokens"].Shelf, "keep": common}[died]
    original = getattr(owner, died)

    def dies(*arguments: Any) -> None:
        if died != "put":
            original(*arguments)
        raise Died

    with monkeypatch.context() as patched, pytest.raises(Died):
        patched.setattr(owner, died, dies)
        database.engine(moved).settle()
    assert database.influx.authorization(database.token("intake"))
    database.engine(moved).settle()
    assert list(database.engine(moved).differences()) == []
    assert database.engine(moved).takes("intake", "new")


def test_the_administrators_password_is_replaced_and_either_run_gets_in(database: Database) -> None:
    coming = database.described(others={"admin": ["gatehouse-admin:another"]})
    assert list(database.engine(coming).differences()) == []
    moved = database.described(password="another", others={"admin": ["gatehouse-admin:correct-horse"]})
    for _ in range(2):
        database.engine(moved).settle()
        assert list(database.engine(moved).differences()) == []
    assert database.engine(moved).takes("admin", "another")
    assert not database.engine(moved).takes("admin", "correct-horse")


def test_summaries_that_the_site_no_longer_wants_are_deleted(database: Database) -> None:
    without = database.described(summaries=None)
    assert list(database.engine(without).differences())
    database.engine(without).settle()
    assert list(database.engine(without).differences()) == []
    assert "gatehouse-summaries" not in {bucket["name"] for bucket in database.influx.buckets.values()}
    assert database.influx.tasks == {}


def test_a_wrong_password_of_the_administrator_is_told_and_nothing_is_done(database: Database) -> None:
    wrong = database.described(password="another")
    assert list(database.engine(wrong).differences()) == ["the administrator's login is refused"]
    with pytest.raises(database.steward["common"].Trouble, match="refused"):
        database.engine(wrong).settle()


def test_what_is_erased_is_found_no_more_and_the_others_stay(database: Database) -> None:
    database.write("kitchen-01", "kitchen-01", "pump-02")
    engine = database.engine()
    assert (engine.count("kitchen-01"), engine.count("pump-02")) == (3, 2)
    assert engine.devices() == ["kitchen-01", "pump-02"]
    engine.erase("kitchen-01")
    assert (engine.count("kitchen-01"), engine.count("pump-02")) == (0, 2)
    assert engine.devices() == ["pump-02"]


def test_the_last_report_of_firmware_is_whole_and_of_one_moment(database: Database) -> None:
    def line(device: str, fields: str, second: int, kind: str = "firmware") -> dict[str, str]:
        text = f"telemetry,device={device},kind={kind} seq=7i,{fields} {second * 10**9 + 5 * 10**6}"
        return {"bucket": "gatehouse", "device": device, "kind": kind, "line": text}

    assert database.engine().firmware() == {}
    database.influx.points += [
        line("pump-01", 'version="1.1",counter=2,failed=0,update="confirmed"', 200),
        line("pump-01", 'version="1.0",counter=1,failed=0,update="ok"', 100),
        line("pump-02", 'version="1.0",counter=1,update="failed-before"', 100),
        line("pump-02", 'version="1.0",counter=1', 300),
        line("pump-03", 'version="9.9",counter=9', 300, "climate"),
    ]
    assert database.engine().firmware() == {
        "pump-01": {"time": 200.005, "version": "1.1", "counter": 2, "failed": 0, "update": "confirmed"},
        "pump-02": {"time": 300.005, "version": "1.0", "counter": 1},
    }


@pytest.mark.parametrize("name", ['x" or r.device != "', "x' OR '1'='1", "", "UPPER", "a b", "-a", "x" * 64])
def test_what_is_no_device_s_name_gets_into_no_query(database: Database, name: str) -> None:
    database.write("kitchen-01")
    with pytest.raises(database.steward["common"].Trouble, match="no device's name"):
        database.engine().erase(name)
    assert database.engine().count("kitchen-01") == 2


def test_another_s_certificate_is_refused_and_the_site_s_is_taken(database: Database) -> None:
    assert list(database.engine().differences()) == []
    foreign = Pki(SecretStore(), "home", "home.internal").ensure()
    (database.folder / "ca.crt").write_bytes(foreign.trust_anchor)
    with pytest.raises(database.steward["common"].Trouble, match="certificate verify failed"):
        list(database.engine().differences())


def test_the_compliance_suite_tells_what_is_granted_from_what_is_not(database: Database, pki: Pki) -> None:
    server = {"address": "127.0.0.1", "port": database.port, "server_name": SERVER, "ca": pki.trust_anchor.decode()}

    def verdicts() -> dict[str, str]:
        secrets = {who: database.token(who) for who in ("intake", "dashboards")}
        probes = proof.questions("influxdb2", "gatehouse", server, secrets)
        seen = {probe["id"]: Observation("gateway", probe, https(probe)) for probe in probes}
        limits.update(proof.limits("influxdb2", seen["dashboards:limits"]) or {})
        return {name: proof.verdict(each) for name, each in seen.items()}

    limits: dict[str, int] = {}
    found = verdicts()
    assert {v for name, v in found.items() if name.startswith("login:")} == {"refused"}
    assert [found[f"intake:{what}"] for what in ("write", "read", "accounts")] == ["allowed", "refused", "refused"]
    assert [found[f"dashboards:{what}"] for what in ("write", "read", "accounts")] == ["refused", "allowed", "refused"]
    assert limits == {"gatehouse": 30 * DAY, "gateway": 30 * DAY, "gatehouse-summaries": 182 * DAY}
    database.influx.passwords["admin"] = "admin"
    for authorization in database.influx.authorizations.values():
        authorization["permissions"] = [{"action": a, "resource": {"type": "buckets"}} for a in ("read", "write")]
    broken = verdicts()
    assert (broken["login:default 0"], broken["login:empty 0"]) == ("allowed", "refused")
    assert (broken["intake:read"], broken["dashboards:write"]) == ("allowed", "allowed")


@pytest.mark.parametrize("account", influxdb.ACCOUNTS)
@pytest.mark.parametrize("value", ["a-password", "another-2:a-password"])
def test_the_gateway_reads_a_login_as_the_kit_does(steward: dict[str, ModuleType], account: str, value: str) -> None:
    assert steward["common"].login(account, value) == influxdb.login(account, value)
