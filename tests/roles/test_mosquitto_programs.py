"""Programs that say their names with passwords, at the real broker: who gets in, and what they may do there."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator

import pytest

from gatehouse.identity import SecretStore, programs
from roles.mosquitto import files as rendered
from roles.target import Target
from tests.roles.broker import NOT_AUTHORISED, Broker, free_port, running

LOOPBACK = {"ipv4": "127.0.0.1/8"}
DEVICE = "devices/kitchen-01/telemetry/t"


@pytest.fixture(scope="module")
def target(programs_installed: None, gateway_of: Callable[..., Target]) -> Target:
    settings = {
        "mosquitto": {
            "ports": {"mqtts": free_port(), "passwords": free_port()},
            "reachable_from": {"passwords": ["iot"]},
        }
    }
    given = {
        "homeassistant": {"reads": ["devices/+/telemetry/#"], "writes": ["devices/kitchen-01/commands/#"]},
        "nodered": {},
    }
    return gateway_of(iot=LOOPBACK, settings=settings, programs=given)


@pytest.fixture(scope="module")
def programs_installed(programs: Callable[..., None]) -> None:
    programs("mosquitto", "mosquitto")


@pytest.fixture(scope="module")
def broker(target: Target) -> Iterator[Broker]:
    with running(target) as started:
        yield started


def text(value: str) -> bytes:
    return len(value).to_bytes(2, "big") + value.encode()


class Program:
    """A program in one connection: MQTT 5, QoS 1, one question at a time."""

    def __init__(self, broker: Broker, name: str | None, password: str | None, identifier: str = "") -> None:
        port = broker.target.site.listener("mosquitto", "passwords").port
        wire = socket.create_connection(("127.0.0.1", port), 5)
        self.connection = broker.context().wrap_socket(wire, server_hostname="127.0.0.1")
        flags = 0x02 | (0x80 if name is not None else 0) | (0x40 if password is not None else 0)
        body = text("MQTT") + bytes([5, flags, 0, 30, 0]) + text(identifier)
        body += b"".join(text(given) for given in (name, password) if given is not None)
        self.code = self._ask(0x10, body)[1]

    def publish(self, topic: str, payload: bytes = b"x") -> int:
        answer = self._ask(0x32, text(topic) + b"\0\1\0" + payload)
        return answer[2] if len(answer) > 2 else 0

    def receives(self, topic: str, publish: Callable[[], object]) -> bool:
        self._ask(0x82, b"\0\2\0" + text(topic) + b"\1")
        publish()
        self.connection.settimeout(1)
        try:
            return bool(self._packet()[1])
        except TimeoutError:
            return False

    def ended(self) -> bool:
        self.connection.settimeout(5)
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while data := self.connection.recv(64):
                assert data[:1] == b"\xe0", data
        return True

    def _ask(self, kind: int, body: bytes) -> bytes:
        self.connection.sendall(bytes([kind, len(body)]) + body)
        return self._packet()[1]

    def _packet(self) -> tuple[int, bytes]:
        head = b""
        while len(head) < 2:
            head += self.connection.recv(2 - len(head)) or b"\0\0"
        return head[0], self.connection.recv(head[1]) if head[1] else b""


@pytest.fixture
def secret(target: Target) -> str:
    return programs.password_of(target.pki.vault, "homeassistant")


@pytest.fixture
def home(broker: Broker, secret: str) -> Program:
    return Program(broker, "program.homeassistant", secret)


def test_a_program_gets_in_with_its_password(home: Program) -> None:
    assert home.code == 0


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("program.homeassistant", "wrong"),
        ("program.homeassistant", ""),
        ("program.homeassistant", None),
        (None, None),
        ("kitchen-01", "wrong"),
        ("admin", "admin"),
    ],
)
def test_without_its_password_nobody_gets_in(broker: Broker, name: str | None, password: str | None) -> None:
    assert Program(broker, name, password).code >= 128


def test_a_password_is_good_for_its_own_name_only(broker: Broker, secret: str) -> None:
    assert Program(broker, "program.nodered", secret).code >= 128
    assert Program(broker, "kitchen-01", secret).code >= 128


def test_a_password_is_nothing_where_certificates_are_asked_for(broker: Broker) -> None:
    assert not broker.lets_in(None)
    assert broker.lets_in(broker.target.pki.device("kitchen-01"))


def test_a_program_reads_and_writes_what_the_site_says_and_nothing_else(broker: Broker, home: Program) -> None:
    with broker.client(broker.target.pki.device("kitchen-01")) as device:
        assert home.publish("devices/kitchen-01/commands/on") in (0, 16)
        for topic in (DEVICE, "devices/other-01/commands/on", "$SYS/x", "devices/program.homeassistant/telemetry/t"):
            assert home.publish(topic) == NOT_AUTHORISED, topic
        assert home.receives("devices/+/telemetry/#", lambda: device.publish(DEVICE))


def test_a_program_with_no_rights_has_none(broker: Broker, target: Target) -> None:
    nodered = Program(broker, "program.nodered", programs.password_of(target.pki.vault, "nodered"))
    assert nodered.code == 0
    assert nodered.publish("devices/program.nodered/status") == NOT_AUTHORISED
    with broker.client(broker.target.pki.device("kitchen-01")) as device:
        assert not nodered.receives("#", lambda: device.publish(DEVICE))


def test_a_program_cannot_take_over_a_devices_session(broker: Broker, secret: str) -> None:
    with broker.client(broker.target.pki.device("kitchen-01")) as device:
        assert Program(broker, "program.homeassistant", secret, identifier="kitchen-01").code == 0
        assert device.publish(DEVICE) in (0, 16)


def test_a_new_password_ends_the_session_of_the_former_one_and_no_other(
    broker: Broker, target: Target, home: Program
) -> None:
    former = programs.password_of(target.pki.vault, "homeassistant")
    target.pki.vault.set(programs.secret_name("homeassistant"), "another-password")
    programs.forget_salt(target.pki.vault, "homeassistant")
    fresh = programs.password_of(target.pki.vault, "homeassistant")
    assert fresh != former
    with broker.client(broker.target.pki.device("kitchen-01")) as device:
        lines = programs.password_file(target.pki.vault, target.site.programs)
        (broker.place / "passwords").write_bytes(lines)
        os.kill(broker.process.pid, signal.SIGHUP)
        assert home.ended()
        assert Program(broker, "program.homeassistant", former).code >= 128
        assert Program(broker, "program.homeassistant", fresh).code == 0
        assert device.publish(DEVICE) in (0, 16)


def test_the_hashes_are_as_the_brokers_own_tool_writes_them(target: Target, tmp_path: object) -> None:
    mine = programs.password_file(target.pki.vault, ["nodered"]).decode().splitlines()[0]
    file = f"{tmp_path}/passwords"
    theirs = ""
    # With -b the password is an argument: this one is nobody's.
    subprocess.run(["mosquitto_passwd", "-c", "-b", file, "program.nodered", "nobodys"], check=True)
    with open(file) as written:
        theirs = written.read().strip()
    assert [len(part) for part in mine.split("$")] == [len(part) for part in theirs.split("$")]
    assert mine.split("$")[:3] == theirs.split("$")[:3]


def test_a_second_look_gives_the_same_file_and_no_password_is_in_it(target: Target) -> None:
    vault = SecretStore()
    first = programs.password_file(vault, ["homeassistant"])
    assert first == programs.password_file(vault, ["homeassistant"])
    assert programs.password_of(vault, "homeassistant").encode() not in first
    assert programs.password_file(vault, []) == b""


def test_without_programs_there_is_no_such_listener(gateway_of: Callable[..., Target]) -> None:
    target = gateway_of(iot=LOOPBACK)
    assert rendered.passwords(target) == []
    assert "8885/tcp" in {f"{port.port}/{port.transport}" for port in target.site.service("mosquitto").closed}
    (configuration,) = (f for f in rendered.configuration(target) if f.path == rendered.CONFIGURATION)
    assert b"8885" not in configuration.content
    assert b"password_file" not in configuration.content
