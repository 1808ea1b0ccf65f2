"""The lab's gateway needs a tun device: one that is there is used, a missing node is made, no kernel's is an error."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from lab import tun
from lab.errors import LabError


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without the node, whose kernel has the device; modprobe is not called."""
    monkeypatch.setattr(tun, "DEVICE", tmp_path / "net" / "tun")
    monkeypatch.setattr(tun, "MISC", tmp_path / "misc")
    monkeypatch.setattr("lab.tun.shutil.which", lambda name: None)
    (tmp_path / "misc").write_text("200 tun\n 10 fuse\n")
    return tmp_path


def test_a_missing_node_is_made_and_said_once(machine: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("makes a device node, which needs root")
    said: list[str] = []
    tun.ensure(said.append)
    made = (machine / "net" / "tun").stat()
    assert stat.S_ISCHR(made.st_mode) and made.st_rdev == os.makedev(10, 200) and stat.S_IMODE(made.st_mode) == 0o600
    tun.ensure(said.append)
    assert len(said) == 1


def test_a_kernel_without_it_is_an_error_that_says_what_to_do(machine: Path) -> None:
    (machine / "misc").write_text(" 10 fuse\n")
    with pytest.raises(LabError, match="modprobe tun"):
        tun.ensure(print)
    assert not (machine / "net").exists()
