"""What a device meets: an update server over mutual TLS that can misbehave, and a desk that signs for it."""

from __future__ import annotations

import random
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gatehouse.identity.pki import Credential
from gatehouse.identity.store import SecretStore
from gatehouse.updates.keys import FirmwareKeys, trusted_keys
from gatehouse.updates.signing import Wish, sign
from tests.roles.broker import Broker

HOST = "updates.test.internal"
NO_POWER = 99
CRASHED = 70
DEVICE = Path(__file__).parents[2] / "device"
Answer = Callable[[ssl.SSLSocket, str, dict[str, str]], None]


@dataclass(frozen=True)
class Binaries:
    """Where the built programs are."""

    place: Path

    def vectors(self, lines: list[str], *around: str) -> list[str]:
        """What the C library answers to the lines of `device/host/vectors.c`."""
        done = subprocess.run(
            [*around, str(self.place / "gatehouse-vectors")], input="\n".join(lines) + "\n",
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()


def built(place: Path, *options: str) -> Binaries:
    """The library's programs, compiled into a folder."""
    made = subprocess.run(["make", "-j2", f"BUILD={place}", *options], cwd=DEVICE, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return Binaries(place)


@dataclass(frozen=True)
class Start:
    """One start of a device: its exit status, and what it said, by name."""

    status: int
    said: dict[str, str]

    def __getattr__(self, name: str) -> str:
        return self.said.get(name, "")


def an_image(version: str, behaviour: str = "good", size: int = 5000) -> bytes:
    """An image as a simulated device runs it."""
    head = f"gatehouse image {version} {behaviour}\n".encode()
    return head + random.Random(version).randbytes(size - len(head))


class Server:
    """HTTP over mutual TLS on loopback. `files` are served, with ranges; `answers` misbehave in their place."""

    def __init__(self, credential: Credential, trusted: bytes, place: Path) -> None:
        self.files: dict[str, bytes] = {}
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=trusted.decode())
        self._context.verify_mode = ssl.CERT_REQUIRED
        pem = place / "server.pem"
        pem.write_bytes(credential.chain_pem + credential.private_key_pem)
        self._context.load_cert_chain(pem)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self._socket.settimeout(0.1)
        self._ends = threading.Event()
        self._accepts = threading.Thread(target=self._serve, daemon=True)
        self._accepts.start()

    def close(self) -> None:
        """Ends it. The socket last: its number may be the next server's, and this one must not answer there."""
        self._ends.set()
        self._accepts.join()
        self._socket.close()

    def _serve(self) -> None:
        while not self._ends.is_set():
            try:
                plain, _ = self._socket.accept()
            except TimeoutError:
                continue
            threading.Thread(target=self._talk, args=(plain,), daemon=True).start()

    def _talk(self, plain: socket.socket) -> None:
        plain.settimeout(60)
        try:
            with self._context.wrap_socket(plain, server_side=True) as connection:
                request = b""
                while b"\r\n\r\n" not in request:
                    if not (some := connection.recv(4096)):
                        return
                    request += some
                lines = request.decode().split("\r\n")
                path = lines[0].split(" ")[1]
                fields = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines[1:] if line)}
                self.asked.append(path)
                self.answers.get(path, self.serve)(connection, path, fields)
        except OSError:
            plain.close()

    def serve(self, connection: ssl.SSLSocket, path: str, fields: dict[str, str]) -> None:
        """As it should be."""
        if path not in self.files:
            connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            return
        content, start = self.files[path], 0
        status = "200 OK"
        if "range" in fields:
            start = int(fields["range"].removeprefix("bytes=").rstrip("-"))
            status = f"206 Partial Content\r\nContent-Range: bytes {start}-{len(content) - 1}/{len(content)}"
        connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: {len(content) - start}\r\n\r\n".encode())
        connection.sendall(content[start:])


