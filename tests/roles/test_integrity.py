"""AIDE's rules as rendered, and the program that judges what it finds: with the real AIDE, in a folder of its own."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from roles.integrity import files
from roles.rendering import File
from roles.target import Target


@pytest.fixture(scope="module", autouse=True)
def aide(programs: Callable[..., None]) -> None:
    programs("aide", "aide")


def judged(given: list[File], folder: Path) -> subprocess.CompletedProcess[str]:
    """The role's own check of what it would put in place."""
    for file in given:
        path = folder / file.path.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)
    environment = {**os.environ, "STAGED": str(folder)}
    return subprocess.run(["sh", "-c", files.CHECK], env=environment, capture_output=True, text=True, check=False)


def test_the_rules_are_understood(gateway_of: Callable[..., Target], tmp_path: Path) -> None:
    done = judged(files.configuration(gateway_of()), tmp_path)
    assert done.returncode == 0, done.stderr


def test_rules_with_a_mistake_are_refused_before_they_are_in_place(
    gateway_of: Callable[..., Target], tmp_path: Path
) -> None:
    rules, *others = files.configuration(gateway_of())
    done = judged([replace(rules, content=rules.content.replace(b"+sha256", b"+sha257")), *others], tmp_path)
    assert done.returncode and "sha257" in done.stderr


class Here:
    """A folder that is looked at by the rules of a gateway, with a dpkg of its own."""

    def __init__(self, folder: Path, target: Target) -> None:
        spec = importlib.util.spec_from_file_location("integrity", Path(files.__file__).with_name("integrity.py"))
        assert spec is not None and spec.loader is not None
        self.program: ModuleType = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.program)
        self.root, self.state, self.rules = folder / "usr", folder / "state", folder / "rules"
        self.dpkg, self.declared = folder / "dpkg", folder / "declared"
        for each in (self.root, self.state, self.dpkg / "info"):
            each.mkdir(parents=True)
        (self.dpkg / "status").write_text("")
        self.declared.write_text("[]")
        text = files.configuration(target)[0].content.decode().replace(files.STATE, str(self.state))
        kept = [line for line in text.splitlines() if not line.endswith(" Code")]
        self.rules.write_text("\n".join([*kept, f"{self.root} Code", ""]))

    def look(self) -> dict[str, Any]:
        """Looks, and leaves the status as the program does."""
        known = self.program.Known(self.declared, self.dpkg, self.dpkg)
        found: dict[str, Any] = self.program.Folder(self.state, self.rules).look(known)
        (self.state / "status.json").write_text(json.dumps(found))
        return found

    def found(self) -> list[tuple[str, str]]:
        """What is found, by its name in the folder."""
        return [(f["what"], f["path"].removeprefix(f"{self.root}/")) for f in self.look()["findings"]]

    def ship(self, name: str, content: str) -> None:
        """A package brings a file."""
        (self.root / name).write_text(content)
        (self.dpkg / "info" / "gift.list").write_text(f"{self.root}\n{self.root / name}\n")
        digest = hashlib.md5(content.encode()).hexdigest()  # noqa: S324  as dpkg has it
        (self.dpkg / "info" / "gift.md5sums").write_text(f"{digest}  {str(self.root / name).lstrip('/')}\n")


@pytest.fixture
def here(tmp_path: Path, gateway_of: Callable[..., Target]) -> Here:
    made = Here(tmp_path, gateway_of())
    (made.root / "old").write_text("of nobody, before all else")
    made.ship("tool", "1")
    assert made.look()["count"] == 0
    return made


def test_the_first_look_makes_the_database_and_counts_who_was_of_nobody(here: Here) -> None:
    status = json.loads((here.state / "status.json").read_text())
    assert (status["files"], status["strangers"]) == (3, 1)
    assert (here.state / "aide.db").stat().st_mode & 0o777 == 0o600
    assert json.loads((here.state / "strangers.json").read_text()) == [f"{here.root}/old"]


def test_an_upgrade_is_explained_and_is_in_the_database_then(here: Here) -> None:
    before = (here.state / "aide.db").read_bytes()
    here.ship("tool", "2")
    assert here.found() == []
    assert (here.state / "aide.db").read_bytes() != before
    (here.dpkg / "info" / "gift.list").unlink()
    (here.root / "tool").unlink()
    assert here.found() == []


@pytest.mark.parametrize("name", ["plain", "with space", "new\nline", 'quo"te', "é", "back\\slash", "percent%20"])
def test_a_file_of_nobody_is_found_each_night_whatever_its_name(here: Here, name: str) -> None:
    (here.root / name).write_text("x")
    for _ in range(2):
        ((what, _name),) = here.found()
        assert what == "new"
    (here.root / name).unlink()
    assert here.found() == []


def test_a_privilege_a_changed_content_and_a_loss_are_found(here: Here) -> None:
    (here.root / "tool").chmod(0o4755)
    (here.root / "old").unlink()
    assert here.found() == [("changed", "tool"), ("gone", "old")]
    (here.root / "tool").chmod(0o644)
    (here.root / "tool").write_text("changed")
    assert ("changed", "tool") in here.found()


def test_a_file_beneath_a_folder_of_python_s_own_copies_is_not_looked_at(here: Here) -> None:
    (here.root / "__pycache__").mkdir()
    (here.root / "__pycache__" / "x.pyc").write_text("x")
    assert here.found() == []


def test_exactly_what_was_shown_is_accepted(here: Here) -> None:
    (here.root / "new").write_text("x")
    shown = here.look()["digest"]
    (here.root / "newer").write_text("x")
    (here.state / "accept").write_text(shown)
    found = here.look()
    assert (found["count"], found["accepted"]) == (2, 0)
    assert not (here.state / "accept").exists()
    (here.state / "accept").write_text(found["digest"])
    assert (here.look()["accepted"], here.found()) == (2, [])


def test_other_rules_count_only_once_what_was_found_by_the_former_ones_is_settled(here: Here) -> None:
    (here.root / "new").write_text("x")
    here.rules.write_text(here.rules.read_text() + f"!{here.root}/new$\n")
    assert here.found() == [("new", "new")]
    (here.root / "new").unlink()
    assert here.found() == []
    (here.root / "new").write_text("x")
    assert here.found() == []


def test_a_database_that_is_gone_is_not_made_anew_by_itself(here: Here) -> None:
    (here.state / "aide.db").unlink()
    with pytest.raises(here.program.Unable, match=r"is gone .*harden makes another"):
        here.look()


def test_more_findings_than_are_named_are_counted(here: Here) -> None:
    for number in range(150):
        (here.root / f"new-{number}").write_text("x")
    found = here.look()
    assert (found["count"], len(found["findings"])) == (150, here.program.MOST)


def test_a_database_that_is_none_lets_nobody_s_file_pass(here: Here) -> None:
    (here.state / "aide.db").write_text("nonsense\n")
    assert ("new", "old") in here.found()
