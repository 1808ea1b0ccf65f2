"""AppArmor's profiles as rendered, judged by its own parser."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from roles.apparmor import CONFINED, profile
from roles.apparmor.deploy import CHECK, profiles
from roles.rendering import File
from roles.target import Target


@pytest.fixture(scope="module", autouse=True)
def parser(programs: Callable[..., None]) -> None:
    programs("apparmor_parser", "apparmor")


def judged(files: list[File], folder: Path) -> subprocess.CompletedProcess[str]:
    """The role's own check of what it would put in place."""
    for file in files:
        path = folder / file.path.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)
    environment = {**os.environ, "STAGED": str(folder)}
    return subprocess.run(["sh", "-c", CHECK], env=environment, capture_output=True, text=True, check=False)


def test_every_profile_is_understood(gateway_of: Callable[..., Target], tmp_path: Path) -> None:
    files = profiles(gateway_of())
    assert [Path(file.path).name for file in files] == [profile(name) for name in CONFINED]
    done = judged(files, tmp_path)
    assert done.returncode == 0, done.stderr
    # The kernel below may have no AppArmor: the parser says so, and judges all the same.
    assert "AppArmor parser error" not in done.stderr


def test_a_profile_with_a_mistake_is_refused_before_it_is_in_place(
    gateway_of: Callable[..., Target], tmp_path: Path
) -> None:
    first, *others = profiles(gateway_of())
    done = judged([replace(first, content=first.content.replace(b" mr,", b" mr")), *others], tmp_path)
    assert done.returncode
    assert "missing an end of line character" in done.stderr
