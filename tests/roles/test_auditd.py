"""auditd's configuration as rendered, judged by auditd. Its rules are judged by a kernel of their own (tests/vm)."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from roles.auditd import LOGS
from roles.auditd.deploy import configuration

# A user namespace, where no kernel takes an audit daemon: it reads its files, says what it thinks of them, and ends.
APART = "mount -t tmpfs none /run && mkdir -p /run/log && exec auditd -f -n -c {}"


@pytest.fixture(scope="module", autouse=True)
def daemon(programs: Callable[..., None]) -> None:
    programs("auditd", "auditd")


def judged(folder: Path, content: bytes) -> str:
    """What auditd says of a configuration, whose log is in a folder of the test's."""
    logs = folder / "log"
    logs.mkdir(mode=0o700, exist_ok=True)
    (folder / "auditd.conf").write_bytes(content.replace(LOGS.encode(), bytes(logs)))
    (folder / "auditd.conf").chmod(0o640)
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", APART.format(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stderr


def test_auditd_knows_every_setting(tmp_path: Path) -> None:
    said = judged(tmp_path, configuration().content)
    assert "priority_boost_parser called with: 4" in said and " line " not in said, said


@pytest.mark.parametrize("wrong", ["no_such_setting = 1", "disk_full_action = GO_ON"])
def test_what_auditd_does_not_know_is_noticed(tmp_path: Path, wrong: str) -> None:
    content = configuration().content + f"{wrong}\n".encode()
    assert f" line {len(content.splitlines())}" in judged(tmp_path, content)
