"""`invoke renew`, killed before any change of the disk or word to the gateway: no device is ever shut out."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import signal
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from deploy import renewals, vaults
from gatehouse.identity import renewal
from gatehouse.site import Site
from roles.mosquitto import files as mosquitto
from tests.unit.enrolling import House, a_house, a_site
from tests.unit.test_enrol_faults import STEPS, in_child
from tests.unit.test_identity_renewal import Key, csr_of, new_key, sign

NAME = "one"


@dataclass
class Broker:
    """What is retained there, and the revocation list that it goes by, in files that outlive who changes them."""

    root: Path
    before: Callable[[], None] = lambda: None

    def run(self, script: str, stdin: str = "") -> str:
        """As `Remote.run`: what `renew` has the gateway do."""
        self.before()
        if script != mosquitto.EXCHANGE:
            with tarfile.open(fileobj=io.BytesIO(base64.b64decode(stdin))) as archive:
                listed = archive.extractfile(f"{mosquitto.CREDENTIALS}/crl.pem".lstrip("/"))
                assert listed is not None
                (self.root / "crl.pem").write_bytes(listed.read())
            return ""
        request = json.loads(stdin)
        self.put(request["put"])
        retained = self.retained()
        return json.dumps({topic: retained[topic] for topic in request["look"] if topic in retained})

    def retained(self) -> dict[str, str]:
        path = self.root / "retained"
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def put(self, texts: dict[str, str]) -> None:
        now = {topic: text for topic, text in {**self.retained(), **texts}.items() if text}
        (self.root / "retained").write_text(json.dumps(now))

    def takes(self, certificate_pem: bytes) -> bool:
        """Whether a certificate is on no list that it goes by."""
        path = self.root / "crl.pem"
        serial = x509.load_pem_x509_certificate(certificate_pem).serial_number
        listed = path.exists() and x509.load_pem_x509_crl(path.read_bytes()).get_revoked_certificate_by_serial_number(
            serial
        )
        return not listed


@dataclass
class Scene:
    """An operator's house, the broker, and a device with the key that it has in use and the one that it asks for."""

    house: House
    broker: Broker
    own: tuple[Key, bytes]
    coming: Key = field(default_factory=new_key)

    def copy(self, root: Path) -> Scene:
        """The same again, somewhere else."""
        shutil.copytree(self.house.root, root)
        return Scene(House(root, self.house.site), Broker(root), self.own, self.coming)

    def ask(self) -> None:
        key, certificate = self.own
        csr = csr_of(self.coming, NAME)
        request = renewal.compose(csr, certificate, sign(key, renewal.endorsed(csr)))
        self.broker.put({renewal.request_topic(NAME): request.decode()})

    def move(self) -> None:
        """The device's turn: takes what waits for it, if the broker lets it in with that; it must always get in."""
        waiting = self.broker.retained().get(renewal.certificate_topic(NAME), "").encode()
        if waiting and self.broker.takes(waiting):
            certificate = x509.load_pem_x509_certificate(waiting)
            if certificate.public_key() == self.coming.public_key():
                self.own = self.coming, waiting
        assert self.broker.takes(self.own[1]), "the device is shut out"
        serial = f"{x509.load_pem_x509_certificate(self.own[1]).serial_number:x}"
        moved = self.own[0] is self.coming
        self.broker.put({renewal.serial_topic(NAME): serial} | ({renewal.request_topic(NAME): ""} if moved else {}))

    def renew(self) -> renewals.Outcome:
        site = a_site(devices=tuple(self.house.devices().values()))
        return renewals.renew(site, [NAME])

    def settled(self, former: bytes) -> None:
        """Asserts that the device has one certificate, and that the former one is worth nothing."""
        serial = f"{x509.load_pem_x509_certificate(self.own[1]).serial_number:x}"
        assert self.house.devices()[NAME].serials == (serial,)
        assert self.broker.takes(self.own[1]) and not self.broker.takes(former)
        assert renewal.certificate_topic(NAME) not in self.broker.retained()


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, Scene | None], Scene]:
    """A scene in a directory, new or a copy of another; `renew` works on the one that was made last."""
    at: list[Scene] = []

    def make(root: Path, like: Scene | None = None) -> Scene:
        if like is None:
            root.mkdir()
            house = a_house(root)
            house.enrol(NAME)
            bundle = house.out / NAME
            key = load_pem_private_key((bundle / "key.pem").read_bytes(), None)
            assert isinstance(key, Key)
            made = Scene(house, Broker(root), (key, (bundle / "certificate.pem").read_bytes()))
        else:
            made = like.copy(root)
        at[:] = [made]
        return made

    @contextmanager
    def connected(site: Site, gateway: str) -> Iterator[Broker]:
        yield at[0].broker

    monkeypatch.setattr(renewals, "connected", connected)
    monkeypatch.setattr(vaults, "vault_path", lambda _: at[0].house.root / "home.age")
    monkeypatch.setattr(vaults, "identity_path", lambda _: at[0].house.root / "identity")
    monkeypatch.setattr(vaults, "registry_path", lambda _: at[0].house.registry)
    return make


def killed_at(scene: Scene, step: int) -> bool:
    """`renew` in a child that is killed before its step-th change of the disk or word to the gateway; False if it had
    fewer."""

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
        scene.broker.before = due
        scene.renew()

    return in_child(work) == signal.SIGKILL


def test_without_a_fault_a_device_moves_and_its_former_certificate_is_worth_nothing(scene, tmp_path: Path) -> None:
    made = scene(tmp_path / "scene", None)
    former = made.own[1]
    made.ask()
    assert made.renew().renewed == [NAME]
    assert made.broker.takes(former) and len(made.house.devices()[NAME].serials) == 2
    made.move()
    assert made.own[1] != former
    outcome = made.renew()
    assert (outcome.retired, outcome.refused) == ([NAME], [])
    made.settled(former)


@pytest.mark.parametrize("phase", ["sign", "retire"])
def test_killed_at_any_step_the_device_gets_in_and_the_next_runs_settle_it(scene, tmp_path: Path, phase: str) -> None:
    first = scene(tmp_path / "first", None)
    former = first.own[1]
    first.ask()
    if phase == "retire":
        first.renew()
        first.move()
    step, seen = 0, set()
    while True:
        step += 1
        made = scene(tmp_path / str(step), first)
        if not killed_at(made, step):
            break
        seen.add((len(made.house.devices()[NAME].serials), made.broker.takes(former)))
        made.move()
        for _ in range(2):
            assert made.renew().refused == []
            made.move()
        made.renew()
        made.settled(former)
        assert made.own[1] != former
        shutil.rmtree(made.house.root)
    expected = {(1, True), (2, True)} if phase == "sign" else {(2, True), (2, False), (1, False)}
    assert seen == expected
