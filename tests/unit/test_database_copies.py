"""The whole database as one tar, and back: whole, or not at all."""

from __future__ import annotations

import gzip
import importlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

GATEWAY = Path(__file__).parent.parent.parent / "roles" / "influxdb" / "gateway"
MODULES = ("common", "tokens", "one", "two", "engines", "private", "copies")
ONE = SimpleNamespace(engine="influxdb1", database="gatehouse")
TWO = SimpleNamespace(engine="influxdb2", database="gatehouse")


@pytest.fixture
def copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The steward's module, over a folder of the test's own; the unit is one that obeys."""
    monkeypatch.syspath_prepend(str(GATEWAY))
    module = importlib.import_module("copies")
    state = tmp_path / "influxdb"
    (state / "data" / "1").mkdir(parents=True, mode=0o700)
    (state / "data" / "1" / "000001.tsm").write_bytes(b"measured" * 1000)
    (state / "meta.db").write_bytes(b"accounts")
    monkeypatch.setattr(module, "STATE", state)
    monkeypatch.setattr(module.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0))
    monkeypatch.setattr(module.pwd, "getpwnam", lambda _: SimpleNamespace(pw_uid=os.getuid(), pw_gid=os.getgid()))
    monkeypatch.setattr(module, "engine", lambda _: SimpleNamespace(devices=lambda: ["kitchen-01"]))
    yield module
    for name in MODULES:
        sys.modules.pop(name, None)


def stream(monkeypatch: pytest.MonkeyPatch, name: str, content: bytes = b"") -> io.BytesIO:
    buffer = io.BytesIO(content)
    monkeypatch.setattr(sys, name, SimpleNamespace(buffer=buffer, write=lambda _: 0, flush=lambda: None))
    return buffer


def backup(copies: ModuleType, monkeypatch: pytest.MonkeyPatch, settings: Any = ONE) -> bytes:
    with monkeypatch.context() as patched:
        out = stream(patched, "stdout")
        copies.backup(settings)
        return out.getvalue()


def restore(copies: ModuleType, monkeypatch: pytest.MonkeyPatch, content: bytes, settings: Any = ONE) -> None:
    with monkeypatch.context() as patched:
        stream(patched, "stdin", content)
        copies.restore(settings)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_was_backed_up_comes_back_and_nothing_is_left_beside(
    copies: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(copies.STATE)
    made = backup(copies, monkeypatch)
    (copies.STATE / "meta.db").write_bytes(b"others")
    (copies.STATE / "since").write_bytes(b"new")
    restore(copies, monkeypatch, made)
    assert files(copies.STATE) == before
    assert os.listdir(copies.STATE.parent) == ["influxdb"]
    assert copies.STATE.stat().st_mode & 0o777 == 0o700


def test_a_copy_that_a_power_cut_left_is_taken_away(copies: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    (copies.STATE.parent / ".influxdb.0123abcd").mkdir()
    backup(copies, monkeypatch)
    assert os.listdir(copies.STATE.parent) == ["influxdb"]


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.8])
def test_a_backup_that_ends_early_changes_nothing(
    copies: ModuleType, monkeypatch: pytest.MonkeyPatch, kept: float
) -> None:
    made, before = backup(copies, monkeypatch), files(copies.STATE)
    with pytest.raises(copies.Trouble, match="no whole backup|no backup"):
        restore(copies, monkeypatch, made[: int(len(made) * kept)])
    assert files(copies.STATE) == before and os.listdir(copies.STATE.parent) == ["influxdb"]


def test_a_backup_without_its_last_member_is_not_whole(copies: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    made, before = backup(copies, monkeypatch), files(copies.STATE)
    with tarfile.open(fileobj=io.BytesIO(made), mode="r:gz") as whole:
        members = whole.getnames()
    assert (members[0], members[-1]) == (copies.ABOUT, copies.END)
    with pytest.raises(copies.Trouble, match="whole"):
        restore(copies, monkeypatch, archive({copies.ABOUT: about("influxdb1"), "meta.db": b"x"}))
    assert files(copies.STATE) == before


def test_another_engine_s_backup_is_refused_and_one_s_own_is_taken(
    copies: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = backup(copies, monkeypatch, TWO)
    with pytest.raises(copies.Trouble, match="backup is of influxdb2, this gateway runs influxdb1"):
        restore(copies, monkeypatch, made)
    restore(copies, monkeypatch, made, TWO)


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "a/../../outside"])
def test_nothing_is_written_outside_of_the_database_s_folder(
    copies: ModuleType, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    made = archive({copies.ABOUT: about("influxdb1"), name: b"x", copies.END: b""})
    with pytest.raises(copies.Trouble):
        restore(copies, monkeypatch, made)
    assert os.listdir(copies.STATE.parent) == ["influxdb"]


def about(engine: str) -> bytes:
    return json.dumps({"engine": engine, "database": "gatehouse"}).encode()


def archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb") as small, tarfile.open(fileobj=small, mode="w|") as out:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            out.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def test_the_token_that_lets_the_administrator_in_again_is_read_from_influxds_table(
    copies: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = importlib.import_module("private")
    # As 2.9.1 prints it: tabs fill the columns, and only the new token can be read.
    table = (
        "ID\t\tUser Name\tUser ID\t\tDescription\t\tToken\t\tPermissions\n"
        "11b0\tgatehouse-admin\t11b2\tgatehouse intake d182\t\tREDACTED\t\t[write:orgs/b3/buckets/38]\n"
        "11b4\tgatehouse-admin\t11b2\tgatehouse-admin's Recovery Token\ty3EC==\t[read:users write:users]\n"
    )
    asked: list[list[str]] = []

    def run(command: list[str], **_: Any) -> Any:
        asked.append(command)
        return subprocess.CompletedProcess(command, 0, table, "")

    monkeypatch.setattr(private.subprocess, "run", run)
    settings = SimpleNamespace(administrator="gatehouse-admin", database="gatehouse", password="secret")
    assert private._operator(settings) == "y3EC=="
    assert "secret" not in asked[0]
    table = "ID\tUser Name\n"
    with pytest.raises(private.Trouble, match="makes no token"):
        private._operator(settings)
