"""Devices on the live gateway: who is cut off, is cut off at once, and nobody else notices."""

from __future__ import annotations

import random
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import lab
from tests.lab.gateways import Gateway, wait

pytestmark = pytest.mark.timeout(600)


@dataclass
class FieldDevice:
    """A device of the registry, played on the lab's device host from an address of its own."""

    gateway: Gateway
    name: str
    address: str

    def run(self, command: str, timeout: float = 30) -> lab.Completed:
        """Runs shell on the device's host."""
        return lab.run(self.gateway.name, "device", ["sh", "-c", command], timeout=timeout)

    def options(self) -> str:
        """How this device names the broker, itself and what it trusts."""
        folder = f"/tmp/{self.name}"
        return (
            f"-V mqttv5 -A {self.address} -h 10.10.10.1 -p 8883 --cafile {folder}/ca.pem"
            f" --cert {folder}/certificate.pem --key {folder}/key.pem -q 1"
        )

    def provide(self, bundle: Path) -> None:
        """Puts its bundle on it, and its address."""
        assert self.run(f"mkdir -p /tmp/{self.name}; ip address replace {self.address}/24 dev eth0").returncode == 0
        for name in ("ca.pem", "certificate.pem", "key.pem"):
            write = ["sh", "-c", f"umask 077; cat > /tmp/{self.name}/{name}"]
            done = lab.run(self.gateway.name, "device", write, stdin=(bundle / name).read_text())
            assert done.returncode == 0, done.stderr

    def listens(self) -> None:
        """Opens a session that stays."""
        topic = f"devices/{self.name}/commands/#"
        started = self.run(
            f"setsid mosquitto_sub {self.options()} -k 20 -d -t {topic} </dev/null >/tmp/{self.name}/log 2>&1 &"
        )
        assert started.returncode == 0, started.stderr
        wait(self.is_connected, f"{self.name} connects", 20)

    def hushes(self) -> None:
        """Ends its session: the broker lets a name have one, so that it could not do anything else meanwhile."""
        self.run(f"pkill -f 'mosquitto_sub.*{self.name}'")

    def is_connected(self) -> bool:
        """Whether the broker has a TCP session with its address."""
        return self.address in self.gateway("ss -Htn state established sport = :8883 || true")

    def publishes(self, topic: str) -> lab.Completed:
        """Publishes once; fails where the broker, or the network, refuses."""
        return self.run(f"timeout 8 mosquitto_pub {self.options()} -t {topic} -m x -d", timeout=20)

    def reaches_the_vendor(self) -> bool:
        """Whether it gets to the one internet service that devices of the lab may use."""
        connect = f"socket.create_connection(('198.51.100.80', 443), 4, ('{self.address}', 0))"
        return self.run(f'python3 -c "import socket; {connect}"').returncode == 0

    def may_publish(self) -> bool:
        """Whether a message under its own name is taken."""
        done = self.publishes(f"devices/{self.name}/telemetry/t")
        # MQTT 5 §3.4.2.1: 0 is success, 16 the same with nobody listening; a refusal is 135.
        return done.returncode == 0 and any(f"RC:{code})" in done.stdout for code in (0, 16))


@pytest.fixture
def devices(gateway: Gateway) -> Iterator[list[FieldDevice]]:
    """Two enrolled devices."""
    hosts = random.SystemRandom().sample(range(60, 250), 2)
    made = [FieldDevice(gateway, f"field-{secrets.token_hex(3)}", f"10.10.10.{n}") for n in hosts]
    for device in made:
        enrolled = gateway.checkout.invoke(
            "enroll", "--name", device.name, "--model", "lab", "--address", device.address
        )
        assert enrolled.status == 0, enrolled.text
        (bundle,) = gateway.checkout.root.glob(f"out/*/{device.name}")
        device.provide(bundle)
    # Their addresses are reserved from now on.
    gateway.converge()
    yield made
    for device in made:
        device.hushes()
        device.run(f"ip address delete {device.address}/24 dev eth0")
    # What became of them stands in the lab's registry, and is as it should be after the next deploy, too.
    gateway.is_hardened = False


def test_a_revoked_device_is_disconnected_and_refused_and_the_other_stays_connected(
    gateway: Gateway, devices: list[FieldDevice]
) -> None:
    lost, kept = devices
    for device in devices:
        assert device.may_publish()
        device.listens()
    done = gateway.checkout.invoke("revoke", "--name", lost.name)
    assert done.status == 0, done.text
    assert not lost.is_connected(), "its session is still open"
    assert kept.is_connected(), "another device lost its session"
    for device in devices:
        device.hushes()
    assert not lost.may_publish()
    assert kept.may_publish()
    # Not only its packets are dropped: from an address that nobody blocks, its certificate is refused, too.
    elsewhere = FieldDevice(gateway, lost.name, "10.10.10.50")
    assert not elsewhere.may_publish()
    gateway.stays_converged()


def test_a_quarantined_device_is_heard_for_diagnosis_only_and_a_released_one_as_before(
    gateway: Gateway, devices: list[FieldDevice]
) -> None:
    odd, kept = devices
    assert odd.reaches_the_vendor()
    done = gateway.checkout.invoke("quarantine", "--name", odd.name)
    assert done.status == 0, done.text
    assert not odd.may_publish()
    assert odd.publishes(f"quarantine/{odd.name}/report").returncode == 0
    assert not odd.reaches_the_vendor()
    assert kept.reaches_the_vendor() and kept.may_publish()
    gateway.stays_converged()
    done = gateway.checkout.invoke("release", "--name", odd.name)
    assert done.status == 0, done.text
    assert odd.may_publish() and odd.reaches_the_vendor()
    gateway.stays_converged()


def test_what_can_not_be_cut_off_is_said_and_changes_nothing(gateway: Gateway) -> None:
    before = gateway.checkout.invoke("devices", "--json").out
    for command, name, said in (
        ("revoke", "nobody-01", "no such device"),
        ("release", "kitchen-01", "is not in quarantine"),
    ):
        done = gateway.checkout.invoke(command, "--name", name)
        assert done.status != 0 and said in done.text and "Traceback" not in done.text, done.text
    assert gateway.checkout.invoke("devices", "--json").out == before
