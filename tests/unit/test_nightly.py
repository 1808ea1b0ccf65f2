"""What the gateway verifies every night: what is wrong is named, what can't be tried is not in order."""

from __future__ import annotations

import importlib.util
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from gatehouse.identity import Pki, SecretStore

FILE = Path(__file__).parents[2] / "roles" / "watch" / "verify.py"
NAME = "broker.home.arpa"


@pytest.fixture(scope="module")
def verify() -> ModuleType:
    spec = importlib.util.spec_from_file_location("verify", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pki() -> Pki:
    return Pki(SecretStore(), "home", "home.arpa", ["127.0.0.0/8"]).ensure()


class Broker:
    """Takes TLS sessions on loopback; answers a CONNECT with `answer`, before it has asked for a certificate."""

    def __init__(self, folder: Path, pki: Pki, answer: bytes, wrapped: bool = True, old: bool = False) -> None:
        server = pki.server("mosquitto-gw", [NAME])
        (folder / "ca.pem").write_bytes(pki.trust_anchor)
        (folder / "server.pem").write_bytes(server.chain_pem + (server.private_key_pem or b""))
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(folder / "server.pem")
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2 if old else ssl.TLSVersion.TLSv1_3
        self.answer, self.wrapped = answer, wrapped
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.where = ("127.0.0.1", self.listener.getsockname()[1], NAME, str(folder / "ca.pem"))
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        while True:
            try:
                wire, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.session, args=[wire], daemon=True).start()

    def session(self, wire: socket.socket) -> None:
        wire.settimeout(5)
        try:
            plain = wire.recv(1, socket.MSG_PEEK) == b"\x10"
            connection = wire if plain else self.context.wrap_socket(wire, server_side=True)
            if connection.recv(64)[:1] == b"\x10" and (self.answer and (not plain or not self.wrapped)):
                connection.sendall(self.answer)
            connection.close()
        except OSError:
            wire.close()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"answer": b""}, ""),
        ({"answer": b"\x20\x03\x00\x00\x00"}, "lets in who shows no certificate"),
        ({"answer": b"", "old": True}, "speaks TLS 1.2"),
    ],
)
def test_a_broker_that_does_not_turn_strangers_away_is_named(
    verify: ModuleType, pki: Pki, tmp_path: Path, options: dict[str, Any], says: str
) -> None:
    broker = Broker(tmp_path, pki, **options)
    assert verify.broker_refuses(*broker.where) == says
    assert verify.broker_certificate(*broker.where) == ""
    broker.listener.close()


def test_a_broker_that_speaks_without_encryption_is_named(
    verify: ModuleType, pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = Broker(tmp_path, pki, b"\x20\x03\x00\x00\x00", wrapped=False)
    answers = verify.answers
    monkeypatch.setattr(verify, "answers", lambda c: not isinstance(c, ssl.SSLSocket) and answers(c))
    assert verify.broker_refuses(*broker.where) == "speaks without encryption"
    broker.listener.close()


def test_a_broker_of_another_site_and_one_that_is_away_are_not_in_order(
    verify: ModuleType, pki: Pki, tmp_path: Path
) -> None:
    broker = Broker(tmp_path, pki, b"")
    address, port, name, _ = broker.where
    (tmp_path / "other.pem").write_bytes(Pki(SecretStore(), "other", "other.arpa", []).ensure().trust_anchor)
    found = verify.found(
        {
            "ours": lambda: verify.broker_certificate(*broker.where),
            "foreign": lambda: verify.broker_certificate(address, port, name, str(tmp_path / "other.pem")),
            "misnamed": lambda: verify.broker_certificate(address, port, "other.home.arpa", broker.where[3]),
        }
    )
    assert found["ours"] == ""
    assert "could not be tried" in found["foreign"] and "could not be tried" in found["misnamed"]
    broker.listener.close()
    with socket.create_server(("127.0.0.1", 0)) as other:
        assert verify.is_open("127.0.0.1", other.getsockname()[1]) == ""
        closed = other.getsockname()[1]
    assert "takes no connection" in verify.is_open("127.0.0.1", closed)


def test_a_certificate_in_the_last_fifth_of_its_life_is_named(
    verify: ModuleType, pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = Broker(tmp_path, pki, b"")
    monkeypatch.setattr(time, "time", lambda real=time.time: real() + 300 * 86400)
    assert "less than a fifth of its life" in verify.broker_certificate(*broker.where)
    broker.listener.close()


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("ActiveState=active\nUnitFileState=enabled\n", ""),
        ("ActiveState=failed\nUnitFileState=enabled\n", "failed"),
        ("ActiveState=active\nUnitFileState=disabled\n", "disabled"),
        ("ActiveState=inactive\nUnitFileState=\n", "inactive, not installed"),
    ],
)
def test_a_unit_that_does_not_run_or_start_is_named(
    verify: ModuleType, monkeypatch: pytest.MonkeyPatch, said: str, found: str
) -> None:
    monkeypatch.setattr(verify, "said", lambda *_: said)
    assert verify.unit("some.service") == found


def test_rules_that_differ_from_what_was_loaded_are_named(verify: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "loaded").write_text("rules\n")
    assert verify.firewall("echo rules", str(tmp_path / "loaded")) == ""
    assert "not those that were loaded" in verify.firewall("echo others", str(tmp_path / "loaded"))


def test_little_room_is_named(verify: ModuleType) -> None:
    assert verify.free("/", 0) == ""
    assert "% free, 101 % are needed" in verify.free("/", 101)


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Path]:
    content = {"units": [], "firewall": None, "open": [], "broker": None, "result": str(tmp_path / "result.json"),
               "integrity": None, "free": {"percent": 0, "folders": ["/", "/no-such-folder"]}}  # fmt: skip
    path = tmp_path / "verify.json"
    path.write_text(json.dumps(content))
    yield path


def test_a_result_is_left_whole_for_everybody_to_read_and_what_is_wrong_is_logged(
    verify: ModuleType, settings: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(verify, "failed_units", lambda: "sick.service")
    monkeypatch.setattr(verify, "packages", lambda: "")
    assert verify.main([str(settings)]) == 0
    path = settings.with_name("result.json")
    result = json.loads(path.read_text())
    assert path.stat().st_mode & 0o777 == 0o644
    assert result["checks"]["units failed"] == "sick.service" and result["checks"]["free /"] == ""
    assert "free /no-such-folder" not in result["checks"]
    assert abs(result["when"] - time.time()) < 60
    assert "<4>gatehouse-verify: units failed: sick.service" in capsys.readouterr().out
    assert [each.name for each in settings.parent.iterdir() if each.name.startswith(".")] == []


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"units": []}', '{"units": 1, "firewall": 1}'])
def test_settings_that_are_none_are_refused_and_the_former_result_stays(
    verify: ModuleType, settings: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings.with_name("result.json").write_text("of last night")
    settings.write_text(content)
    assert verify.main(["--check", str(settings)]) == 1
    assert verify.main([str(settings)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 2
    assert settings.with_name("result.json").read_text() == "of last night"


def test_a_wrong_call_is_told_how_to_call(verify: ModuleType, settings: Path) -> None:
    assert verify.main([]) == 2
    assert verify.main([str(settings), "more"]) == 2
    assert verify.main(["--check", str(settings)]) == 0
