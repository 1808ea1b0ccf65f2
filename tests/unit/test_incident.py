"""An incident: the device is cut off, the evidence is whole and encrypted, and what comes next is said."""

from __future__ import annotations

import base64
import datetime
import io
import json
import re
import shlex
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from invoke import Context
from invoke.parser import Parser

import tasks
from commands import common, incident
from deploy import devices, drift, incidents, vaults
from deploy.inventory import ROOT
from deploy.remote import RemoteError
from gatehouse.errors import GatehouseError
from gatehouse.identity import age, read_identities
from gatehouse.identity.backup import Backup, pack
from gatehouse.identity.store import VaultError
from gatehouse.proof.incident import IncidentError, Piece, next_steps, opened, sealed, timeline
from gatehouse.site import Site
from tests.unit.enrolling import House, a_house, a_site

NOW = datetime.datetime(2026, 3, 1, 12, 0, tzinfo=datetime.UTC)
SECRET, PUBLIC = age.generate()


def an_archive(**content: bytes) -> bytes:
    pieces = [Piece(f"{name}.txt", each, f"cat {name}", NOW) for name, each in content.items()]
    return sealed("2026-one", {"site": "home", "device": "one"}, pieces, NOW, [PUBLIC])


def test_an_archive_holds_what_was_put_in_and_says_how_it_was_obtained() -> None:
    found = opened("a.age", an_archive(journal=b"lines", sessions=b""), [SECRET])
    assert (found.name, found.problems) == ("2026-one", ())
    assert found.files["journal.txt"] == b"lines"
    assert found.manifest["device"] == "one"
    listed = {each["file"]: each for each in found.manifest["files"]}
    assert listed["journal.txt"]["how"] == "cat journal" and listed["journal.txt"]["bytes"] == 5
    assert listed.keys() == {"journal.txt", "sessions.txt"}


def test_its_checksums_are_those_that_sha256sum_reads(tmp_path: Path) -> None:
    plain = age.decrypt(an_archive(journal=b"lines"), [SECRET])
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        tar.extractall(tmp_path, filter="data")
    check = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    assert subprocess.run(check, cwd=tmp_path / "2026-one", check=False, capture_output=True).returncode == 0
    (tmp_path / "2026-one" / "journal.txt").write_text("other")
    assert subprocess.run(check, cwd=tmp_path / "2026-one", check=False, capture_output=True).returncode == 1


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"journal.txt": b"forged"}, "journal.txt: is not what the manifest says"),
        ({"journal.txt": None}, "journal.txt: missing"),
        ({"more.txt": b"more"}, "more.txt: is not what the manifest says"),
        ({"MANIFEST.json": b'{"files": []}'}, "MANIFEST.json: is not what the manifest says"),
    ],
)
def test_what_was_changed_in_an_archive_is_named(change: dict[str, bytes | None], problem: str) -> None:
    files = {**opened("a.age", an_archive(journal=b"lines"), [SECRET]).files, **change}
    kept = {name: content for name, content in files.items() if content is not None}
    raw = pack(Backup("2026-one", NOW, kept), [PUBLIC])
    assert problem in opened("a.age", raw, [SECRET]).problems


def test_another_file_and_another_identity_open_nothing() -> None:
    with pytest.raises(VaultError, match=r"a\.age: damaged"):
        opened("a.age", b"no age file", [SECRET])
    with pytest.raises(VaultError, match="this identity can't open it"):
        opened("a.age", an_archive(), [age.generate()[0]])
    with pytest.raises(IncidentError, match="holds no evidence"):
        opened("a.age", pack(Backup("home", NOW, {"vault.age": b""}), [PUBLIC]), [SECRET])


LOG = [
    "2026-03-01T11:00:00.000100+0000 gateway mosquitto[7]: New client connected from 10.10.10.7:5001 as kitchen-01 (",
    "2026-03-01T10:00:00.5+01:00 gateway dnsmasq[3]: DHCPACK(br-iot) 10.10.10.7 02:00:00:00:00:07",
    "2026-03-01T11:30:00Z gateway mosquitto[7]: Client kitchen-011 disconnected.",
    "2026-03-01T11:31:00Z gateway mosquitto[7]: Client other-kitchen-01 disconnected.",
    "2026-03-01T11:32:00Z gateway kernel: refused SRC=10.10.10.77 DST=10.10.20.1",
    "2026-99-01T11:32:00Z gateway kernel: kitchen-01 of no moment",
    "no moment at all kitchen-01",
]


