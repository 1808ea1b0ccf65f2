"""The intake's two ends and its files: the database's HTTP, MQTT as it comes over the wire, keys and settings."""

from __future__ import annotations

import base64
import contextlib
import ssl
import struct
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography.x509 import load_pem_x509_certificate
from hypothesis import given
from hypothesis import strategies as st

from gatehouse.identity.pki import Pki, PkiError
from gatehouse.identity.store import SecretStore
from gatehouse.messages import MessageError, keyfile, settings
from gatehouse.messages.__main__ import main
from gatehouse.messages.influx import Database, Rejected, Unavailable
from gatehouse.messages.mqtt import Disconnected, Subscriber

TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
LINES = ["telemetry,device=a,kind=b seq=1i 1", "telemetry,device=a,kind=b seq=2i 2"]


class StandIn(ThreadingHTTPServer):
    """Stands for InfluxDB: answers as its API's documentation says (`/write`, `/api/v2/write`), and stores nothing."""

    daemon_threads = True
    block_on_close = False

    status, said = 204, b""
    hangs_up = False
    asked: list[tuple[str, dict[str, str], bytes]]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: StandIn

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, dict(self.headers), body))
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.said)))
        self.end_headers()
        self.wfile.write(self.server.said)
        # Without a word about it: a connection that was idle too long ends so.
        self.close_connection = self.server.hangs_up

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def pki() -> Pki:
    return Pki(SecretStore(), "test", "test.internal", prefixes=["127.0.0.0/8"]).ensure()


@pytest.fixture
def server(pki: Pki, tmp_path: Path) -> Iterator[StandIn]:
    made = pki.server("influxdb", ["influxdb.test.internal"])
    (tmp_path / "server.pem").write_bytes(made.chain_pem + made.private_key_pem)
    (tmp_path / "ca.pem").write_bytes(pki.trust_anchor)
    (tmp_path / "credential").write_text("secret\n")
    found = StandIn(("127.0.0.1", 0), _Handler)
    found.asked = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    found.socket = context.wrap_socket(found.socket, server_side=True)
    thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield found
    found.shutdown()
    found.server_close()


def one(server: StandIn, folder: Path, name: str = "influxdb") -> Database:
    url = f"https://{name}.test.internal:{server.server_port}"
    where = {"address": "127.0.0.1", "database": "gatehouse", "user": "intake"}
    return Database("influxdb1", url, folder / "ca.pem", folder / "credential", **where)


def test_the_first_engine_gets_lines_with_a_user_and_a_password(server: StandIn, tmp_path: Path) -> None:
    one(server, tmp_path).write(LINES)
    path, headers, body = server.asked[0]
    assert (urlsplit(path).path, parse_qs(urlsplit(path).query)) == (
        "/write",
        {"db": ["gatehouse"], "precision": ["ns"]},
    )
    assert base64.b64decode(headers["Authorization"].removeprefix("Basic ")) == b"intake:secret"
    assert body.decode().splitlines() == LINES


def test_the_second_engine_gets_the_same_lines_with_a_token(server: StandIn, tmp_path: Path) -> None:
    url = f"https://influxdb.test.internal:{server.server_port}"
    where = {"address": "127.0.0.1", "org": "a b", "bucket": "gatehouse"}
    Database("influxdb2", url, tmp_path / "ca.pem", tmp_path / "credential", **where).write(LINES)
    path, headers, body = server.asked[0]
    assert urlsplit(path).path == "/api/v2/write"
    assert parse_qs(urlsplit(path).query) == {"org": ["a b"], "bucket": ["gatehouse"], "precision": ["ns"]}
    assert headers["Authorization"] == "Token secret"
    assert body.decode().splitlines() == LINES


@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_the_database_will_never_take_is_rejected(server: StandIn, tmp_path: Path, status: int) -> None:
    server.status, server.said = status, b'{"error": "partial write: field type conflict\\u001b[2J"}'
    with pytest.raises(Rejected) as refused:
        one(server, tmp_path).write(LINES)
    assert "field type conflict" in str(refused.value) and str(refused.value).isprintable()


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
def test_what_may_succeed_later_is_tried_again_later_with_the_credential_of_then(
    server: StandIn, tmp_path: Path, status: int
) -> None:
    database = one(server, tmp_path)
    server.status = status
    with pytest.raises(Unavailable, match=str(status)):
        database.write(LINES)
    (tmp_path / "credential").write_text("newer")
    server.status = 204
    database.write(LINES)
    assert base64.b64decode(server.asked[-1][1]["Authorization"].removeprefix("Basic ")) == b"intake:newer"


def test_a_connection_that_ended_while_it_was_idle_is_made_again_at_once(server: StandIn, tmp_path: Path) -> None:
    server.hangs_up = True
    database = one(server, tmp_path)
    database.write(LINES)
    database.write(LINES)
    assert len(server.asked) == 2


