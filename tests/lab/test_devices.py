"""Devices on the live gateway: who is cut off, is cut off at once, and nobody else notices."""

from __future__ import annotations

import json
import random
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import lab
from deploy import vaults
from deploy.lastseen import last_seen
from tests.lab.gateways import Gateway, wait

pytestmark = pytest.mark.timeout(600)

TAKEN = (0, 16)  # MQTT 5 §3.4.2.1: success, and success with nobody listening
NOT_AUTHORISED = 135


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

    def session(self) -> str:
        """The TCP session that the broker has with its address, by its ends; empty when there is none."""
        lines = self.gateway("ss -Htn state established sport = :8883 || true").splitlines()
        return " ".join(line.split()[-1] for line in lines if f"{self.address}:" in line)

    def is_connected(self) -> bool:
        """Whether the broker has a TCP session with its address."""
        return self.session() != ""

    def publishes(self, topic: str) -> lab.Completed:
        """Publishes once; fails where it gets no session."""
        return self.run(f"timeout 8 mosquitto_pub {self.options()} -t {topic} -m x -d", timeout=20)

    def is_told_to_be_revoked(self) -> bool:
        """Whether it learns why it gets no session: now and then the connection ends before the alert is read."""
        refused = self.publishes(f"devices/{self.name}/telemetry/t")
        assert refused.returncode != 0, refused
        return "certificate revoked" in refused.stdout + refused.stderr

    def reaches_the_vendor(self) -> bool:
        """Whether it gets to the one internet service that devices of the lab may use."""
        connect = f"socket.create_connection(('198.51.100.80', 443), 4, ('{self.address}', 0))"
        return self.run(f'python3 -c "import socket; {connect}"').returncode == 0

    def code(self, topic: str) -> int | None:
        """The broker's reason code for one message (MQTT 5 §3.4.2.1); None where it did not come so far."""
        found = re.search(r"PUBACK \(Mid: \d+, RC:(\d+)\)", self.publishes(topic).stdout)
        return int(found[1]) if found else None

    def posts(self, name: str = "") -> str:
        """The code that libcoap's client gets for a post under its own topic, or another's; empty for none."""
        folder, path = f"/tmp/{self.name}", f"devices/{name or self.name}/telemetry/t"
        shown = f"-c {folder}/certificate.pem -j {folder}/key.pem -R {folder}/ca.pem -a {self.address}"
        done = self.run(f"coap-client-openssl -B 5 -v 6 -m post -e x {shown} coaps://10.10.10.1/{path} 2>&1")
        found = re.search(r"t:ACK c:(\d\.\d\d)", done.stdout)
        return found[1] if found else ""

    def may_publish(self) -> bool:
        """Whether a message under its own name is taken."""
        return self.code(f"devices/{self.name}/telemetry/t") in TAKEN


@pytest.fixture(scope="module")
def field(lab_gateway: Gateway, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[FieldDevice]]:
    """Four enrolled devices, their bundles as they were made, on the device host."""
    hosts = random.SystemRandom().sample(range(60, 250), 4)
    made = [FieldDevice(lab_gateway, f"field-{secrets.token_hex(3)}", f"10.10.10.{n}") for n in hosts]
    listed = tmp_path_factory.mktemp("enrol") / "devices.csv"
    listed.write_text("name,model,address\n" + "".join(f"{device.name},lab,{device.address}\n" for device in made))
    enrolled = lab_gateway.checkout.invoke("enroll", "--from", str(listed))
    assert enrolled.status == 0, enrolled.text
    for device in made:
        (bundle,) = lab_gateway.checkout.root.glob(f"out/{lab_gateway.name}/{device.name}")
        device.provide(bundle)
    # Their addresses are reserved from the next deploy on.
    lab_gateway.is_hardened = False
    lab_gateway.harden()
    yield made
    for device in made:
        device.hushes()
        device.run(f"ip address delete {device.address}/24 dev eth0; rm -rf /tmp/{device.name}")
    # What became of them stands in the lab's registry, and is as it should be after the next deploy, too.
    lab_gateway.is_hardened = False


def test_a_device_connects_with_its_bundle_and_is_what_its_certificate_says(field: list[FieldDevice]) -> None:
    one, other = field[:2]
    assert one.may_publish()
    assert one.code(f"devices/{other.name}/telemetry/t") == NOT_AUTHORISED
    assert (one.posts(), one.posts(other.name)) == ("2.04", "4.03"), "by CoAP it is somebody else"
    assert other.may_publish()


def test_a_device_that_speaks_coap_alone_is_seen(gateway: Gateway, field: list[FieldDevice]) -> None:
    *_, never, coap = field
    began = datetime.now(UTC) - timedelta(seconds=1)
    assert coap.posts() == "2.04"
    gateway("systemctl restart gatehouse-coap.service")  # it writes down what it heard, and no later than that
    moments, _ = last_seen(gateway.checkout.site)
    assert began <= moments[coap.name] <= datetime.now(UTC) and never.name not in moments