def test_a_timeline_has_what_names_the_device_and_nothing_else_in_the_order_of_time() -> None:
    own = [(NOW, "kitchen-01 is put in quarantine")]
    lines = timeline(LOG, ["kitchen-01", "10.10.10.7", "02:00:00:00:00:07"], own)
    assert [line.split("  ", 1)[0] for line in lines] == [
        "2026-03-01T09:00:00.500+00:00",
        "2026-03-01T11:00:00.000+00:00",
        "2026-03-01T12:00:00.000+00:00",
    ]
    assert "DHCPACK" in lines[0] and "New client" in lines[1] and "quarantine" in lines[2]


def test_a_device_that_nothing_names_has_a_timeline_of_our_own_moments() -> None:
    assert len(timeline(LOG, [], [(NOW, "opened")])) == 1


def test_the_next_steps_are_the_playbooks_for_this_device_and_can_be_run() -> None:
    steps = next_steps((ROOT / "docs" / "playbooks.md").read_text(), "barn", "pump-02")
    commands = [shlex.split(step, comments=True) for step in steps]
    assert len(commands) >= 4
    assert {"release", "revoke"} <= {command[1] for command in commands}
    for command in commands:
        assert command[0] == "./kit" and command[command.index("--site") + 1] == "barn"
        assert "kitchen-01" not in command
        Parser(contexts=tasks.namespace.to_contexts()).parse_argv(command[1:])
    assert not any("quarantine" in command for command in commands)


# the whole of it


@dataclass
class Told:
    """A gateway that answers what it is asked, and notes it; `broken` where it answers too little."""

    asked: list[str] = field(default_factory=list)
    broken: bool = False

    gateway = "gw1"

    def run(self, script: str, stdin: str = "") -> str:
        self.asked.append(script)
        if "gatehouse-incident" not in script:
            return ""
        count = len(re.findall(r"base64 -w0; echo", script))
        journal = "2026-03-01T11:00:00.0+0000 gw1 mosquitto[7]: Client one disconnected."
        return (base64.b64encode(journal.encode()).decode() + "\n") * (count - self.broken)


@dataclass
class Field:
    house: House
    gateway: Told
    site: Callable[[], Site]


@pytest.fixture
def field_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Field:
    """A house with an enrolled device that has an address, and a gateway that listens."""
    house = a_house(tmp_path)
    house.enrol("one")
    text = house.registry.read_text().replace('name = "one"\n', 'name = "one"\naddress = "10.10.10.77"\n')
    house.registry.write_text(text)
    gateway = Told()

    @contextmanager
    def connected(site: Site, name: str) -> Iterator[Told]:
        yield gateway

    monkeypatch.setattr(devices, "connected", connected)
    monkeypatch.setattr(incidents, "connected", connected)
    monkeypatch.setattr(drift, "compare", lambda site: [])
    monkeypatch.setattr(vaults, "vault_path", lambda _: tmp_path / "home.age")
    monkeypatch.setattr(vaults, "identity_path", lambda _: tmp_path / "identity")
    monkeypatch.setattr(vaults, "registry_path", lambda _: house.registry)
    monkeypatch.setattr(incidents, "folder", lambda _: tmp_path / "incidents")

    def site() -> Site:
        return a_site(devices=tuple(house.devices().values()))

    monkeypatch.setattr(common, "site", lambda _: site())
    return Field(house, gateway, site)


def written(field: Field) -> list[Path]:
    return sorted((field.house.root / "incidents").glob("**/*"))


def test_the_device_is_cut_off_between_what_is_gone_soon_and_what_stays(
    field_of_one: Field, capsys: pytest.CaptureFixture[str]
) -> None:
    incident.start(Context(), device="one", site="home")
    assert field_of_one.house.devices()["one"].status == "quarantined"
    first, *between, last = field_of_one.gateway.asked
    assert "ss -H" in first and "journalctl" not in first
    assert between and not any("gatehouse-incident" in script for script in between)
    assert "journalctl" in last
    (path,) = written(field_of_one)
    assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700
    found = opened(str(path), path.read_bytes(), read_identities([field_of_one.house.root / "identity"]))
    assert found.problems == ()
    assert {*incidents.FLEETING, *incidents.LASTING, "device.json", "drift.json", "timeline.txt"} <= found.files.keys()
    assert json.loads(found.files["device.json"])["status"] == "quarantined"
    lines = found.files["timeline.txt"].decode().splitlines()
    assert "Client one disconnected" in lines[0] and "one is put in quarantine" in lines[-1]
    assert found.manifest["device"] == "one" and found.manifest["gateway"] == "gw1"
    said = capsys.readouterr().out
    assert "./kit release --site home --name one" in said and str(path) in said
    assert b"disconnected" not in path.read_bytes()


