"""The CoAP endpoint on loopback, with the role's own files and program, and devices that talk to it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gatehouse.identity.pins import coap_host
from gatehouse.identity.pki import Credential
from gatehouse.proof.probes.coap import Device, coap
from roles.coap import files
from roles.rendering import File
from roles.target import Target
from tests.roles.broker import SECONDS, folder

TOPIC = "devices/kitchen-01/telemetry/climate"


def everything(target: Target) -> list[File]:
    """All that the role puts on a gateway, but its stamp."""
    return [*files.program(), *files.configuration(target), *files.certificate(target), *files.admission(target)]


class Endpoint:
    """The running program: `root` holds its files as a gateway's root would."""

    def __init__(self, target: Target, root: Path, python: str) -> None:
        self.target, self.root, self.python = target, root, python
        self.port = target.site.listener("coap", "coaps").port
        self.process: subprocess.Popen[bytes] | None = None

    def put(self, entries: list[File]) -> None:
        """Puts files in place as a deploy does: each in one step."""
        for entry in entries:
            path = self.root / entry.path.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            content = entry.content
            for old in ("/etc/gatehouse/", "/usr/lib/gatehouse/", "/run/gatehouse-coap/", "/var/lib/gatehouse-coap/"):
                content = content.replace(f'"{old}'.encode(), f'"{self.root}{old}'.encode())
            beside = path.with_suffix(".new")
            beside.write_bytes(content)
            beside.replace(path)

    def start(self) -> None:
        """Starts it; it listens then."""
        command = [self.python, "-I", self.root / files.PROGRAM[1:], self.root / files.SETTINGS[1:]]
        with (self.root / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        self.until(lambda: self.number("connected") is not None, "no numbers")

    def stop(self) -> int:
        """Ends it, and says with which status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(SECONDS)

    def until(self, condition: Any, why: str) -> None:
        """Waits until something holds."""
        assert self.process is not None
        until = time.monotonic() + 2 * SECONDS
        while not condition():
            assert self.process.poll() is None and time.monotonic() < until, f"{why}: {self.log()}"
            time.sleep(0.05)

    def number(self, name: str) -> float | None:
        """One of its numbers."""
        with contextlib.suppress(OSError):
            for line in (self.root / files.METRICS[1:]).read_text().splitlines():
                if line.startswith(f"gatehouse_coap_{name} "):
                    return float(line.rpartition(" ")[2])
        return None

    def log(self) -> str:
        """What it said."""
        return (self.root / "log").read_text()

    def probe(self, credential: Credential | None, **more: Any) -> dict[str, Any]:
        """How to reach it, as probes are told."""
        shown = (
            {"chain": credential.chain_pem.decode(), "key": credential.private_key_pem.decode()} if credential else {}
        )
        anchor = self.target.pki.trust_anchor.decode()
        where = {"address": "127.0.0.1", "port": self.port, "ca": anchor, "server_name": coap_host(self.target.site)}
        return {"kind": "coap", **where, **shown, **more}

    def asked(self, credential: Credential | None, **more: Any) -> dict[str, Any]:
        """What a probe meets."""
        return coap(self.probe(credential, **more))

    @contextlib.contextmanager
    def device(self, credential: Credential) -> Iterator[Device]:
        """A device with a session."""
        device = Device(self.probe(credential))
        try:
            yield device
        finally:
            device.close()


@contextlib.contextmanager
def serving(target: Target, python: str) -> Iterator[Endpoint]:
    """The endpoint, run by a Python."""
    root = folder()
    endpoint = Endpoint(target, root, python)
    endpoint.put(everything(target))
    for path in (files.METRICS, files.SEEN):
        (root / path[1:]).parent.mkdir(parents=True)
    try:
        endpoint.start()
        yield endpoint
    finally:
        if endpoint.process is not None and endpoint.process.poll() is None:
            os.kill(endpoint.process.pid, 9)
            endpoint.process.wait()
        shutil.rmtree(root)
