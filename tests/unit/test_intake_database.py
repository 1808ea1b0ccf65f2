"""What the database answers to a write, and whether the same may succeed later."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from gatehouse.identity.pki import Pki
from gatehouse.identity.store import SecretStore
from gatehouse.messages.influx import Database, Rejected, Unavailable

SERVER = "influxdb.home.internal"
FULL = b'{"error":"partial write: write /var/lib/influxdb/_series/07/0000: no space left on device dropped=3"}'


class Answering(BaseHTTPRequestHandler):
    """Answers every write as it is told to."""

    status, body = 204, b""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    pki = Pki(SecretStore(), "home", "home.internal").ensure()
    credential = pki.server("influxdb", [SERVER])
    for name, content in (
        ("chain", credential.chain_pem),
        ("key", credential.private_key_pem),
        ("ca", pki.trust_anchor),
    ):
        (tmp_path / name).write_bytes(content or b"")
    (tmp_path / "password").write_text("secret\n")
    server = HTTPServer(("127.0.0.1", 0), Answering)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "chain", tmp_path / "key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"https://{SERVER}:{server.server_port}"
    yield Database(
        "influxdb1",
        url,
        tmp_path / "ca",
        tmp_path / "password",
        address="127.0.0.1",
        database="gatehouse",
        user="intake",
    )
    server.shutdown()
    server.server_close()


def answers(monkeypatch: pytest.MonkeyPatch, status: int, body: bytes) -> None:
    monkeypatch.setattr(Answering, "status", status)
    monkeypatch.setattr(Answering, "body", body)


@pytest.mark.parametrize("body", [FULL, b'{"error":"engine: write wal: read-only file system"}'])
def test_a_full_disk_is_no_fault_of_the_message_whatever_the_status_says(
    database: Database, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    for status in (400, 500):
        answers(monkeypatch, status, body)
        with pytest.raises(Unavailable):
            database.write(["telemetry,device=a x=1 1"])
    answers(monkeypatch, 204, b"")
    database.write(["telemetry,device=a x=1 1"])


@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_the_database_never_takes_is_rejected(
    database: Database, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    answers(monkeypatch, status, b'{"error":"partial write: field type conflict dropped=1"}')
    with pytest.raises(Rejected):
        database.write(["telemetry,device=a x=1 1"])
