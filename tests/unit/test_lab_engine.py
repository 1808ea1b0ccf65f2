"""A Docker Engine that is there is used, a dead one is started, and one that can't be had is explained."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import engine, manage
from lab.errors import LabError

# Answers Docker's ping and version, as much as a client asks for; ends with the test.
ENGINE = """#!{python}
import http.server, os, socketserver
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b'{{"ApiVersion": "1.41", "MinAPIVersion": "1.12"}}' if self.path.endswith("version") else b"OK"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def address_string(self):
        return "client"
    def log_message(self, *_):
        pass
open("{pid_file}", "w").write(str(os.getpid()))
if os.path.exists("{socket}"):
    os.unlink("{socket}")
socketserver.ThreadingUnixStreamServer("{socket}", Answer).serve_forever()
"""
BROKEN = """#!/bin/sh
echo 'level=info msg="Starting up"'
echo 'failed to start daemon: no space left on device' >&2
exit 1
"""


class Machine:
    """A machine with its own socket, process-id file, log and `dockerd`."""

    def __init__(self, directory: Path) -> None:
        self.socket, self.pid_file, self.log = (directory / n for n in ("docker.sock", "docker.pid", "dockerd.log"))
        self.programs = directory / "bin"
        self.programs.mkdir()

    def has(self, name: str, text: str) -> None:
        program = self.programs / name
        program.write_text(text.format(python=sys.executable, pid_file=self.pid_file, socket=self.socket))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    made = Machine(tmp_path)
    monkeypatch.setattr(engine, "SOCKET", made.socket)
    monkeypatch.setattr(engine, "PID_FILE", made.pid_file)
    monkeypatch.setattr(engine, "LOG_FILE", made.log)
    monkeypatch.setattr(engine, "SYSTEMD", tmp_path / "no-systemd")
    monkeypatch.setattr(engine, "START_SECONDS", 10)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", str(made.programs))
    yield made
    if made.pid_file.exists() and made.socket.exists():
        os.kill(int(made.pid_file.read_text()), 9)


def test_a_dead_engine_is_started_and_then_used_without_a_word(machine: Machine) -> None:
    machine.has("dockerd", ENGINE)
    said: list[str] = []
    assert engine.connect(said.append).ping()
    assert said == [f"lab: starting dockerd (its log: {machine.log})"]
    assert engine.connect(said.append).ping()
    assert len(said) == 1


def test_what_a_killed_engine_left_is_no_hindrance(machine: Machine) -> None:
    machine.has("dockerd", ENGINE)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    machine.pid_file.write_text(str(ended.pid))
    machine.socket.touch()
    assert engine.connect(lambda _: None).ping()


def test_an_engine_that_ends_at_once_is_explained_by_its_last_words(machine: Machine) -> None:
    machine.has("dockerd", BROKEN)
    with pytest.raises(LabError, match="no space left on device") as refused:
        engine.connect(lambda _: None)
    assert str(machine.log) in str(refused.value)


def test_an_engine_that_never_answers_is_an_error_in_the_end(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.has("dockerd", "#!/bin/sh\nexec /bin/sleep 30\n")
    monkeypatch.setattr(engine, "START_SECONDS", 0)
    with pytest.raises(LabError, match="nothing answers"):
        engine.connect(lambda _: None)


def test_an_engine_that_is_just_starting_is_waited_for_and_not_started_twice(machine: Machine) -> None:
    machine.has("dockerd", ENGINE.replace("import http", "import time; time.sleep(1)\nimport http"))
    slow = subprocess.Popen([str(machine.programs / "dockerd")])
    machine.pid_file.write_text(str(slow.pid))
    deadline = time.monotonic() + 10
    while Path(f"/proc/{slow.pid}/comm").read_text().strip() != "dockerd" and time.monotonic() < deadline:
        time.sleep(0.01)
    said: list[str] = []
    assert engine.connect(said.append).ping()
    assert said == []
    assert int(machine.pid_file.read_text()) == slow.pid
    slow.kill()
    slow.wait()
    machine.socket.unlink()


def test_a_missing_engine_is_installed_and_announced(machine: Machine) -> None:
    machine.has("apt-get", '#!/bin/sh\necho "$@" >> {pid_file}.asked\n')
    said: list[str] = []
    with pytest.raises(LabError, match="no dockerd"):
        engine.connect(said.append)
    asked = machine.pid_file.with_name("docker.pid.asked").read_text()
    assert "install --yes --no-install-recommends -o DPkg::Lock::Timeout=120 docker.io" in asked
    assert said[0] == "lab: no Docker Engine here, installing Debian's docker.io"


def test_an_install_that_fails_gives_the_reason_of_apt(machine: Machine) -> None:
    machine.has("apt-get", "#!/bin/sh\necho 'E: Unable to locate package docker.io' >&2\nexit 100\n")
    with pytest.raises(LabError, match="Unable to locate package"):
        engine.connect(lambda _: None)


def test_looking_at_a_lab_starts_no_engine(machine: Machine) -> None:
    machine.has("dockerd", ENGINE)
    with pytest.raises(LabError, match="no Docker Engine answers"):
        engine.connect(lambda _: None, start=False)
    assert not machine.pid_file.exists()


def test_without_an_engine_there_is_no_lab_of_containers(machine: Machine) -> None:
    assert manage.status("lab") == []


def test_what_an_engine_that_is_dead_has_is_not_said_to_be_nothing(machine: Machine) -> None:
    machine.has("dockerd", ENGINE)
    with pytest.raises(LabError, match="no Docker Engine answers"):
        manage.status("lab")


def test_without_root_nothing_is_tried(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(LabError, match="needs root"):
        engine.connect(lambda _: None)
