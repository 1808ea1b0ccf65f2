"""A signing desk and its gateway, whose shell runs in a folder of this machine."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from deploy import firmware, firmwarestatus, publishing, vaults
from deploy.remote import RemoteError
from gatehouse.site import Site
from roles.updates import service
from tests.unit.enrolling import House, a_house, a_site, broker


@dataclass
class Gateway:
    """A gateway's shell, in a folder of this machine."""

    gateway: str = "gw1"
    scripts: list[str] = field(default_factory=list)

    def run(self, script: str, stdin: str = "") -> str:
        """As `Remote.run`."""
        self.scripts.append(script)
        done = subprocess.run(["sh", "-c", script], input=stdin, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RemoteError(f"{self.gateway}: {done.stderr.splitlines()[-1]}")
        return done.stdout

    @contextmanager
    def writing(self, script: str) -> Iterator[tuple[Callable[[bytes], None], Callable[[], str]]]:
        """As `Remote.writing`."""
        sent: list[bytes] = []

        def answer() -> str:
            done = subprocess.run(["sh", "-c", script], input=b"".join(sent), capture_output=True, check=False)
            if done.returncode:
                raise RemoteError(f"{self.gateway}: {done.stderr.decode().splitlines()[-1]}")
            return done.stdout.decode()

        yield sent.append, answer


@dataclass
class Desk:
    """A site with keys, its gateway, and what was said."""

    site: Site
    served: Path
    house: House
    said: list[str] = field(default_factory=list)

    def sign(self, content: bytes = b"image", version: str = "1.0.0", **options: object) -> None:
        image = self.house.root / "app.bin"
        image.write_bytes(content)
        list(firmware.sign_image(self.site, image, "relay", version, **options))  # type: ignore[arg-type]

    def publish(self, version: str = "1.0.0", rollout: str = "") -> str:
        publishing.publish(self.site, "relay", version, self.said.append, rollout)
        return self.said[-1]

    def files(self) -> dict[str, bytes]:
        return {str(p.relative_to(self.served)): p.read_bytes() for p in self.served.rglob("*") if p.is_file()}


def a_desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Desk:
    """With keys, and nothing signed yet."""
    house = a_house(tmp_path)
    site = a_site(services=(broker(), service), updates=True, **changes)
    served = tmp_path / "served"
    served.mkdir()
    monkeypatch.setattr(publishing, "SERVED", str(served))
    monkeypatch.setattr(vaults, "open_vault", lambda _: house.vault())
    for module in (publishing, firmware):  # a checkout of its own
        monkeypatch.setattr(module, "bundles_path", lambda _: tmp_path / "out")
        monkeypatch.setattr(module, "shown", str)

    @contextmanager
    def connected(_: Site, gateway: str) -> Iterator[Gateway]:
        yield Gateway(gateway)

    for module in (publishing, firmwarestatus):
        monkeypatch.setattr(module, "connected", connected)
    list(firmware.make_keys(site))
    return Desk(site, served, house)
