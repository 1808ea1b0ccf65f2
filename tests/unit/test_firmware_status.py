"""Who runs what, asked of a gateway; a roll-out that is halted; and everything that may be wrong with the answer."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deploy import firmwarestatus, publishing, vaults
from deploy.firmwarestatus import FAILED, TO_LOOK_AT
from deploy.remote import RemoteError
from gatehouse.errors import GatehouseError
from gatehouse.identity.store import VaultError
from gatehouse.site import Device, SiteError
from gatehouse.updates import read
from tests.unit.desk import Desk, a_desk
from tests.unit.enrolling import a_site

NAMES = ("pump-01", "pump-02", "pump-03")
HOUR = 3_600


@dataclass
class Watched:
    """A desk whose gateway has a database that says what it is told to."""

    desk: Desk
    steward: Path

    def report(self, **reports: Any) -> None:
        """By device, `_` in the name for `-`."""
        said = {name.replace("_", "-"): report for name, report in reports.items()}
        self.answers(f"print('''{json.dumps(said)}''')")

    def answers(self, program: str) -> None:
        (self.steward / "__main__.py").write_text(program)

    def look(self, halt: bool = True) -> firmwarestatus.Overview:
        return firmwarestatus.look(self.desk.site, halt)

    def states(self) -> dict[str, str]:
        return {each.name: each.state for each in self.look(halt=False).standings}


def said(counter: int, version: str = "1.0.0", ago: float = 60, **more: Any) -> dict[str, Any]:
    return {"time": time.time() - ago, "version": version, "counter": float(counter), **more}


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    steward = tmp_path / "steward"
    steward.mkdir()
    monkeypatch.setattr(firmwarestatus, "STEWARD", str(steward))
    devices = [Device(name=name, model="relay", gateway="gw1", serials=("ab",)) for name in NAMES]
    devices += [
        Device(name="gone", model="relay", gateway="gw1", serials=("ac",), status="revoked"),
        Device(name="planned", model="relay", gateway="gw1"),
    ]
    found = Watched(a_desk(tmp_path, monkeypatch, devices=tuple(devices)), steward)
    found.report()
    return found


@pytest.fixture
def failing(watched: Watched) -> Watched:
    """A release is published that two of three have rolled back."""
    watched.desk.sign()
    watched.desk.publish()
    watched.report(
        pump_01=said(1), pump_02=said(0, "0.9", failed=1.0, update="failed-before"), pump_03=said(0, "0.9", failed=1.0)
    )
    return watched


def test_a_release_that_all_have_is_shown_with_who_runs_it(watched: Watched) -> None:
    watched.desk.sign()
    watched.desk.publish()
    watched.report(pump_01=said(1), pump_02=said(1), pump_03=said(1, update="up-to-date"))
    seen = watched.look()
    assert (seen.status, seen.notes, seen.halted) == (0, [], [])
    lines = list(firmwarestatus.table(seen))
    assert lines[0] == "relay 1.0.0 (counter 1), for 100 % of the devices: 3 current"
    assert lines[1] == "relay runs: 1.0.0 on 3"
    assert [line.split()[:5] for line in lines[4:]] == [[name, "relay", "1.0.0", "1", "current"] for name in NAMES]
    shown = json.loads(json.dumps(firmwarestatus.document(seen)))
    assert shown["rollouts"][0]["devices"]["current"] == 3
    assert {each["name"] for each in shown["devices"]} == set(NAMES)  # neither who is revoked nor who is not enrolled


def test_what_too_many_fail_of_is_halted_by_a_manifest_for_nobody(failing: Watched) -> None:
    before = failing.desk.files()
    seen = failing.look()
    assert seen.status == TO_LOOK_AT
    assert seen.halted == ["gw1: relay 1.0.0 HALTED: given to no device any more"]
    assert list(firmwarestatus.table(seen))[-1] == seen.halted[0]
    after = failing.desk.files()
    old, new = read(before["relay/manifest"]), read(after["relay/manifest"])
    assert (new.share, new.counter, new.seed, new.sha256) == (0, old.counter, old.seed, old.sha256)
    assert new.issued > old.issued and abs(new.expires - old.expires) <= HOUR
    assert after["relay/1.0.0.bin"] == before["relay/1.0.0.bin"]

    again = failing.look()
    assert (again.halted, again.status) == ([], TO_LOOK_AT)
    assert "halted, for none of the devices: 1 current, 2 failed" in list(firmwarestatus.table(again))[0]
    assert failing.desk.files() == after

    failing.desk.publish(rollout="50%")  # the operator's word stands above it
    assert read(failing.desk.files()["relay/manifest"]).share == 5000


def test_to_look_only_halts_nothing(failing: Watched) -> None:
    before = failing.desk.files()
    seen = failing.look(halt=False)
    assert (seen.halted, seen.status) == ([], TO_LOOK_AT)
    assert failing.desk.files() == before


def test_the_sites_own_limits_count(failing: Watched) -> None:
    failing.desk.site = failing.desk.site.model_copy(
        update={"firmware": failing.desk.site.firmware.model_copy(update={"halt_above_percent": 70})}
    )
    assert failing.look().halted == []
    for wrong in ({"halt_above_percent": 101}, {"halt_from": 0}, {"silent_after": "soon"}, {"halt": 1}):
        with pytest.raises((SiteError, ValueError)):
            a_site(firmware=wrong)


@pytest.mark.parametrize("lost", ["key", "image", "vault"])
def test_what_can_t_be_signed_anew_is_withdrawn_instead(
    failing: Watched, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    if lost == "key":
        vault = failing.desk.house.vault()
        with vault.transaction():
            vault.delete("firmware/keys/1/key")
    elif lost == "image":
        (failing.desk.house.root / "out/firmware.signed/relay/1.0.0.bin").unlink()
    else:

        def closed(_: object) -> None:
            raise VaultError("home.age: opens with no identity here")

        monkeypatch.setattr(vaults, "open_vault", closed)
    seen = failing.look()
    (line,) = seen.halted
    assert line.startswith("gw1: relay 1.0.0 HALTED: withdrawn (")
    assert failing.desk.files() == {}
    assert [note for note in seen.notes if "is unknown" in note] == seen.notes
    assert len(seen.notes) == (lost == "vault")


def test_a_gateway_that_is_full_keeps_what_it_had_and_it_is_said_that_nothing_was_halted(failing: Watched) -> None:
    before = failing.desk.files()
    (failing.desk.served / "relay/.new.manifest").symlink_to("/dev/full")
    seen = failing.look()
    assert seen.status == FAILED and seen.halted == []
    assert "relay 1.0.0 is NOT HALTED everywhere: gw1: " in seen.notes[0]
    assert failing.desk.files() == before


def test_a_gateway_that_does_not_answer_is_named_and_nothing_is_halted(
    failing: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody(_: object, gateway: str) -> None:
        raise RemoteError(f"{gateway}: no SSH to 192.0.2.1 port 22: timed out")

    monkeypatch.setattr(firmwarestatus, "connected", nobody)
    seen = failing.look()
    assert (seen.status, seen.standings, seen.halted) == (FAILED, [], [])
    assert seen.notes == ["gw1: no SSH to 192.0.2.1 port 22: timed out: what its devices run is unknown"]


def test_where_nothing_is_published_it_says_so(watched: Watched) -> None:
    watched.report(pump_01=said(0))
    seen = watched.look()
    assert (seen.status, seen.notes) == (0, [])
    assert list(firmwarestatus.table(seen))[0] == "nothing published"
    assert watched.states() == dict.fromkeys(NAMES, "no release")


def test_a_site_without_an_update_server_is_told_how_to_get_one() -> None:
    with pytest.raises(GatehouseError, match="add updates=True"):
        firmwarestatus.look(a_site())


def test_a_report_that_can_t_be_read_is_that_devices_alone(watched: Watched) -> None:
    watched.desk.sign()
    watched.desk.publish()
    watched.report(pump_01={"time": time.time(), "version": 7}, pump_02=said(1), pump_03=said(0, ago=27 * HOUR))
    assert watched.states() == {"pump-01": "unreadable", "pump-02": "current", "pump-03": "silent"}
    seen = watched.look()
    assert seen.status == TO_LOOK_AT
    assert "-" in list(firmwarestatus.table(seen))[4].split()


@pytest.mark.parametrize(
    ("program", "note"),
    [
        ("import sys; sys.exit('database: the database does not answer: refused')", "(the database does not answer"),
        ("raise SystemExit('one line\\ntwo lines')", "(two lines)"),
        ("", None),
        ("print('no JSON')", None),
        ("print('[]')", {}),
        ("print('7')", None),
    ],
)
def test_a_database_that_says_nothing_of_use_halts_nothing(failing: Watched, program: str, note: Any) -> None:
    before = failing.desk.files()
    failing.answers(program)
    seen = failing.look()
    assert seen.halted == [] and failing.desk.files() == before
    if note == {}:
        assert seen.status == TO_LOOK_AT and {each.state for each in seen.standings} == {"silent"}
        return
    assert seen.status == FAILED
    assert (note or "its answer is not understood") in seen.notes[0] and "\n" not in seen.notes[0]


def test_a_gateway_without_a_database_is_said_to_have_none(failing: Watched) -> None:
    (failing.steward / "__main__.py").unlink()
    seen = failing.look()
    assert seen.status == FAILED and "there is no database on it" in seen.notes[0]


def test_what_this_site_has_not_signed_is_not_counted_as_its_release(failing: Watched) -> None:
    manifest = failing.desk.served / "relay/manifest"
    good = manifest.read_bytes()
    for broken in (good[:-1] + bytes([good[-1] ^ 1]), b"x" * 512, b"", good[:100]):
        manifest.write_bytes(broken)
        seen = failing.look()
        assert seen.status == FAILED and seen.rollouts == [] and seen.halted == []
        assert "relay: what is published is not what this site has signed; publish it again" in seen.notes[0]
        assert manifest.read_bytes() == broken


def test_a_clock_that_was_set_back_makes_nobody_silent_and_is_told(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched.desk.sign()
    watched.desk.publish()
    watched.report(pump_01=said(1, ago=-40 * HOUR), pump_02=said(1, ago=-39 * HOUR), pump_03=said(1, ago=-38 * HOUR))
    seen = watched.look()
    assert {each.state for each in seen.standings} == {"current"}
    (note,) = seen.notes
    assert note.startswith("gw1: its clock shows ") and "it was set back" in note

    watched.report(pump_01=said(1), pump_02=said(1), pump_03=said(1))
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 90 * 24 * HOUR)  # this machine's
    seen = watched.look()
    assert {each.state for each in seen.standings} == {"current"}
    assert "this machine's" in seen.notes[0] and seen.notes[0].endswith("set one")


def test_a_desk_whose_clock_was_set_back_halts_what_it_must_all_the_same(
    failing: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 900 * 24 * HOUR)
    (line,) = failing.look().halted
    assert "HALTED" in line
    found = failing.desk.files().get("relay/manifest")
    assert found is None or read(found).share == 0


def test_a_release_that_is_good_for_years_can_be_rolled_out_too(watched: Watched) -> None:
    watched.desk.sign(expires="104w")
    watched.desk.publish(rollout="10%")
    found = read(watched.desk.files()["relay/manifest"])
    assert found.share == 1000 and abs(found.expires - time.time() - 104 * 7 * 24 * HOUR) < 25 * HOUR
    assert publishing.servers(watched.desk.site) == ["gw1"]