def test_a_database_with_another_certificate_gets_nothing(server: StandIn, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="mismatch"):
        one(server, tmp_path, name="other").write(LINES)
    (tmp_path / "ca.pem").write_bytes(Pki(SecretStore(), "x", "test.internal").ensure().trust_anchor)
    with pytest.raises(Unavailable, match="verify failed"):
        one(server, tmp_path).write(LINES)
    assert not server.asked


def test_a_database_that_is_not_there_is_unavailable(server: StandIn, tmp_path: Path) -> None:
    nobody = Database(
        "influxdb1", "https://x.test.internal:1", tmp_path / "ca.pem", tmp_path / "c", address="127.0.0.1"
    )
    with pytest.raises(Unavailable):
        nobody.write(LINES)
    (tmp_path / "credential").unlink()
    with pytest.raises(Unavailable, match="credential: can't be read"):
        one(server, tmp_path).write(LINES)


@pytest.mark.parametrize("url", ["http://x:1", "x", "https://", "https://x/y", "ftp://x"])
def test_only_an_address_with_https_is_one(server: StandIn, tmp_path: Path, url: str) -> None:
    with pytest.raises(MessageError, match="use https://NAME:PORT"):
        Database("influxdb1", url, tmp_path / "ca.pem", tmp_path / "credential")


# MQTT


def subscriber(data: bytes) -> Subscriber:
    made = Subscriber(("127.0.0.1", 1), TLS, "x", "x", 10, 1000)
    made._buffer += data
    return made


def publish(topic: bytes, payload: bytes, number: int, properties: bytes = b"") -> bytes:
    body = struct.pack(">H", len(topic)) + topic + struct.pack(">H", number) + bytes([len(properties)]) + properties
    body += payload
    length = len(body)
    head = bytes([length]) if length < 128 else bytes([length % 128 | 128, length // 128])
    return b"\x3a" + head + body


def delivered(data: bytes) -> list[tuple[bytes, bytes, int, bool]]:
    from gatehouse.messages import mqtt

    return [tuple(mqtt._delivery(kind, body)) for kind, body in subscriber(data)._packets()]


def test_messages_are_read_as_they_come_in_whatever_pieces() -> None:
    data = publish(b"a/b", b"x" * 300, 7) + publish(b"c", b"", 8, b"\x01\x01")
    assert delivered(data) == [(b"a/b", b"x" * 300, 7, True), (b"c", b"", 8, True)]
    for cut in range(len(data)):
        made = subscriber(data[:cut])
        first = list(made._packets())
        made._buffer += data[cut:]
        assert len(first) + len(list(made._packets())) == 2


@pytest.mark.parametrize("data", [b"\x32\xff\xff\xff\xff\x01", b"\x32\xe9\x07", b"\x32\x03\x00\x09a", b"\x32\x00"])
def test_what_is_no_mqtt_ends_the_session(data: bytes) -> None:
    with pytest.raises(Disconnected):
        delivered(data)


@given(st.binary(max_size=200))
def test_no_bytes_of_a_broker_crash_the_reader(data: bytes) -> None:
    with contextlib.suppress(Disconnected):
        delivered(data)


# files


def test_keys_are_read_as_they_were_written(tmp_path: Path) -> None:
    (tmp_path / "keys").write_bytes(keyfile.render([("b", 2, bytes(32)), ("a", 1, bytes(range(32)))], "Managed"))
    assert keyfile.read(tmp_path / "keys") == {"a": {1: bytes(range(32))}, "b": {2: bytes(32)}}


@pytest.mark.parametrize("line", ["a", "a 1", "a one " + "00" * 32, "a 1 00", "a 1 zz", "a 1 " + "00" * 32 + " more"])
def test_a_file_with_a_broken_key_is_refused_without_showing_it(tmp_path: Path, line: str) -> None:
    (tmp_path / "keys").write_text(f"# Managed\n{line}\n")
    with pytest.raises(MessageError, match="line 2 is not NAME NUMBER HEX") as refused:
        keyfile.read(tmp_path / "keys")
    assert "00" not in str(refused.value).replace(str(tmp_path), "")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "broker is missing"),
        ("nonsense", "Expected"),
        ("more = 1", "more is not known"),
        ("broker = 1", "it is not known"),
        ("[broker]\nport = 'x'", "port is no int"),
        ("[messages]\njson_form = 1", "json_form is no bool"),
    ],
)
def test_settings_that_are_wrong_are_refused_in_one_line(tmp_path: Path, capsys, text: str, why: str) -> None:
    (tmp_path / "intake.toml").write_text(text)
    with pytest.raises(MessageError, match=why):
        settings.read(tmp_path / "intake.toml")
    assert main([str(tmp_path / "intake.toml")]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


# the intake's own identity


def test_the_kits_own_client_keeps_its_certificate_until_it_is_due(pki: Pki) -> None:
    first = pki.client("gatehouse-intake")
    assert pki.client("gatehouse-intake").serial == first.serial
    assert pki.is_of_a_device(load_pem_x509_certificate(first.certificate_pem))
    with pytest.raises(PkiError, match="gatehouse-"):
        pki.client("kitchen-01")
