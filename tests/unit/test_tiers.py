"""`./kit test`: each tier is run, and what failed in any of them is named once more at the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import pytest
from invoke import Context

from commands import common, testing
from commands.common import start_pytest
from deploy import tools
from deploy.inventory import ROOT


class Tiers:
    """Plays pytest: which tests shall fail, by tier, and which tiers were run, in that order."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.fails: dict[str, list[str]] = {}
        self.why: dict[str, dict[str, dict[str, str]]] = {}
        self.ran: list[str] = []

    def run(self, where: str, *options: str) -> int:
        """As `common.pytest`."""
        (cache,) = (Path(option.partition("=")[2]) for option in options if option.startswith("cache_dir="))
        tier = cache.name
        assert testing.TIERS[tier][0] == where
        self.ran.append(tier)
        names = self.fails.get(tier, [])
        (cache / "v/cache").mkdir(parents=True, exist_ok=True)
        (cache / "v/cache/lastfailed").write_text(json.dumps(dict.fromkeys(names, True)))
        if tier in self.why:
            (cache / "v/gatehouse").mkdir(exist_ok=True)
            (cache / "v" / testing.WHY).write_text(json.dumps(self.why[tier]))
        return 1 if names else 0

    def start(self, where: str, *options: str, said: IO[bytes]) -> subprocess.Popen[bytes]:
        """As `common.start_pytest`."""
        status = self.run(where, *options)
        program = f"import time; time.sleep(0.3); print('beside'); raise SystemExit({status})"
        return subprocess.Popen([sys.executable, "-c", program], stdout=said)


@pytest.fixture
def tiers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Tiers:
    played = Tiers(tmp_path)
    monkeypatch.setattr(common, "pytest", played.run)
    monkeypatch.setattr(common, "start_pytest", played.start)
    monkeypatch.setattr(tools, "ensure", lambda _: None)
    monkeypatch.setattr(testing, "ROOT", tmp_path)
    monkeypatch.setattr(testing, "_style", list)
    return played


def failed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The tests that are named at the end."""
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("test: failed: ")]


def test_every_tier_is_run_but_those_on_request(tiers: Tiers, capsys: pytest.CaptureFixture[str]) -> None:
    testing.test.body(Context())
    assert tiers.ran == [tier for tier in testing.TIERS if tier not in testing.ON_REQUEST]
    lines = capsys.readouterr().out.splitlines()
    assert lines.index("test: vm, beside the others: what it says comes at the end") < lines.index("test: roles")
    assert lines.index("test: lab") < lines.index("test: vm, until its end") < lines.index("beside")


def test_a_tier_alone_is_not_beside_others(tiers: Tiers, capsys: pytest.CaptureFixture[str]) -> None:
    testing.test.body(Context(), tier="vm")
    assert tiers.ran == ["vm"]
    assert capsys.readouterr().out == "test: vm\n"


def test_what_failed_is_named_once_more_at_the_end(tiers: Tiers, capsys: pytest.CaptureFixture[str]) -> None:
    tiers.fails = {"unit": ["tests/unit/test_one.py::test_a[x y]"], "vm": ["tests/vm/test_two.py::test_b"]}
    with pytest.raises(SystemExit, match="test: failed: unit, vm"):
        testing.test.body(Context())
    assert failed(capsys) == [
        "test: failed: tests/unit/test_one.py::test_a[x y]",
        "test: failed: tests/vm/test_two.py::test_b",
    ]
    assert tiers.ran == [tier for tier in testing.TIERS if tier not in testing.ON_REQUEST]


def test_what_failed_says_why_and_cases_that_failed_alike_are_one_line(
    tiers: Tiers, capsys: pytest.CaptureFixture[str]
) -> None:
    alike = {f"tests/lab/test_one.py::test_a[{case}]": "no gateway" for case in "xyz"}
    other = {"tests/lab/test_one.py::test_a[w]": "assert 1 == 2", "tests/lab/test_two.py::test_b": "no gateway"}
    tiers.fails = {"lab": [*alike, *other, "tests/lab/test_two.py::test_c"]}
    tiers.why = {"lab": {"failed": alike | other, "rerun": {"tests/lab/test_one.py::test_d": "too late"}}}
    with pytest.raises(SystemExit, match="test: failed: lab"):
        testing.test.body(Context(), tier="lab")
    assert capsys.readouterr().out.splitlines() == [
        "test: lab",
        "test: made once more: tests/lab/test_one.py::test_d: too late",
        "test: failed: tests/lab/test_one.py::test_a[w]: assert 1 == 2",
        "test: failed: tests/lab/test_one.py::test_a[x] and 2 more of its cases: no gateway",
        "test: failed: tests/lab/test_two.py::test_b: no gateway",
        "test: failed: tests/lab/test_two.py::test_c",
    ]


@pytest.mark.parametrize("noted", ["", "[]", '{"failed": '])
def test_reasons_that_cannot_be_read_take_no_name_away(
    tiers: Tiers, capsys: pytest.CaptureFixture[str], tmp_path: Path, noted: str
) -> None:
    tiers.fails = {"lab": ["tests/lab/test_one.py::test_a"]}

    def run(where: str, *options: str) -> int:
        status = tiers.run(where, *options)
        path = tmp_path / ".pytest_cache/lab/v" / testing.WHY
        path.parent.mkdir(parents=True)
        path.write_text(noted)
        return status

    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit, match="test: failed: lab"):
        patch.setattr(common, "pytest", run)
        testing.test.body(Context(), tier="lab")
    assert failed(capsys) == ["test: failed: tests/lab/test_one.py::test_a"]


def test_pytest_notes_why_tests_failed_and_why_one_was_made_once_more(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text((ROOT / "tests/conftest.py").read_text())
    (tmp_path / "test_it.py").write_text(
        """