def test_a_revoked_device_is_disconnected_and_refused_and_the_others_sessions_go_on(
    gateway: Gateway, field: list[FieldDevice]
) -> None:
    lost, *kept = field[:3]
    for device in (lost, *kept):
        device.listens()
    before = [device.session() for device in kept]
    done = gateway.checkout.invoke("revoke", "--name", lost.name)
    assert done.status == 0, done.text
    assert not lost.is_connected(), "its session is still open"
    listed = gateway.checkout.invoke("devices", "--json")
    assert listed.status == 0, listed.text
    (row,) = [row for row in json.loads(listed.out) if row["name"] == lost.name]
    assert row["status"] == "revoked", row
    assert [device.session() for device in kept] == before, "another device lost its session"
    for device in (lost, *kept):
        device.hushes()
    assert not lost.may_publish()
    # Not only its packets are dropped: from an address that nobody blocks, its certificate is refused, too.
    elsewhere = FieldDevice(gateway, lost.name, "10.10.10.50")
    wait(elsewhere.is_told_to_be_revoked, "its certificate is refused as a revoked one", 30)
    assert elsewhere.posts() == "", "its certificate is taken by CoAP"
    for device in kept:
        assert device.may_publish() and device.posts() == "2.04"
    # Its name and address are left for the next deploy to take.
    gateway.is_hardened = False


def test_a_quarantine_outlives_a_restart_and_the_next_deploy_and_a_release_ends_it(
    gateway: Gateway, field: list[FieldDevice]
) -> None:
    lost, _, odd, kept = field
    assert not lost.may_publish(), "a deploy let a revoked device in again"
    assert odd.may_publish() and odd.reaches_the_vendor()
    kept.listens()
    before = kept.session()
    # It tries another host of the gateway's networks, as it may not.
    odd.run("nc -w 1 -z 10.10.20.1 9 || true")
    refused = gateway.checkout.invoke("refused", "--json")
    assert refused.status == 0, refused.text
    hardware = odd.run("cat /sys/class/net/eth0/address").stdout.strip()
    found = [row for row in json.loads(refused.out) if (row["hardware_address"], row["segment"]) == (hardware, "iot")]
    assert len(found) == 1 and found[0]["refused_here"] + found[0]["refused_onwards"] > 0, refused.text
    done = gateway.checkout.invoke("incident", "--device", odd.name)
    assert done.status == 0, done.text
    assert kept.session() == before, "another device lost its session"
    assert (odd.posts(), kept.posts()) == ("4.01", "2.04")
    holds_what_is_known_of(odd, gateway, re.findall(r"\S+\.age", done.out)[0])
    is_heard_for_diagnosis_only(odd)
    assert kept.reaches_the_vendor()
    kept.hushes()
    lab.restart(gateway.name, gateway.host)
    gateway.until("systemctl is-active mosquitto.service", 30)
    wait(kept.may_publish, "the broker serves again", 30)
    is_heard_for_diagnosis_only(odd)
    gateway.converge()
    is_heard_for_diagnosis_only(odd)
    assert kept.reaches_the_vendor()
    done = gateway.checkout.invoke("release", "--name", odd.name)
    assert done.status == 0, done.text
    assert odd.may_publish() and odd.reaches_the_vendor()
    wait(lambda: odd.posts() == "2.04", "what it posts by CoAP is taken again", 20)
    gateway.stays_converged()


def holds_what_is_known_of(device: FieldDevice, gateway: Gateway, archive: str) -> None:
    """The evidence opens, is as its manifest says, and shows the device's connections before it was cut off."""
    folder = Path(archive).with_suffix("")
    done = gateway.checkout.invoke("incident.open", archive, "--to", str(folder))
    assert done.status == 0, done.text
    found = {path.name: path.read_text(errors="replace") for path in folder.iterdir()}
    lines = found["timeline.txt"].splitlines()
    assert any(f"as {device.name} (" in line for line in lines), lines
    assert lines[-1].endswith(f"{device.name} is put in quarantine")
    assert "LISTEN" in found["sessions.txt"] and "table inet gatehouse" in found["firewall.txt"]
    assert "/etc/gatehouse/firewall.nft" in found["hashes.txt"]
    # Nobody in the lab has its address by DHCP, and a container has no audit system of its own.
    assert {name for name, text in found.items() if not text.strip()} <= {"leases.txt", "audit.txt"}
    drifted = json.loads(found["drift.json"])
    assert drifted["drift"] is False, drifted


def is_heard_for_diagnosis_only(device: FieldDevice) -> None:
    """It says nothing under its own name and reaches nobody, and is heard where a device in quarantine is."""
    assert device.code(f"devices/{device.name}/telemetry/t") == NOT_AUTHORISED
    assert device.code(f"quarantine/{device.name}/report") in TAKEN
    assert not device.reaches_the_vendor()


def test_what_can_not_be_cut_off_is_said_and_changes_nothing(gateway: Gateway) -> None:
    registry = vaults.registry_path(gateway.checkout.site)
    before = registry.read_text()
    assert '"kitchen-01"' in before
    for command, name, said in (
        ("revoke", "nobody-01", "no such device"),
        ("quarantine", "nobody-01", "no such device"),
        ("release", "kitchen-01", "is not in quarantine"),
    ):
        done = gateway.checkout.invoke(command, "--name", name)
        assert done.status != 0 and said in done.text and "Traceback" not in done.text, done.text
    assert registry.read_text() == before