class Bench:
    """Signs, publishes, and makes devices. Everything is of one test."""

    def __init__(self, binaries: Binaries, broker: Broker, place: Path) -> None:
        self.binaries, self.broker, self.place = binaries, broker, place
        self.vault = SecretStore()
        self.keys = FirmwareKeys(self.vault, "test")
        self.keys.ensure()
        pki = broker.target.pki
        self.server = Server(pki.server("updates", [HOST], ["127.0.0.1"]), pki.trust_chain_for_devices(), place)
        self.now = int(time.time())
        self.credentials: dict[str, Credential] = {}

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.close()

    def sign(self, image: bytes, version: str, now: int = 0, **changes: Any) -> bytes:
        """The manifest of an image for the model `relay`."""
        wish = Wish(model="relay", version=version, url=f"https://{HOST}:{self.server.port}/relay/{version}.bin")
        return sign(self.vault, self.keys, image, replace(wish, **changes), now or self.now).data

    def publish(self, version: str, behaviour: str = "good", size: int = 5000, **changes: Any) -> bytes:
        """Sign an image and show it to devices; returns its manifest."""
        image = an_image(version, behaviour, size)
        manifest = self.sign(image, version, **changes)
        self.server.files[f"/relay/{version}.bin"] = image
        self.server.files["/relay/manifest"] = manifest
        return manifest

    def device(self, name: str = "pump-02", running: str = "1.0", **changes: Any) -> Device:
        """A device that the factory gave an image and the keys of today; it has installed no release yet."""
        credential = self.credentials[name] = self.broker.target.pki.device(name)
        place = self.place / name
        place.mkdir()
        (place / "ca.pem").write_bytes(self.broker.target.pki.trust_anchor)
        (place / "certificate.pem").write_bytes(credential.chain_pem)
        (place / "key.pem").write_bytes(credential.private_key_pem)
        facts: dict[str, Any] = {
            "name": name, "model": "relay", "slot_size": 65536,
            "server": f"https://{HOST}:{self.server.port}/", "server_address": "127.0.0.1",
            "server_port": self.server.port, "broker": "broker.test.internal", "broker_address": "127.0.0.1",
            "broker_port": self.broker.port, "ca": place / "ca.pem", "certificate": place / "certificate.pem",
            "key": place / "key.pem", "hmac_key": "11" * 32, "hmac_number": 1,
            "firmware_keys": "".join(key.hex() for key in trusted_keys(self.vault)), **changes,
        }  # fmt: skip
        device = Device(self.binaries.place / "gatehouse-device", place)
        device.configure(**facts)
        if running:
            (place / "factory").write_bytes(an_image(running))
            device.run("flash", str(place / "factory"))
        return device


@dataclass
class Device:
    """A simulated device: its files, and how it is started."""

    program: Path
    place: Path
    facts: dict[str, Any] = field(default_factory=dict)

    def configure(self, **facts: Any) -> None:
        """Change its `device.conf`."""
        self.facts |= facts
        (self.place / "device.conf").write_text("".join(f"{name}={value}\n" for name, value in self.facts.items()))

    def run(self, *arguments: str) -> Start:
        done = subprocess.run(
            [str(self.program), str(self.place), *arguments], capture_output=True, text=True, timeout=200
        )
        assert done.returncode in (0, NO_POWER, CRASHED), done.stdout + done.stderr
        words = (line.partition(" ") for line in done.stdout.splitlines())
        return Start(done.returncode, {name: rest for name, _, rest in words})

    def start(self, *options: str) -> Start:
        """A start, at which nothing waits longer than it must."""
        return self.run("start", "--hurry", *options)

    def check(self, *options: str) -> str:
        """A start at which it looks for an update; what comes of that, in a word."""
        return self.start("--check", *options).check

    def twin(self, name: str) -> Device:
        """A second device with the same flash."""
        place = self.place.with_name(name)
        shutil.copytree(self.place, place)
        return Device(self.program, place, dict(self.facts))

    def slot(self, number: int, size: int = 5000) -> bytes:
        """What is in a slot."""
        path = self.place / f"slot{number}"
        return path.read_bytes()[:size] if path.exists() else b""
