"""A broker and a database of a benchmark's own, on loopback, with their files in one folder; and a quick publisher."""

from __future__ import annotations

import http.client
import json
import os
import select
import shutil
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from benchmarks.measure import BenchmarkError, progress
from gatehouse.identity.pki import Pki
from gatehouse.identity.store import SecretStore

DOMAIN = "benchmark.internal"
MQTT, HTTP, RPC = 28883, 28086, 28088
BROKER = f"""per_listener_settings false
allow_anonymous false
max_inflight_messages 20
max_queued_messages 200000
max_queued_bytes 268435456
persistence false
log_type error
listener {MQTT} 127.0.0.1
certfile server.pem
keyfile server.pem
cafile ca.pem
tls_version tlsv1.3
require_certificate true
use_identity_as_username true
use_username_as_clientid true
"""
DATABASE = f"""reporting-disabled = true
bind-address = "127.0.0.1:{RPC}"
[meta]
dir = "meta"
[data]
dir = "data"
wal-dir = "wal"
query-log-enabled = false
[http]
bind-address = "127.0.0.1:{HTTP}"
log-enabled = false
https-enabled = true
https-certificate = "server.pem"
https-private-key = "server.pem"
[logging]
level = "error"
"""


class Scratch:
    """Both servers, on one core, and the identities for them. Use it as a context. Raises `BenchmarkError`."""

    def __init__(self, folder: Path, core: int) -> None:
        self.folder, self._core = folder, core
        self.pki = Pki(SecretStore(), "benchmark", DOMAIN, prefixes=["127.0.0.0/8"]).ensure()
        server = self.pki.server("server", [f"broker.{DOMAIN}", f"influxdb.{DOMAIN}", DOMAIN], ["127.0.0.1"])
        self._write("server.pem", server.chain_pem + server.private_key_pem)
        self._write("ca.pem", self.pki.trust_chain_for_devices())
        self._asking: http.client.HTTPConnection | None = None
        self._running: list[subprocess.Popen[bytes]] = []

    def _write(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        path.chmod(0o600)
        return path

    def client(self, name: str) -> Path:
        """Certificate and key of a client, in one file."""
        made = self.pki.ephemeral_client(name)
        return self._write(f"{name}.pem", made.chain_pem + made.private_key_pem)

    def __enter__(self) -> Scratch:
        self._write("broker.conf", BROKER.encode())
        self._write("influxdb.conf", DATABASE.encode())
        mosquitto = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")
        if mosquitto is None:
            raise BenchmarkError("mosquitto is missing (apt-get install mosquitto)")
        try:
            self._start([mosquitto, "-c", "broker.conf"], MQTT)
            self._start([str(influxd(self.folder)), "-config", "influxdb.conf"], HTTP)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running:
            process.kill()
            process.wait()

    def _start(self, command: list[str], port: int) -> None:
        with (self.folder / f"{port}.log").open("wb") as log:
            # As root the broker would become another user, who can't read the folder.
            environment = {**os.environ, "GOMAXPROCS": "1"}
            if os.geteuid() == 0 and port == MQTT:
                (self.folder / "broker.conf").open("a").write("user root\n")
            process = subprocess.Popen(command, cwd=self.folder, env=environment, stdout=log, stderr=log)
        self._running.append(process)
        os.sched_setaffinity(process.pid, {self._core})
        until = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                if process.poll() is not None or time.monotonic() > until:
                    said = (self.folder / f"{port}.log").read_text(errors="replace").strip()[-300:]
                    raise BenchmarkError(f"{command[0]} does not start: {said}") from None
                time.sleep(0.1)

    def ask(self, query: str) -> Any:
        """What the database answers: the rows of the first series; none where there is none."""
        tls = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))
        if self._asking is None:
            self._asking = http.client.HTTPConnection(DOMAIN, HTTP)
            plain = socket.create_connection(("127.0.0.1", HTTP), 10)
            self._asking.sock = tls.wrap_socket(plain, server_hostname=DOMAIN)
        form = urlencode({"db": "gatehouse", "epoch": "ns", "q": query})
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        self._asking.request("POST", "/query", form, headers)
        answer = json.loads(self._asking.getresponse().read())["results"][0]
        if "error" in answer:
            raise BenchmarkError(f"database: {answer['error']}")
        return answer.get("series", [{"values": []}])[0]["values"]


def influxd(folder: Path) -> Path:
    """InfluxDB's server: the one that is installed, or out of Debian's package, unpacked and not installed."""
    if found := shutil.which("influxd"):
        return Path(found)
    progress("unpacking Debian's influxdb")
    for command in (["apt-get", "download", "-q", "influxdb"], ["sh", "-c", "dpkg -x influxdb_*.deb unpacked"]):
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            raise BenchmarkError(f"influxdb can't be had: {done.stderr.strip()[-200:]} (apt-get install influxdb)")
    return folder / "unpacked/usr/bin/influxd"


class Publisher:
    """Publishes at QoS 1 as fast as the broker acknowledges, MQTT 3.1.1 (OASIS); with `most` on the way."""

    def __init__(self, pem: Path, authority: Path, name: str, most: int = 1000) -> None:
        tls = ssl.create_default_context(cafile=str(authority))
        tls.load_cert_chain(pem)
        plain = socket.create_connection(("127.0.0.1", MQTT), 10)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = tls.wrap_socket(plain, server_hostname=DOMAIN)
        self._connection.settimeout(60)
        client = name.encode()
        body = b"\0\4MQTT\4\2" + struct.pack(">HH", 600, len(client)) + client
        self._connection.sendall(bytes([0x10, len(body)]) + body)
        if self._connection.recv(4)[3:] != b"\0":
            raise BenchmarkError("the broker refuses the publisher")
        self._most = most
        self._number = self._owed = self._rest = 0
        self._unsent = bytearray()

    def send(self, topic: str, payload: bytes) -> None:
        """One message; it is on its way at the latest after `flush`."""
        self._number = self._number % 65_535 + 1
        where = topic.encode()
        body = struct.pack(">H", len(where)) + where + struct.pack(">H", self._number) + payload
        length, encoded = len(body), b""
        while True:
            length, digit = divmod(length, 128)
            encoded += bytes([digit | (0x80 if length else 0)])
            if not length:
                break
        self._owed += 1
        self._unsent += b"\x32" + encoded + body
        if len(self._unsent) > 16_000:
            self.flush()

    def flush(self, most: int | None = None) -> None:
        """Sends what is to be sent, and waits until no more than `most` are unacknowledged."""
        if self._unsent:
            self._connection.sendall(self._unsent)
            self._unsent.clear()
        limit = self._most if most is None else most
        while self._owed > limit or self._connection.pending() or select.select([self._connection], [], [], 0)[0]:
            data = self._connection.recv(65_536)
            if not data:
                raise BenchmarkError("the broker ends the publisher's session")
            count, self._rest = divmod(self._rest + len(data), 4)
            self._owed -= count

    def send_all(self, messages: Iterable[tuple[str, bytes]]) -> None:
        """All of them, until the broker has them."""
        for topic, payload in messages:
            self.send(topic, payload)
        self.flush(0)

    def close(self) -> None:
        """Says goodbye."""
        self._connection.sendall(b"\xe0\0")
        self._connection.close()
