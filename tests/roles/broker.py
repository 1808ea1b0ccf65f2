"""A real broker on loopback with the role's own files, and clients that talk to it."""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from paho.mqtt.client import Client as Paho
from paho.mqtt.client import MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from gatehouse.identity.pki import Credential
from roles.mosquitto import files as rendered
from roles.target import Target

SECONDS = 5.0
NOT_AUTHORISED = 135


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def folder() -> Path:
    """A new folder that the user `mosquitto` may enter."""
    path = Path(tempfile.mkdtemp(prefix="gatehouse-test-"))
    path.chmod(0o755)
    return path


@contextlib.contextmanager
def running(target: Target, openssl: str = "") -> Iterator[Broker]:
    """A broker that runs on what the role would put on this gateway; only folders and log are moved. `openssl`: another
    file of OpenSSL's settings than the role's."""
    place = folder()
    moves = {rendered.CREDENTIALS: place, "/var/lib/mosquitto": place / "data", "log_dest syslog": "log_dest stderr"}
    (place / "data").mkdir()
    shutil.chown(place / "data", "mosquitto")
    for file in (*rendered.configuration(target), *rendered.credentials(target)):
        text = file.content.decode()
        for old, new in moves.items():
            text = text.replace(old, str(new))
        path = place / Path(file.path).name
        path.write_text(text)
        shutil.chown(path, "root", "mosquitto")
        path.chmod(file.mode)
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(
            ["/usr/sbin/mosquitto", "-c", str(place / "gatehouse.conf")],
            user="mosquitto", group="mosquitto", extra_groups=[], stdout=log, stderr=log,
            env={**os.environ, "OPENSSL_CONF": openssl or str(place / Path(rendered.OPENSSL).name)},
        )  # fmt: skip
    try:
        port = target.site.listener("mosquitto", "mqtts").port
        broker = Broker(target, place, port, process)
        broker.wait()
        yield broker
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(place)


class Broker:
    """The running broker: `place` holds its files and its `log`."""

    def __init__(self, target: Target, place: Path, port: int, process: subprocess.Popen[bytes]) -> None:
        self.target, self.place, self.port, self.process = target, place, port, process

    def wait(self) -> None:
        until = time.monotonic() + SECONDS
        while "running" not in (self.place / "log").read_text():
            assert self.process.poll() is None and time.monotonic() < until, (self.place / "log").read_text()
            time.sleep(0.02)

    def context(self, credential: Credential | None = None) -> ssl.SSLContext:
        """Trusts the site's root, as a device does, and shows the credential."""
        context = ssl.create_default_context(cadata=self.target.pki.trust_anchor.decode())
        if credential is not None:
            handle, name = tempfile.mkstemp()
            with os.fdopen(handle, "wb") as file:
                file.write(credential.chain_pem + credential.private_key_pem)
            context.load_cert_chain(name)
            Path(name).unlink()
        return context

    def lets_in(
        self, credential: Credential | None, context: ssl.SSLContext | None = None, at: str = "127.0.0.1"
    ) -> bool:
        """Whether the broker accepts a CONNECT from a client with this certificate."""
        context = context or self.context(credential)
        try:
            with (
                socket.create_connection((at, self.port), SECONDS) as plain,
                context.wrap_socket(plain, server_hostname=at) as connection,
            ):
                connection.sendall(bytes([0x10, 13, 0, 4, *b"MQTT", 5, 2, 0, 30, 0, 0, 0]))
                answer = connection.recv(4)
        except (ssl.SSLError, ConnectionError):
            return False
        return answer[:1] == b"\x20" and answer[3:4] == b"\0"

    @contextlib.contextmanager
    def client(self, credential: Credential, identifier: str = "", at: str = "127.0.0.1") -> Iterator[Client]:
        """A connected MQTT 5 client."""
        client = Client(self, credential, identifier or credential.name)
        client.connect(at)
        try:
            yield client
        finally:
            client.paho.disconnect()
            client.paho.loop_stop()


class Client:
    """An MQTT 5 client whose calls wait for the broker's answer."""

    def __init__(self, broker: Broker, credential: Credential, identifier: str) -> None:
        self.broker = broker
        self.answers: queue.Queue[tuple[str, Any]] = queue.Queue()
        self.messages: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self.ended: queue.Queue[int] = queue.Queue()
        self.paho = Paho(CallbackAPIVersion.VERSION2, identifier, protocol=MQTTv5, reconnect_on_failure=False)
        self.paho.tls_set_context(broker.context(credential))
        self.paho.on_connect = lambda _c, _u, _f, reason, _p: self.answers.put(("connect", reason.value))
        self.paho.on_publish = lambda _c, _u, _m, reason, _p: self.answers.put(("publish", reason.value))
        self.paho.on_subscribe = lambda _c, _u, _m, reasons, _p: self.answers.put(("subscribe", reasons[0].value))
        self.paho.on_disconnect = lambda _c, _u, _f, reason, _p: self.ended.put(reason.value)
        self.paho.on_message = lambda _c, _u, message: self.messages.put((message.topic, message.payload))

    def connect(self, at: str) -> None:
        session = Properties(PacketTypes.CONNECT)
        session.SessionExpiryInterval = 0
        self.paho.connect(at, self.broker.port, keepalive=60, properties=session)
        self.paho.loop_start()
        assert self._answer("connect") == 0

    def publish(self, topic: str, payload: bytes = b"x") -> int:
        """The broker's reason code: 0 and 16 (nobody listens) are good, 135 is `not authorised` (MQTT 5 §3.4.2.1)."""
        self.paho.publish(topic, payload, qos=1)
        return self._answer("publish")

    def subscribe(self, topic: str) -> None:
        self.paho.subscribe(topic, qos=1)
        assert self._answer("subscribe") == 1

    def next_message(self) -> tuple[str, bytes]:
        return self.messages.get(timeout=SECONDS)

    def _answer(self, kind: str) -> int:
        name, value = self.answers.get(timeout=SECONDS)
        assert name == kind
        return int(value)
