"""A lab's key stays private, its lock goes with the process, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key

from lab.errors import LabError
from lab.state import State, locked, write

ROOT = Path(__file__).parents[2]


def test_the_key_is_made_once_and_nobody_else_can_read_it(tmp_path: Path) -> None:
    state = State("lab", tmp_path)
    public = state.prepare()
    assert state.prepare() == public
    assert stat.S_IMODE(state.directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(state.key.stat().st_mode) == 0o600
    private = load_ssh_private_key(state.key.read_bytes(), None)
    assert private.public_key() == load_ssh_public_key(public.encode())


def test_half_a_key_pair_is_replaced_by_a_whole_one(tmp_path: Path) -> None:
    state = State("lab", tmp_path)
    before = state.prepare()
    state.key.unlink()
    after = state.prepare()
    assert after != before
    assert load_ssh_private_key(state.key.read_bytes(), None).public_key() == load_ssh_public_key(after.encode())


def test_a_file_replaced_has_its_mode_from_the_start_whatever_was_there(tmp_path: Path) -> None:
    target = tmp_path / "secret"
    target.write_text("old")
    target.chmod(0o644)
    (tmp_path / ".secret.new").write_text("left by a killed run")
    write(target, b"new", 0o600)
    assert target.read_bytes() == b"new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["secret"]


def test_removing_the_last_lab_leaves_no_directory_and_another_one_stays(tmp_path: Path) -> None:
    home = tmp_path / ".lab"
    one, other = State("one", home), State("other", home)
    one.prepare()
    other.prepare()
    one.remove()
    assert other.key.exists()
    other.remove()
    assert not home.exists()


def test_a_directory_that_is_kept_elsewhere_stays(tmp_path: Path) -> None:
    home, elsewhere = tmp_path / ".lab", tmp_path / "elsewhere"
    elsewhere.mkdir()
    home.symlink_to(elsewhere)
    one = State("one", home)
    one.prepare()
    one.remove()
    assert home.is_symlink() and list(elsewhere.iterdir()) == []


def test_a_second_command_on_the_same_lab_waits_and_one_on_another_does_not() -> None:
    said: list[str] = []
    with locked("unit-a", said.append):
        with locked("unit-b", said.append):
            assert said == []
        with pytest.raises(LabError, match="unit-a"), locked("unit-a", said.append, patience=0):
            pass
    assert len(said) == 1
    with locked("unit-a", said.append, patience=0):
        assert len(said) == 1


def test_a_killed_command_leaves_no_lock() -> None:
    holder = (
        "import sys, signal; from lab.state import locked\n"
        "with locked('unit-killed', print):\n    print('held', flush=True); signal.pause()"
    )
    process = subprocess.Popen([sys.executable, "-c", holder], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with pytest.raises(LabError), locked("unit-killed", lambda _: None, patience=0):
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    with locked("unit-killed", lambda _: None, patience=0):
        pass