def test_only_evidence_leaves_the_device_as_it_is(field_of_one: Field) -> None:
    incidents.start(field_of_one.site(), "one", lambda _: None, only_evidence=True)
    assert field_of_one.house.devices()["one"].status == "active"
    assert len(written(field_of_one)) == 1


def test_a_revoked_device_stays_revoked(field_of_one: Field) -> None:
    devices.revoke(field_of_one.site(), ["one"], lambda _: None)
    incidents.start(field_of_one.site(), "one", lambda _: None)
    assert field_of_one.house.devices()["one"].status == "revoked"
    assert len(written(field_of_one)) == 1


def test_a_gateway_that_can_not_be_compared_is_evidence_too(
    field_of_one: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compare(_: Site) -> Any:
        raise drift.DriftError("gw1: no answer")

    monkeypatch.setattr(drift, "compare", compare)
    path = incidents.start(field_of_one.site(), "one", lambda _: None)
    found = opened(str(path), path.read_bytes(), read_identities([field_of_one.house.root / "identity"]))
    assert json.loads(found.files["drift.json"]) == {"error": "gw1: no answer"}


def test_a_device_that_is_none_and_a_gateway_that_breaks_off_leave_nothing_behind(field_of_one: Field) -> None:
    with pytest.raises(GatehouseError, match="nobody: no such device"):
        incidents.start(field_of_one.site(), "nobody", lambda _: None)
    assert not field_of_one.gateway.asked
    field_of_one.gateway.broken = True
    with pytest.raises(RemoteError, match="broke off"):
        incidents.start(field_of_one.site(), "one", lambda _: None)
    assert not written(field_of_one)


def test_where_nothing_can_be_written_nothing_is(field_of_one: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    (field_of_one.house.root / "file").write_text("")
    monkeypatch.setattr(incidents, "folder", lambda _: field_of_one.house.root / "file" / "incidents")
    with pytest.raises(IncidentError, match="not written .* run this again"):
        incidents.start(field_of_one.site(), "one", lambda _: None)


@pytest.mark.parametrize("step", ["open", "write", "fsync", "replace"])
def test_killed_while_it_writes_it_leaves_no_archive(
    field_of_one: Field, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    import os

    real = getattr(os, step)

    def dies(*args: Any, **named: Any) -> Any:
        if (field_of_one.house.root / "incidents").exists():
            raise OSError(28, "No space left on device")
        return real(*args, **named)

    monkeypatch.setattr(os, step, dies)
    with pytest.raises(IncidentError, match="No space left"):
        incidents.start(field_of_one.site(), "one", lambda _: None)
    assert not [path for path in written(field_of_one) if path.suffix == ".age"]


def test_an_archive_is_opened_into_a_new_folder_and_compared(
    field_of_one: Field, capsys: pytest.CaptureFixture[str]
) -> None:
    path = incidents.start(field_of_one.site(), "one", lambda _: None)
    to = field_of_one.house.root / "opened"
    with pytest.raises(SystemExit) as ended:
        incident.open_evidence(Context(), str(path), str(to), site="home")
    assert ended.value.code == 0
    assert "Client one disconnected" in (to / "timeline.txt").read_text()
    assert (to / "timeline.txt").stat().st_mode & 0o777 == 0o600
    with pytest.raises(SystemExit, match="name a folder that is not there yet"):
        incident.open_evidence(Context(), str(path), str(to), site="home")
    with pytest.raises(SystemExit, match="can't be read"):
        incident.open_evidence(Context(), str(to / "none.age"), str(to / "more"), site="home")
    forged = pack(
        Backup(
            "x",
            NOW,
            {
                **opened("a", path.read_bytes(), read_identities([field_of_one.house.root / "identity"])).files,
                "journal.txt": b"forged",
            },
        ),
        field_of_one.house.vault().recipients,
    )
    path.write_bytes(forged)
    with pytest.raises(SystemExit, match=r"journal\.txt: is not what the manifest says"):
        incident.open_evidence(Context(), str(path), str(to) + "-2", site="home")
