"""Devices of the lab, on the C library's host port, take updates from its gateway over mutual TLS."""

from __future__ import annotations

import dataclasses
import io
import json
import secrets
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

import lab
from deploy import devices, enrolment, publishing, tools, vaults
from deploy.firmware import sign_image
from gatehouse.identity.authority import read_certificate
from gatehouse.identity.candidates import Request
from gatehouse.identity.leaf import spki
from gatehouse.proof import stored
from gatehouse.proof.channel import START, asking, opening
from gatehouse.proof.expect import GATEWAY
from gatehouse.site import Site
from gatehouse.updates.keys import FirmwareKeys
from lab import firmware
from roles import influxdb
from roles.updates.files import CHAIN
from tests import database
from tests.checkout import SITE_FILE, copied
from tests.device.bench import Start, built
from tests.lab.gateways import Gateway, wait

pytestmark = pytest.mark.timeout(600)

MODEL, ADDRESS = "lab-relay", "10.10.10.1"


@dataclass
class Device:
    """A simulated device on the lab's field host; its flash is a folder there."""

    gateway: Gateway
    name: str
    facts: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def flash(self) -> str:
        return f"/root/{self.name}"

    def brings(self, files: dict[str, bytes]) -> None:
        """Puts files into its flash."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for name, content in files.items():
                entry = tarfile.TarInfo(f"{self.name}/{name}")
                entry.size, entry.mode = len(content), 0o700
                archive.addfile(entry, io.BytesIO(content))
        done = lab.run(self.gateway.name, "device", ["tar", "-x", "-C", "/root"], stdin=buffer.getvalue())
        assert done.returncode == 0, done.stderr

    def configure(self, **facts: str) -> None:
        """Writes its `device.conf`: what it knows, and this for once."""
        lines = {**self.facts, **facts}
        self.brings({"device.conf": "".join(f"{name}={value}\n" for name, value in lines.items()).encode()})

    def run(self, *arguments: str) -> Start:
        done = lab.run(self.gateway.name, "device", [f"{self.flash}/program", self.flash, *arguments], timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        words = (line.partition(" ") for line in done.stdout.splitlines())
        return Start(done.returncode, {name: rest for name, _, rest in words})

    def start(self, *options: str) -> Start:
        """One start; the 30 seconds of an image that reaches nobody pass at once."""
        return self.run("start", "--hurry", *options)

    def check(self) -> str:
        """A start at which it looks for an update; what comes of that, in a word."""
        return self.start("--check").check


@dataclass
class Field:
    """The lab's site, and two devices of it that run version 1.0 from the factory."""

    site: Site
    taker: Device
    lost: Device

    def publish(self, place: Path, version: str, behaviour: str = "good") -> None:
        """Signs an image for the devices and brings it to the gateway."""
        path = place / version
        path.write_bytes(firmware.image(version, behaviour))
        list(sign_image(self.site, path, MODEL, version, "1d"))
        publishing.publish(self.site, MODEL, version, print)

    def reported(self, device: str, name: str) -> list[str]:
        """What the database has of a device's signed reports of the last minutes, in a field."""
        gateway, pki = self.taker.gateway, vaults.open_pki(self.site)
        secret = gateway(f"cat {influxdb.credential(influxdb.DASHBOARDS)}").strip()
        probe = database.question(self.site, pki, secret, device, name, 5)
        sent = opening({}) + asking({GATEWAY: [probe]})
        done = lab.run(gateway.name, gateway.host, ["python3", "-I", "-c", START], stdin=sent)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout.splitlines()[1])["results"][GATEWAY][0]
        return stored.answer(self.site.database.engine, found) or []


