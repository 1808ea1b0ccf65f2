"""Devices' HMAC keys: killed at any step, what a device signs is taken, and the next run ends it."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deploy import devicekeys, enrolment, vaults
from gatehouse.messages import MessageError, Refused, keyfile, verify
from gatehouse.messages.rekey import command_topic, unwrap
from gatehouse.messages.state import fingerprint
from roles import declared
from roles.intake import files as intake
from roles.target import Target
from tests.unit.enrolling import House, a_house

NAMES = ("kitchen-01", "pump-02")


class Killed(BaseException):
    """As SIGKILL."""


class Gateway:
    """Keys file, intake's notes and retained commands of a gateway, and two devices behind it, one of them asleep."""

    gateway = "gw1"

    def __init__(self, house: House, place: Path) -> None:
        self.house, self.file = house, place / "keys"
        self.signing = {name: (1, house.vault().get_text(f"devices/{name}/hmac/1")) for name in NAMES}
        self.retained: dict[str, str] = {}
        self.notes: dict[str, dict[str, list[Any]]] = {name: {} for name in NAMES}
        self.asleep: set[str] = set()
        self.dies = self.count = 0
        self.deploy()
        self.devices_report()

    def step(self) -> None:
        self.count += 1
        if self.count == self.dies:
            raise Killed

    def deploy(self) -> None:
        """As `harden` does."""
        self.file.write_bytes(intake.keys(self.target()).content)

    def target(self) -> Target:
        pki = self.house.pki()
        return Target(self.site(), "gw1", lambda: pki)

    def site(self) -> Any:
        return self.house.site.model_copy(update={"devices": tuple(self.house.devices().values())})

    def devices_report(self) -> None:
        """Those that are awake take up what is retained, and sign; the intake notes what it takes."""
        taken = keyfile.read(self.file)
        for name in set(NAMES) - self.asleep:
            number, key = self.signing[name]
            if text := self.retained.get(command_topic(name)):
                try:
                    new = unwrap({number: bytes.fromhex(key)}, name, text)
                    self.signing[name] = number, key = new[0], new[1].hex()
                except MessageError:
                    pass  # it has it already
            assert taken[name].get(number) == bytes.fromhex(key), f"{name}: what it signs is refused"
            self.notes[name][str(number)] = [fingerprint(bytes.fromhex(key)), 1]

    def run(self, script: str, stdin: str = "") -> str:
        """What the kit runs on it."""
        self.step()
        said = ""
        if "sqlite3" in script:
            self.devices_report()
            said = json.dumps({name: self.notes[name] for name in json.loads(stdin)})
        elif "keyfile.read" in script:
            said = json.dumps([self.judged(*each) for each in json.loads(stdin)])
        else:
            with tarfile.open(fileobj=io.BytesIO(base64.b64decode(stdin))) as archive:
                self.file.write_bytes(archive.extractfile(intake.KEYS.lstrip("/")).read())  # type: ignore[union-attr]
            self.devices_report()
        self.step()
        return said

    def judged(self, topic: str, message: str) -> str:
        try:
            verify(keyfile.read(self.file), topic, bytes.fromhex(message))
        except Refused as refused:
            return str(refused.reason)
        return ""

    def exchange(self, remote: Any, target: Any, put: Mapping[str, str]) -> dict[str, str]:
        self.step()
        for topic, text in put.items():
            self.retained[topic] = text
        self.devices_report()
        self.step()
        return {}


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    made = a_house(
        tmp_path, services=declared(), segments={n: {} for n in ("iot", "management", "internal", "internet")}
    )
    made.enrol(*NAMES)
    monkeypatch.setattr(vaults, "registry_path", lambda _: made.registry)
    monkeypatch.setattr(enrolment, "bundles_path", lambda _: made.out)
    monkeypatch.setattr(enrolment, "refresh", lambda _, names, __: made.enroller().refresh(names[0]))
    monkeypatch.setattr(devicekeys, "PATIENCE", 0.2)
    monkeypatch.setattr(devicekeys, "SETTLED", 0.0)
    monkeypatch.setattr(devicekeys, "POLL", 0.05)
    return made


def rotate(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], list[str], list[str]]:
    monkeypatch.setattr(devicekeys, "exchange", gateway.exchange)
    target = gateway.target()
    gateways = SimpleNamespace(
        site=gateway.site(), pki=target.pki, running=lambda _: ["gw1"],
        remote=lambda _: gateway, target=lambda _: target,
    )  # fmt: skip
    return devicekeys.rotate(gateways, NAMES, lambda line: None)  # type: ignore[arg-type]


def is_settled(gateway: Gateway, number: int) -> None:
    vault, devices = gateway.house.vault(), gateway.house.devices()
    for name in NAMES:
        assert vault.names(f"devices/{name}/hmac/") == [f"devices/{name}/hmac/{number}"]
        assert devices[name].hmac_key == number
        assert gateway.signing[name] == (number, vault.get_text(f"devices/{name}/hmac/{number}"))
        assert list(keyfile.read(gateway.file)[name]) == [number]
        assert not gateway.retained.get(command_topic(name))
        assert (gateway.house.out / name / "hmac.key").read_text().strip() == gateway.signing[name][1]


def test_a_device_takes_up_its_next_key_and_the_former_one_is_forgotten(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = Gateway(house, tmp_path)
    former = dict(gateway.signing)
    assert rotate(gateway, monkeypatch) == ([*NAMES], [], [])
    is_settled(gateway, 2)
    assert all(gateway.signing[name][1] != former[name][1] for name in NAMES)


def test_a_device_that_sleeps_keeps_its_key_until_it_has_the_next_one(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = Gateway(house, tmp_path)
    gateway.asleep = {"pump-02"}
    for _ in range(2):
        moved, waiting, failed = rotate(gateway, monkeypatch)
        assert "pump-02" in waiting and not failed
        assert sorted(keyfile.read(gateway.file)["pump-02"]) == [1, 2]
    gateway.asleep = set()
    moved, waiting, failed = rotate(gateway, monkeypatch)
    assert "pump-02" in moved and not waiting and not failed
    assert list(keyfile.read(gateway.file)["pump-02"]) == [2]


def test_killed_at_every_step_what_devices_sign_is_taken_and_the_next_run_ends_it(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway, steps = Gateway(house, tmp_path), 0
    for number in range(1, 100):
        gateway.dies, gateway.count = number, 0
        try:
            rotate(gateway, monkeypatch)
            break
        except Killed:
            steps += 1
        gateway.dies = 0
        gateway.devices_report()
        for name in NAMES:
            used, key = gateway.signing[name]
            assert house.vault().get_text(f"devices/{name}/hmac/{used}") == key, f"{name}: nobody here has its key"
        if number % 2:
            gateway.deploy()
            gateway.devices_report()
        rotate(gateway, monkeypatch)
        is_settled(gateway, gateway.signing[NAMES[0]][0])
    assert steps >= 10


def test_where_no_intake_runs_it_is_told(house: House, tmp_path: Path) -> None:
    gateway = Gateway(house, tmp_path)
    gateways = SimpleNamespace(site=gateway.site(), running=lambda _: [])
    moved, waiting, failed = devicekeys.rotate(gateways, NAMES, lambda line: None)  # type: ignore[arg-type]
    assert (moved, waiting) == ([], [])
    assert failed == ["gw1: no intake takes the messages of kitchen-01 (add the service, then harden)"]
