"""Run programs on a lab's hosts."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import socket as sockets
import struct
import subprocess
import sys
import time
from dataclasses import dataclass

import docker
from docker.errors import APIError, NotFound
from docker.models.containers import Container

from lab import engine
from lab.containers import container_name, of_lab
from lab.errors import LabError


@dataclass(frozen=True)
class Completed:
    """What a program said on each stream, and its exit status."""

    stdout: str
    stderr: str
    returncode: int


def find(client: docker.DockerClient, name: str, host: str) -> Container:
    """The running container of a host; LabError names those there are."""
    try:
        container = client.containers.get(container_name(name, host))
    except NotFound:
        known = ", ".join(sorted(of_lab(client, name))) or "none: run 'invoke lab.up'"
        raise LabError(f"lab {name}: has no host {host!r} (there are: {known})") from None
    if container.status != "running":
        raise LabError(f"lab {name}: {host} is {container.status} (run 'invoke lab.up')")
    return container


def run(
    name: str,
    host: str,
    argv: list[str] | tuple[str, ...],
    stdin: str | bytes | None = None,
    timeout: float | None = 60,
) -> Completed:
    """Run a program as root on a host of the lab and wait for it.

    Raises LabError if there is no such host, TimeoutError after `timeout` seconds (the program is killed then).
    A program that fails is no error: look at `returncode` (126 or 127: there is no such program).
    """
    with contextlib.closing(engine.connect(start=False)) as client:
        return _run(client, name, host, argv, stdin, timeout)


def _run(
    client: docker.DockerClient,
    name: str,
    host: str,
    argv: list[str] | tuple[str, ...],
    stdin: str | bytes | None,
    timeout: float | None,
) -> Completed:
    container = find(client, name, host)
    api = client.api
    try:
        execution = api.exec_create(container.id, list(argv), stdin=stdin is not None, stdout=True, stderr=True)["Id"]
        stream = api.exec_start(execution, socket=True)
    except APIError as error:
        raise LabError(f"lab {name}: {host}: {argv[0]}: {error.explanation or error}") from None
    raw: sockets.socket = stream._sock  # type: ignore[union-attr]  # an engine on a Unix socket gives a SocketIO
    # What a quick program said has come together with the head of the answer, and waits in the buffer of that.
    incoming = stream._response.raw._fp.fp  # type: ignore[union-attr]
    said = {1: bytearray(), 2: bytearray()}
    deadline = None if timeout is None else time.monotonic() + timeout
    try:
        raw.settimeout(timeout)
        if stdin is not None:
            raw.sendall(stdin.encode() if isinstance(stdin, str) else stdin)
            raw.shutdown(sockets.SHUT_WR)
        # Docker Engine API, "Attach to a container", stream format: channel, three zero bytes, length, data.
        while header := _receive(incoming, raw, 8, deadline):
            channel, length = struct.unpack(">BxxxL", header)
            said[channel] += _receive(incoming, raw, length, deadline)
    except TimeoutError:
        pid = api.exec_inspect(execution)["Pid"]
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        raise TimeoutError(f"lab {name}: {host}: {' '.join(argv)}: no end after {timeout} s") from None
    finally:
        stream.close()
        raw.close()  # otherwise the connection lasts until Python tidies up
    code = api.exec_inspect(execution)["ExitCode"]
    return Completed(said[1].decode(errors="replace"), said[2].decode(errors="replace"), code)


def _receive(incoming: io.BufferedReader, raw: sockets.socket, length: int, deadline: float | None) -> bytes:
    """Exactly so many bytes, or fewer at the end of the stream. Raises TimeoutError when the deadline is over."""
    data = bytearray()
    while len(data) < length:
        if deadline is not None:
            raw.settimeout(max(0.001, deadline - time.monotonic()))
        part = incoming.read1(min(length - len(data), 65536))
        if not part:
            break
        data += part
    return bytes(data)


def shell(name: str, host: str) -> int:
    """A login shell on a host, on this terminal; returns its exit status."""
    sys.stdout.flush()
    terminal = f"TERM={os.environ.get('TERM', 'dumb')}"
    return subprocess.call(entering(name, host, terminal, "bash", "--login"))


def entering(name: str, host: str, *command: str) -> list[str]:
    """The command line that runs `command` (settings of its environment first) on a host, by its console."""
    container = find(engine.connect(start=False), name, host)
    pid = str(container.attrs["State"]["Pid"])
    inside = ["HOME=/root", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"]
    spaces = ["--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd=/root"]
    return ["nsenter", "--target", pid, *spaces, "--", "env", "-i", *inside, *command]
