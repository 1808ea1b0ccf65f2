"""The alerts' own files and the real broker: what is wrong arrives at who may listen; nothing else is open to it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gatehouse.collector import readings
from roles.alerts import files
from roles.target import Target
from tests.roles.broker import NOT_AUTHORISED, Broker, free_port, running

WRONG = "unit,name=ssh.service failed=1i,restarts=0i"


@pytest.fixture(scope="module")
def target(programs: Callable[..., None], gateway_of: Callable[..., Target]) -> Target:
    programs("mosquitto", "mosquitto")
    ports = {"mosquitto": {"ports": {"mqtts": free_port()}}}
    return gateway_of(iot={"ipv4": "127.0.0.1/8"}, settings=ports, alerts={"mqtt": True})


@pytest.fixture(scope="module")
def broker(target: Target) -> Iterator[Broker]:
    with running(target) as started:
        yield started


@pytest.fixture
def run(target: Target, tmp_path: Path) -> Callable[[], subprocess.CompletedProcess[str]]:
    """Runs the program as the gateway does, with all of its files below a folder."""
    for file in (*files.program(), *files.configuration(target)):
        path = tmp_path / file.path.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        text = file.content.decode().replace('"/etc/', f'"{tmp_path}/etc/').replace('"/usr/', f'"{tmp_path}/usr/')
        path.write_text(text.replace('"/var/lib/gatehouse-alerts"', f'"{tmp_path}"').replace('"/run/', f'"{tmp_path}/'))
    (tmp_path / "gatehouse-collector").mkdir()
    command = [sys.executable, "-I", str(tmp_path / files.PROGRAM.lstrip("/")), str(tmp_path / files.SETTINGS[1:])]
    return lambda: subprocess.run(command, capture_output=True, text=True, timeout=60)


def read(tmp_path: Path, *points: str) -> None:
    document = {"when": time.time(), "points": points, "broker": {}}
    (tmp_path / "gatehouse-collector" / "reading.json").write_text(json.dumps(document))


def test_an_alert_arrives_at_who_may_listen_and_the_program_may_nothing_else(
    broker: Broker, target: Target, run: Callable[[], subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    listener = target.pki.ephemeral_client("gatehouse-probe-alerts")
    with broker.client(listener) as hears, broker.client(target.pki.device("kitchen-01")) as device:
        hears.subscribe("gateway/gw/alerts")
        device.subscribe("gateway/gw/alerts")
        read(tmp_path, WRONG)
        (tmp_path / "test").write_text("hello\n")
        done = run()
        assert (done.returncode, done.stderr) == (0, "")
        first, second = (json.loads(hears.next_message()[1]) for _ in range(2))
        assert (first["alert"], first["about"], first["state"]) == ("unit", "ssh.service", "raised")
        assert (second["state"], second["text"]) == ("test", "hello")
        assert hears.publish("gateway/gw/alerts") == NOT_AUTHORISED
        assert device.publish("gateway/gw/alerts") == NOT_AUTHORISED
        assert device.messages.empty(), "what is wrong is no device's business"
    with broker.client(target.pki.client("gatehouse-alerts")) as program:
        assert program.publish("gateway/gw/alerts") == 16
        for topic in ("gateway/gw2/alerts", "gateway/gw/alerts/more", "devices/kitchen-01/commands/x"):
            assert program.publish(topic) == NOT_AUTHORISED, topic


def test_what_a_broker_does_not_take_waits_and_is_seen(
    broker: Broker, target: Target, run: Callable[[], subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    read(tmp_path, WRONG)
    settings = tmp_path / files.SETTINGS[1:]
    right = settings.read_text()
    settings.write_text(right.replace("gateway/gw/alerts", "gateway/other/alerts"))
    done = run()
    assert done.returncode == 1 and "mqtt: 1 wait: " in done.stderr and "not authorised" in done.stderr
    assert "Traceback" not in done.stderr
    settings.write_text(right)
    with broker.client(target.pki.ephemeral_client("gatehouse-probe-alerts")) as hears:
        hears.subscribe("gateway/gw/alerts")
        assert run().returncode == 0
        assert json.loads(hears.next_message()[1])["number"] == 1


def test_the_broker_says_who_connects_from_where_and_whose_session_is_taken_over(
    broker: Broker, target: Target
) -> None:
    """As it is read from the journal: two clients with one certificate, from two addresses."""
    log = broker.place / "log"
    before = log.stat().st_size
    device = target.pki.device("twice-01")
    context = broker.context(device)
    ends = []
    for source in ("127.0.0.1", "127.0.0.77", "127.0.0.1"):
        plain = socket.create_connection(("127.0.0.1", broker.port), 5, (source, 0))
        session = context.wrap_socket(plain, server_hostname="127.0.0.1")
        ends.append(session)
        session.sendall(bytes([0x10, 13, 0, 4, *b"MQTT", 5, 2, 0, 30, 0, 0, 0]))
        assert session.recv(4)[3:4] == b"\0"
    for session in ends:
        session.close()
    said = log.read_text()[before:].splitlines()
    assert sorted(readings.sessions(said)) == [
        "connects,client=twice-01,address=127.0.0.1 count=2i",
        "connects,client=twice-01,address=127.0.0.77 count=1i",
        "takeovers,client=twice-01 count=2i",
    ]
    assert readings.broker(said) == ["broker,reason=handshake refused=0i", "broker,reason=login refused=0i"]