@pytest.fixture(scope="module")
def field(lab_gateway: Gateway, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    """Deployed with a broker that speaks TLS 1.2 as well: Debian 12's mbedTLS has no 1.3."""
    tools.ensure(print, tools.COMPILER)
    # Static: the field host has none of its libraries.
    place = tmp_path_factory.mktemp("device")
    program = built(place, "SANITIZE=-static", f"{place}/gatehouse-device").place / "gatehouse-device"
    if lab_gateway.is_broken:
        lab_gateway.renew()
    older = copied(tmp_path_factory.mktemp("older") / "checkout")
    older.edit(SITE_FILE, ("    psk=True,", '    psk=True,\n    broker={"tls": "1.2"},'))
    vault = vaults.open_vault(older.site)
    keys = FirmwareKeys(vault, older.site.name, vaults.tokens(older.site)).ensure()
    made = [Device(lab_gateway, f"{name}-{secrets.token_hex(3)}") for name in ("taker", "lost")]
    for device in made:
        enrolment.enrol_one(older.site, Request(device.name, MODEL), "", False)
    lab_gateway.is_hardened = False
    deployed = older.deploy()
    assert deployed.status == 0, deployed.text
    for device in made:
        bundle = enrolment.bundles_path(older.site) / device.name
        names = ("ca.pem", "certificate.pem", "key.pem")
        device.brings({name: (bundle / name).read_bytes() for name in names})
        device.brings({"program": program.read_bytes(), "factory": firmware.image("1.0")})
        pins = json.loads((bundle / "bundle.json").read_text())["broker"]["pins"]
        device.facts = dict(
            name=device.name, model=MODEL, slot_size="65536", server=f"https://updates.{older.site.domain}/",
            server_address=ADDRESS, server_port="8444", broker=f"broker.{older.site.domain}", broker_address=ADDRESS,
            broker_port="8883", pins=pins["spki_sha256"] + pins["backup_spki_sha256"], ca=f"{device.flash}/ca.pem",
            certificate=f"{device.flash}/certificate.pem", key=f"{device.flash}/key.pem", hmac_number="1",
            hmac_key=(bundle / "hmac.key").read_text().strip(), firmware_keys="".join(k.key.hex() for k in keys),
        )  # fmt: skip
        device.configure()
        device.run("flash", f"{device.flash}/factory")
    yield Field(older.site, *made)
    publishing.withdraw(older.site, MODEL, print)
    for device in made:
        lab_gateway.elsewhere("device", f"rm -rf {device.flash}")
        shutil.rmtree(enrolment.bundles_path(older.site) / device.name, ignore_errors=True)
    shutil.rmtree(enrolment.bundles_path(older.site) / "firmware.signed" / MODEL, ignore_errors=True)


def test_a_device_takes_an_update_and_reports_its_version_and_a_bad_one_rolls_back(
    field: Field, tmp_path: Path
) -> None:
    device = field.taker
    field.publish(tmp_path, "1.1")
    before = device.start("--check")
    assert (before.running, before.broker, before.slot, before.check) == ("1.0", "ok", "0", "installed")
    after = device.start("--check")
    assert (after.running, after.slot, after.begin, after.prove) == ("1.1", "1", "trying", "confirmed")
    assert (after.broker, after.counter, after.check) == ("ok", "1", "up-to-date")
    wait(lambda: "1.1" in field.reported(device.name, "version"), "its report is stored", 20)
    field.publish(tmp_path, "1.2", "mute")
    assert device.check() == "installed"
    bad = device.start()
    assert (bad.running, bad.slot, bad.prove) == ("1.2", "0", "reverted")
    back = device.start("--check")
    assert (back.running, back.slot, back.broker, back.counter) == ("1.1", "1", "ok", "1")
    assert back.check != "installed", "what was rolled back is tried again"
    field.publish(tmp_path, "1.3")
    assert device.check() == "installed"
    assert device.start().prove == "confirmed"
    assert "1.2" not in field.reported(device.name, "version")


def test_a_revoked_device_gets_nothing_from_then_on_and_the_others_go_on(field: Field) -> None:
    lost, kept = field.lost, field.taker
    assert lost.check() == "installed"
    assert lost.start("--check").check == "up-to-date"
    devices.revoke(field.site, [lost.name], print)
    refused = lost.start("--check")
    assert refused.broker != "ok"
    assert refused.check not in ("installed", "up-to-date"), refused.said
    assert kept.check() == "up-to-date"


def test_the_update_server_is_known_by_its_pin_beside_the_ca(field: Field) -> None:
    device = field.taker
    chain = device.gateway(f"cat {CHAIN}")
    shown = read_certificate(CHAIN, chain.encode())
    pins = {
        "server_pins": sha256(spki(shown.public_key())).hexdigest(),
        "server_certificate_pin": sha256(shown.public_bytes(Encoding.DER)).hexdigest(),
    }
    for name, pin in pins.items():
        device.configure(**{name: pin})
        assert device.check() == "up-to-date", name
        device.configure(**{name: "00" * 32})
        assert device.check() == "not-trusted", name
