"""What a program on a lab's host says arrives whole, however it comes from the engine."""

from __future__ import annotations

import json
import socketserver
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import docker
import pytest

from lab import hosts


class _Engine(socketserver.StreamRequestHandler):
    """As much of Docker's engine as one `exec` needs; a program's words come in one piece with the answer's head."""

    said = struct.pack(">BxxxL", 1, 6) + b"output" + struct.pack(">BxxxL", 2, 3) + b"err"

    def handle(self) -> None:
        while line := self.rfile.readline():
            path, length = line.split()[1], 0
            while (field := self.rfile.readline()) not in (b"\r\n", b""):
                name, _, value = field.partition(b":")
                length = int(value) if name.lower() == b"content-length" else length
            self.rfile.read(length)
            if path.endswith(b"/start"):
                head = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
                self.wfile.write(head + self.said)
                return
            body = json.dumps({"Id": "1", "Pid": 0, "ExitCode": 7}).encode()
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = socketserver.ThreadingUnixStreamServer(str(tmp_path / "engine"), _Engine)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
    client = docker.DockerClient(f"unix://{tmp_path}/engine", version="1.41")
    monkeypatch.setattr(hosts.engine, "connect", lambda *_, **__: client)
    monkeypatch.setattr(hosts, "find", lambda *_: SimpleNamespace(id="1"))
    yield
    client.close()
    server.shutdown()
    server.server_close()


def test_what_a_program_says_at_once_is_not_lost(engine: None) -> None:
    assert hosts.run("lab", "gateway", ["true"], timeout=20) == hosts.Completed("output", "err", 7)