import pathlib
import pytest

@pytest.fixture
def gateway():
    raise OSError("no gateway\\nat all")

def test_of_a_gateway(gateway):
    pass

def test_that_passes_in_the_end(tmp_path_factory):
    noted = pathlib.Path(__file__).with_name("noted")
    if not noted.exists():
        noted.touch()
        assert 1 == 2, "the first time"

def test_that_fails():
    assert 1 == 2, "each time"

def test_that_passes():
    pass
"""
    )
    options = ("-q", "--reruns", "1", "-o", f"cache_dir={tmp_path / 'cache'}", "-c", os.devnull, "--rootdir", ".")
    for workers in ("0", "2"):
        (tmp_path / "noted").unlink(missing_ok=True)
        subprocess.run(
            [sys.executable, "-m", "pytest", *options, "-n", workers, "test_it.py"],
            cwd=tmp_path,
            capture_output=True,
            check=False,
        )
        noted = json.loads((tmp_path / "cache/v" / testing.WHY).read_text())
        assert noted["failed"] == {
            "test_it.py::test_of_a_gateway": "OSError: no gateway at all",
            "test_it.py::test_that_fails": "AssertionError: each time assert 1 == 2",
        }
        assert (
            noted["rerun"]["test_it.py::test_that_passes_in_the_end"] == "AssertionError: the first time assert 1 == 2"
        )
        assert "test_it.py::test_that_passes" not in {**noted["failed"], **noted["rerun"]}


def test_what_failed_in_a_former_run_is_not_named(
    tiers: Tiers, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiers.fails = {"roles": ["tests/roles/test_one.py::test_a"]}
    with pytest.raises(SystemExit):
        testing.test.body(Context(), tier="roles")
    assert failed(capsys)
    # It can't even begin, and notes nothing.
    monkeypatch.setattr(common, "pytest", lambda *_: 4)
    with pytest.raises(SystemExit, match="test: failed: roles"):
        testing.test.body(Context(), tier="roles")
    assert failed(capsys) == []


def test_the_tier_beside_is_told_and_waited_for_when_the_others_end_early(
    tiers: Tiers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ready, tidied = tmp_path / "ready", tmp_path / "tidied"
    program = (
        "import pathlib, sys, time\n"
        "ready, tidied = map(pathlib.Path, sys.argv[1:])\n"
        "try:\n    ready.touch()\n    time.sleep(60)\n"
        "except KeyboardInterrupt:\n    tidied.touch()\n"
    )

    def broken(where: str, *options: str) -> int:
        if where == testing.TIERS["roles"][0]:
            until = time.monotonic() + 30
            while not ready.exists() and time.monotonic() < until:
                time.sleep(0.02)
            raise OSError("no room")
        return tiers.run(where, *options)

    monkeypatch.setattr(common, "start_pytest", start_pytest)
    monkeypatch.setattr(common, "_pytest", lambda *_: [sys.executable, "-c", program, str(ready), str(tidied)])
    monkeypatch.setattr(common, "pytest", broken)
    # As a shell starts what it is not to wait for.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with pytest.raises(OSError, match="no room"):
            testing.test.body(Context())
    finally:
        signal.signal(signal.SIGINT, before)
    assert tidied.exists()


def test_an_unknown_tier_is_refused_with_those_that_there_are(tiers: Tiers) -> None:
    with pytest.raises(SystemExit, match=r"no tier 'units' \(use style, unit, vm, roles"):
        testing.test.body(Context(), tier="units")
    assert tiers.ran == []
