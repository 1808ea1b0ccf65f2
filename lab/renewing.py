"""A device that renews its certificate by itself, as `gatehouse.identity.renewal` describes it. Runs on a field host.

    python3 - FOLDER [--ask] [--awake SECONDS] [--dies received|stored|connected] <renewing.py

FOLDER is the device's flash. It starts as a bundle of `out/SITE/NAME/`; `own` then leads to the key and the certificate
in use, `next` holds those that it may move to. It is awake until it is settled, or for so many seconds; its power fails
when it has received a certificate, stored it, or connected with it. Prints JSON: the serial number in use, whether the
broker let it in, and what it did.

    --ask         wants a new certificate, for a new key
    --same-key    the same, for the key in use
    --forget      has lost the key that it asked for
    --as NAME     asks for a certificate in another name
    --rsa BITS    asks for a certificate for an RSA key
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from paho.mqtt import client as mqtt

PATIENCE = 5.0  # seconds, for the broker to answer


class PowerCut(Exception):
    """The power goes."""


def openssl(*arguments: str | Path, stdin: bytes = b"") -> bytes:
    """What openssl prints."""
    return subprocess.run(["openssl", *map(str, arguments)], input=stdin, capture_output=True, check=True).stdout


def armoured(label: str, data: bytes) -> bytes:
    """A PEM block (RFC 7468)."""
    return f"-----BEGIN {label}-----\n".encode() + base64.encodebytes(data) + f"-----END {label}-----\n".encode()


def public_key(certificate: Path) -> bytes:
    """The public key of a certificate, PEM."""
    return openssl("x509", "-in", certificate, "-noout", "-pubkey")


def serial_of(certificate: Path) -> str:
    """The serial number of a certificate, lower-case hexadecimal without leading zeros."""
    text = openssl("x509", "-in", certificate, "-noout", "-serial").decode().strip().partition("=")[2]
    return f"{int(text, 16):x}"


def kept(path: Path, data: bytes) -> None:
    """Writes a file so that it is there whole, or as it was."""
    beside = path.with_name(f".{path.name}.new")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.rename(path)


class Device:
    """The device, from its start on."""

    def __init__(self, flash: Path, wishes: argparse.Namespace) -> None:
        self.flash, self.wishes = flash, wishes
        bundle = json.loads((flash / "bundle.json").read_text())
        self.name, self.broker = bundle["name"], bundle["broker"]
        self.did: list[str] = []
        self.next = flash / "next"
        if not (flash / "own").exists():
            first = flash / "1"
            first.mkdir(mode=0o700, exist_ok=True)
            for name in ("key.pem", "certificate.pem"):
                kept(first / name, (flash / name).read_bytes())
            (flash / "own").symlink_to("1")

    @property
    def own(self) -> Path:
        """The folder with the key and the certificate in use."""
        return self.flash / "own"

    def did_or_dies(self, what: str) -> None:
        """Notes what was done, and loses power there if that is wished."""
        self.did.append(what)
        if self.wishes.dies == what:
            raise PowerCut

    def wants_new(self) -> None:
        """Stores the key before it asks; one that it has asked for already stays."""
        if self.wishes.forget:
            shutil.rmtree(self.next, ignore_errors=True)
        if self.next.exists():
            return
        beside = self.flash / ".next"
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(mode=0o700)
        if self.wishes.same_key:
            key = (self.own / "key.pem").read_bytes()
        elif self.wishes.rsa:
            key = openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", f"rsa_keygen_bits:{self.wishes.rsa}")
        else:
            key = openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
        kept(beside / "key.pem", key)
        beside.rename(self.next)

    def request(self) -> bytes:
        """What it publishes to ask."""
        subject = f"/CN={self.wishes.name or self.name}"
        csr = openssl("req", "-new", "-key", self.next / "key.pem", "-subj", subject, "-outform", "DER")
        vouched = b"gatehouse renewal\0" + csr
        endorsement = openssl("dgst", "-sha256", "-sign", self.own / "key.pem", stdin=vouched)
        certificate = (self.own / "certificate.pem").read_bytes()
        return armoured("CERTIFICATE REQUEST", csr) + certificate + armoured("GATEHOUSE ENDORSEMENT", endorsement)

    def moves(self) -> bool:
        """Makes the next certificate its own once the broker has let it in with it; False when it does not."""
        session = Session(self, self.next)
        if not session.accepted:
            return False
        session.end()
        self.did_or_dies("connected")
        number = int(os.readlink(self.own)) + 1
        self.next.rename(self.flash / str(number))
        beside = self.flash / ".own"
        beside.unlink(missing_ok=True)
        beside.symlink_to(str(number))
        beside.rename(self.own)
        self.did.append("moved")
        return True

    def lives(self) -> bool:
        """Awake for once; returns whether the broker let it in with its own certificate."""
        end = time.monotonic() + self.wishes.awake
        if self.wishes.ask or self.wishes.same_key:
            self.wants_new()
        if (self.next / "certificate.pem").exists():
            self.moves()
        while True:
            session = Session(self, self.own)
            if not session.accepted:
                return False
            session.publish("serial", serial_of(self.own / "certificate.pem").encode())
            if not self.next.exists():
                session.publish("request", b"")
                session.end()
                return True
            session.publish("request", self.request())
            self.did.append("asked")
            arrived = session.waits_until(end)
            session.end()
            if not arrived:
                return True
            if not self.moves():
                self.did.append("not let in with the new one")
                return True

    def takes(self, chain: bytes) -> bool:
        """Stores a certificate if it fits the key that it asked for, and is a new one."""
        received = self.flash / "received.pem"
        kept(received, chain)
        key = openssl("pkey", "-in", self.next / "key.pem", "-pubout")
        if public_key(received) != key or serial_of(received) == serial_of(self.own / "certificate.pem"):
            return False
        self.did_or_dies("received")
        kept(self.next / "certificate.pem", chain)
        self.did_or_dies("stored")
        return True


class Session:
    """A session at the broker with the key and the certificate in a folder."""

    def __init__(self, device: Device, folder: Path) -> None:
        self._device = device
        self._code: int | None = None
        self._arrived: list[bytes] = []
        self._client = new_client(device.name)
        self._client.tls_set(device.flash / "ca.pem", folder / "certificate.pem", folder / "key.pem")
        self._client.on_connect = self._connected
        self._client.on_message = lambda _client, _data, message: self._arrived.append(message.payload)
        try:
            self._client.connect(self._device.broker["addresses"][0], self._device.broker["port"])
            self._until(lambda: self._code is not None)
        except OSError:
            self._code = None
        self.accepted = self._code == 0

    def _connected(self, _client: Any, _data: Any, _flags: Any, code: Any, *_: Any) -> None:
        self._code = int(getattr(code, "value", code))

    def _until(self, condition: Any, seconds: float = PATIENCE) -> bool:
        end = time.monotonic() + seconds
        while not condition() and time.monotonic() < end:
            if self._client.loop(0.05):
                return bool(condition())
        return bool(condition())

    def publish(self, kind: str, payload: bytes) -> None:
        """Retained, QoS 1, under its own topics; returns once the broker has it."""
        sent = self._client.publish(f"devices/{self._device.name}/identity/{kind}", payload, qos=1, retain=True)
        if not self._until(sent.is_published):
            raise TimeoutError(f"the broker does not take the {kind}")

    def waits_until(self, end: float) -> bool:
        """Whether a certificate that it can use has come before `end`."""
        self._client.subscribe(f"devices/{self._device.name}/commands/identity/certificate", qos=1)
        while time.monotonic() < end:
            if not self._until(lambda: self._arrived, end - time.monotonic()):
                return False
            if (chain := self._arrived.pop(0)) and self._device.takes(chain):
                return True
        return False

    def end(self) -> None:
        """Says goodbye."""
        self._client.disconnect()
        self._client.loop(0.05)


def new_client(name: str) -> Any:
    """A client of paho 1 (Debian 12) or 2."""
    if hasattr(mqtt, "CallbackAPIVersion"):
        return mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, name)
    return mqtt.Client(name)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("flash", type=Path)
    parser.add_argument("--ask", action="store_true")
    parser.add_argument("--same-key", action="store_true")
    parser.add_argument("--forget", action="store_true")
    parser.add_argument("--as", dest="name", default="")
    parser.add_argument("--rsa", default="")
    parser.add_argument("--awake", type=float, default=0)
    parser.add_argument("--dies", default="")
    wishes = parser.parse_args()
    device = Device(wishes.flash, wishes)
    try:
        let_in = device.lives()
    except PowerCut:
        let_in = True
    json.dump({"serial": serial_of(device.own / "certificate.pem"), "let_in": let_in, "did": device.did}, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
