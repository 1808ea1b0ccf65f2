"""Revoking, quarantining and releasing, killed at any step: written down before a gateway hears of it, and the same
command again completes it."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from deploy import devices, vaults
from gatehouse.errors import GatehouseError
from gatehouse.site import Site
from tests.unit.enrolling import House, a_house, a_site
from tests.unit.test_enrol_faults import STEPS, in_child

NAMES = ["one", "two"]


@dataclass
class Told:
    """What the gateway was told, in a file that outlives who told it; `before` each script something can happen."""

    log: Path
    before: Callable[[], None] = lambda: None

    def run(self, script: str, stdin: str = "") -> str:
        """As `Remote.run`."""
        self.before()
        with self.log.open("a") as file:
            file.write(json.dumps([script, stdin]) + "\n")
        return ""

    def files(self) -> dict[str, bytes]:
        """The files that were sent last, by path."""
        found: dict[str, bytes] = {}
        for line in self.log.read_text().splitlines() if self.log.exists() else ():
            script, stdin = json.loads(line)
            if "tar -x" in script:
                with tarfile.open(fileobj=io.BytesIO(base64.b64decode(stdin))) as archive:
                    for member in archive.getmembers():
                        sent = archive.extractfile(member)
                        found[f"/{member.name}"] = sent.read() if sent else b""
        return found


@dataclass
class Field:
    """A house with two enrolled devices, and a gateway that listens."""

    house: House
    gateway: Told

    def site(self) -> Site:
        """The site as the registry has it now."""
        return a_site(devices=tuple(self.house.devices().values()))

    def command(self, name: str) -> None:
        """`invoke revoke --name one`, and the like."""
        getattr(devices, name)(self.site(), ["one"], lambda _: None)

    def status(self) -> str:
        """What the registry says of the device."""
        return self.house.devices()["one"].status

    def is_on(self, crl: bytes) -> bool:
        """Whether a list names the device's certificate."""
        serial = int(self.house.devices()["one"].serials[0], 16)
        return x509.load_pem_x509_crl(crl).get_revoked_certificate_by_serial_number(serial) is not None


@pytest.fixture
def field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Field]:
    """Makes one, in a directory of that name."""

    def make(name: str) -> Field:
        root = tmp_path / name
        root.mkdir()
        house = a_house(root)
        house.enrol(*NAMES)
        text = house.registry.read_text().replace('name = "one"\n', 'name = "one"\naddress = "10.10.10.77"\n')
        house.registry.write_text(text)
        made = Field(house, Told(root / "told"))

        @contextmanager
        def connected(site: Site, gateway: str) -> Iterator[Told]:
            yield made.gateway

        monkeypatch.setattr(devices, "connected", connected)
        monkeypatch.setattr(vaults, "vault_path", lambda _: root / "home.age")
        monkeypatch.setattr(vaults, "identity_path", lambda _: root / "identity")
        monkeypatch.setattr(vaults, "registry_path", lambda _: house.registry)
        vaults.open_pki(made.site())
        return made

    return make


def killed_at(field: Field, step: int, command: str) -> bool:
    """In a child that is killed before its step-th change of the disk or of the gateway; False if it had fewer."""

    def work() -> None:
        count = 0

        def due() -> None:
            nonlocal count
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)

        def counted(real: Callable[..., Any]) -> Callable[..., Any]:
            def wrapper(*args: Any, **named: Any) -> Any:
                due()
                return real(*args, **named)

            return wrapper

        for name in STEPS:
            setattr(os, name, counted(getattr(os, name)))
        field.gateway.before = due
        field.command(command)

    return in_child(work) == signal.SIGKILL


def test_a_revocation_killed_at_any_step_is_written_down_before_it_is_told_and_completed_by_the_next(field) -> None:
    step, seen = 0, set()
    while True:
        step += 1
        house = field(str(step))
        if not killed_at(house, step, "revoke"):
            break
        revoked = int(house.house.devices()["one"].serials[0], 16) in house.house.pki().revoked()
        told = house.gateway.files()
        seen.add((revoked, house.status(), bool(told)))
        assert revoked or house.status() == "active", "revoked in the registry, and its certificate is good"
        assert house.status() == "revoked" or not told, "the gateway knows more than what is written down"
        house.command("revoke")
        assert_revoked(house)
    assert_revoked(house)
    assert {(False, "active", False), (True, "active", False), (True, "revoked", True)} <= seen


def assert_revoked(field: Field) -> None:
    assert field.status() == "revoked"
    assert field.house.devices()["two"].status == "active"
    assert field.is_on(field.house.pki().crl())
    told = field.gateway.files()
    assert field.is_on(told["/etc/mosquitto/gatehouse/crl.pem"])
    assert b"10.10.10.77" in told["/etc/gatehouse/firewall.nft"]


def test_a_quarantine_killed_at_any_step_is_completed_by_the_next_and_so_is_a_release(field) -> None:
    for command, end, former in (("quarantine", "quarantined", "active"), ("release", "active", "quarantined")):
        step, seen = 0, set()
        while True:
            step += 1
            house = field(f"{command}-{step}")
            if command == "release":
                house.command("quarantine")
            at_first = house.gateway.files()
            if not killed_at(house, step, command):
                break
            seen.add(house.status())
            assert house.status() == end or house.gateway.files() == at_first, "told before it was written down"
            assert int(house.house.devices()["one"].serials[0], 16) not in house.house.pki().revoked()
            if house.status() == end and command == "release":
                # It is free in the registry, and a harden tells the gateway.
                with pytest.raises(GatehouseError, match="is not in quarantine"):
                    house.command(command)
                continue
            house.command(command)
            assert house.status() == end
            assert is_held(house.gateway.files()) == (command == "quarantine")
        assert seen == {former, end}
        assert is_held(house.gateway.files()) == (command == "quarantine")


def is_held(files: dict[str, bytes]) -> bool:
    """Whether the gateway cuts the device off, in the firewall and at the broker; it is the same in both."""
    acl = b"user one\n" in files["/etc/mosquitto/gatehouse/acl"]
    assert (b"10.10.10.77" in files["/etc/gatehouse/firewall.nft"]) == acl
    return acl
