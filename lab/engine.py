"""Make sure that a Docker Engine answers on this machine: installed when missing, started when dead."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import docker
from docker.errors import DockerException

from lab.errors import LabError
from lab.state import Log
from roles.apt import LOCK

SOCKET = Path("/var/run/docker.sock")
PID_FILE = Path("/var/run/docker.pid")
LOG_FILE = Path("/var/log/gatehouse-dockerd.log")
SYSTEMD = Path("/run/systemd/system")
START_SECONDS = 45


def connect(log: Log = print, start: bool = True) -> docker.DockerClient:
    """A client of the local engine. With `start`, the engine is installed and started if it must be.

    Raises LabError if this process isn't root, or no engine can be had.
    """
    if os.geteuid() != 0:
        raise LabError("lab: needs root, because it makes network interfaces (run it as root or with sudo)")
    client = _answering()
    if client is None and start:
        if shutil.which("dockerd") is None:
            log("lab: no Docker Engine here, installing Debian's docker.io")
            install("docker.io")
            if shutil.which("dockerd") is None:
                raise LabError("lab: docker.io is installed, and yet there is no dockerd (see dpkg -L docker.io)")
        client = _answering() or _start(log)
    if client is None:
        raise LabError(f"lab: no Docker Engine answers on {SOCKET} (run 'invoke lab.up', which starts it)")
    return client


def installed() -> bool:
    """Whether this machine has a Docker Engine, dead or alive."""
    return shutil.which("dockerd") is not None or SOCKET.exists()


def install(*packages: str) -> None:
    """Install Debian packages on the operator's machine; the caller has announced it. Raises LabError."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install_command = ["apt-get", "install", "--yes", "--no-install-recommends", "-o", LOCK, *packages]
    output = ""
    for command in (install_command, ["apt-get", "update"], install_command):
        try:
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
        except FileNotFoundError:
            raise LabError(
                f"lab: {' '.join(packages)} is missing and there is no apt-get (install it by hand)"
            ) from None
        if done.returncode == 0 and command is install_command:
            return
        output = done.stderr or done.stdout
    raise LabError(f"lab: apt-get install {' '.join(packages)} failed: {last_line(output)} (install it by hand)")


def last_line(text: str) -> str:
    """The last line that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def _answering() -> docker.DockerClient | None:
    if not SOCKET.exists():
        return None
    try:
        client = docker.DockerClient(base_url=f"unix://{SOCKET}", timeout=15)
        client.ping()
        # Long steps (a build, an import, a commit) have one answer at their end.
        client.api.timeout = 600
        return client
    except (DockerException, OSError):
        return None


def _start(log: Log) -> docker.DockerClient:
    daemon = _running_daemon()
    if daemon is not None:
        process = None  # It may just be starting: wait for it, never kill what others started.
    elif SYSTEMD.is_dir():
        log("lab: starting the Docker Engine")
        done = subprocess.run(["systemctl", "start", "docker"], capture_output=True, text=True)
        if done.returncode:
            raise LabError(f"lab: systemctl start docker: {last_line(done.stderr)} (see journalctl -u docker)")
        process = None
    else:
        log(f"lab: starting dockerd (its log: {LOG_FILE})")
        # dockerd refuses to start while the file names a living process, and after a kill that may be any process.
        PID_FILE.unlink(missing_ok=True)
        with LOG_FILE.open("ab") as output:
            process = subprocess.Popen(
                ["dockerd"], stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        client = _answering()
        if client is not None:
            return client
        if process is not None and process.poll() is not None:
            lines = LOG_FILE.read_text(errors="replace")
            raise LabError(f"lab: dockerd ended at once: {last_line(lines)} (see {LOG_FILE})")
        time.sleep(0.2)
    who = f"dockerd (process {daemon}) runs" if daemon else "dockerd was started"
    raise LabError(f"lab: {who} but nothing answers on {SOCKET} after {START_SECONDS} s (end it, or see {LOG_FILE})")


def _running_daemon() -> int | None:
    """The process id of a living dockerd, from its file, or None if the file is stale or missing."""
    try:
        number = int(PID_FILE.read_text())
        return number if Path(f"/proc/{number}/comm").read_text().strip() == "dockerd" else None
    except (OSError, ValueError):
        return None
