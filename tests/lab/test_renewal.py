"""Devices of the lab renew their certificates over their own channel: late, twice, with power cuts, with bad wishes."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock

import pytest

import lab
from deploy import devices, enrolment, renewals, vaults
from deploy.lastseen import last_seen
from deploy.remote import RemoteError, connected
from deploy.renewals import Outcome
from gatehouse.identity.renewal import certificate_topic
from gatehouse.site.registry_writer import Registry
from lab import renewing
from roles.target import Target
from tests.lab.gateways import Gateway, wait

pytestmark = pytest.mark.timeout(600)

CLIENT = Path(renewing.__file__)
DAY = timedelta(days=1)


@dataclass
class Device:
    """A device that runs on the lab's field host `device`, with its flash in a folder there."""

    gateway: Gateway
    name: str

    @property
    def flash(self) -> str:
        return f"/root/{self.name}"

    def wakes(self, *wishes: str, flash: str = "") -> dict[str, object]:
        """Let it run once; what it says of itself."""
        argv = ["python3", "-", flash or self.flash, *wishes]
        done = lab.run(self.gateway.name, "device", argv, stdin=CLIENT.read_text())
        assert done.returncode == 0, done.stderr
        said: dict[str, object] = json.loads(done.stdout)
        return said

    def asks(self, *wishes: str) -> None:
        """Let it ask, and sleep before there is an answer."""
        assert self.wakes("--ask", "--awake", "0.1", *wishes)["did"] == ["asked"]

    def moves(self, *first: str) -> None:
        """Let it run until it has moved."""
        did = self.wakes("--awake", "5")["did"]
        assert did == [*first, "connected", "moved"]

    def is_let_in(self, flash: str = "") -> bool:
        return bool(self.wakes(flash=flash)["let_in"])

    def copies_flash(self) -> str:
        """A copy of its flash, as a thief would make it; returns the folder."""
        copy = f"{self.flash}-then"
        self.gateway.elsewhere("device", f"cp -a {self.flash} {copy}")
        return copy

    @property
    def serials(self) -> tuple[str, ...]:
        return tuple(self.registry.read()[self.name]["serials"])

    @property
    def registry(self) -> Registry:
        return Registry(vaults.registry_path(self.gateway.checkout.site))

    def becomes_due(self) -> None:
        now = datetime.now(UTC)
        with self.registry.transaction() as registry:
            registry.change(self.name, not_before=now - 300 * DAY, not_after=now + 65 * DAY)


def renew(gateway: Gateway, *names: str) -> Outcome:
    return renewals.renew(gateway.checkout.site, names)


FROM_THE_BROKER = ("asked", "received", "stored")


@pytest.fixture(scope="module", autouse=True)
def stale(lab_gateway: Gateway) -> Iterator[None]:
    """The gateway still knows the devices that these tests made; the next deploy takes them away."""
    yield
    lab_gateway.is_hardened = False


@pytest.fixture
def make(gateway: Gateway) -> Iterator[Callable[[str], Device]]:
    """Enrols devices; afterwards the lab's registry is as it was."""
    site = gateway.checkout.site
    path = vaults.registry_path(site)
    before = path.read_bytes()
    made = []

    def enrol(name: str) -> Device:
        enrolment.enrol_one(site, enrolment.Request(name, "esp32"), "", False)
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            archive.add(enrolment.bundles_path(site) / name, name)
        device = Device(gateway, name)
        made.append(device)
        gateway.elsewhere("device", f"rm -rf {device.flash} {device.flash}-then")
        lab.run(gateway.name, "device", ["tar", "-x", "-C", "/root"], stdin=buffer.getvalue())
        return device

    yield enrol
    with connected(site, "gateway") as remote:
        target = Target(site, "gateway", lambda: vaults.open_pki(site))
        answers = {certificate_topic(device.name): "" for device in made}
        renewals._Gateway(remote, target, Outcome())._exchange(put=answers)
    for device in made:
        gateway.elsewhere("device", f"rm -rf {device.flash} {device.flash}-then")
        shutil.rmtree(enrolment.bundles_path(site) / device.name, ignore_errors=True)
    path.write_bytes(before)


@pytest.fixture
def pump(make: Callable[[str], Device]) -> Device:
    return make("pump-90")


def test_a_due_device_renews_itself_and_its_old_certificate_is_worth_nothing_then(
    gateway: Gateway, pump: Device
) -> None:
    pump.asks()
    thief = pump.copies_flash()
    (old,) = pump.serials
    assert renew(gateway) == Outcome(early=[pump.name])
    assert pump.serials == (old,), "a certificate with most of its life before it is left alone"
    pump.becomes_due()
    done = gateway.checkout.invoke("renew", "--json")
    assert done.status == 0, done.text
    assert Outcome(**json.loads(done.out)) == Outcome(renewed=[pump.name], waiting=[pump.name])
    new, *others = pump.serials
    assert others == [old]
    assert pump.is_let_in(thief), "both are good until it has moved"
    pump.moves(*FROM_THE_BROKER)
    assert renew(gateway) == Outcome(retired=[pump.name])
    assert pump.serials == (new,)
    assert pump.wakes() == {"serial": new, "let_in": True, "did": []}
    assert not pump.is_let_in(thief), "the old certificate is still good"
    assert renew(gateway) == Outcome()
    assert "Broker" not in gateway.checkout.invoke("plan").out


def test_a_device_that_wakes_up_long_after_finds_its_certificate(gateway: Gateway, pump: Device) -> None:
    pump.asks("--same-key")
    assert renew(gateway, pump.name) == Outcome(renewed=[pump.name], waiting=[pump.name])
    both = pump.serials
    for _ in range(2):
        assert renew(gateway) == Outcome(waiting=[pump.name])
    gateway("systemctl restart mosquitto.service")
    pump.moves(*FROM_THE_BROKER)
    assert renew(gateway) == Outcome(retired=[pump.name])
    assert pump.serials == both[:1]


def test_a_device_that_asks_twice_costs_one_certificate_and_one_that_lost_its_key_a_second(
    gateway: Gateway, pump: Device
) -> None:
    pump.asks()
    renew(gateway, pump.name)
    pump.gateway.elsewhere("device", f"mv {pump.flash}/next/key.pem /root/key && rm -rf {pump.flash}/next/*")
    pump.gateway.elsewhere("device", f"mv /root/key {pump.flash}/next/key.pem")
    pump.wakes("--ask")
    assert renew(gateway, pump.name) == Outcome(waiting=[pump.name])
    assert len(pump.serials) == 2
    pump.wakes("--ask", "--forget")
    assert renew(gateway, pump.name) == Outcome(renewed=[pump.name], waiting=[pump.name])
    newest, *others = pump.serials
    pump.moves(*FROM_THE_BROKER)
    assert renew(gateway) == Outcome(retired=[pump.name])
    assert pump.serials == (newest,)
    revoked = vaults.open_pki(gateway.checkout.site).revoked()
    assert [revoked[int(serial, 16)].reason for serial in others] == ["superseded"] * 2


@pytest.mark.parametrize(("when", "then"), [("received", FROM_THE_BROKER), ("stored", ()), ("connected", ())])
def test_a_device_that_loses_power_goes_on_with_what_it_has_and_moves(
    gateway: Gateway, pump: Device, when: str, then: tuple[str, ...]
) -> None:
    pump.asks()
    renew(gateway, pump.name)
    (new, old) = pump.serials
    cut = pump.wakes("--awake", "5", "--dies", when)
    assert cut["serial"] == old and cut["did"][-1] == when  # type: ignore[index]
    assert renew(gateway) == Outcome(waiting=[pump.name]), "it has not said that it has moved"
    pump.moves(*then)
    assert renew(gateway) == Outcome(retired=[pump.name])
    assert pump.serials == (new,)


def test_an_operator_who_loses_power_finishes_with_the_next_run(gateway: Gateway, pump: Device) -> None:
    pump.asks()
    with mock.patch.object(renewals._Gateway, "_put", side_effect=RemoteError("gone")):
        assert renew(gateway, pump.name).away == ["gone (run this again)"]
    assert len(pump.serials) == 2, "the registry knows a certificate before a device can"
    assert renew(gateway) == Outcome(renewed=[pump.name], waiting=[pump.name])
    newest, *_ = pump.serials
    pump.moves(*FROM_THE_BROKER)
    with mock.patch.object(renewals, "update_revoked", side_effect=RemoteError("gone")):
        assert renew(gateway).away == ["gone (run this again)"]
    assert len(pump.serials) == 3, "the registry forgets a certificate after the broker refuses it"
    assert renew(gateway) == Outcome(retired=[pump.name])
    assert pump.serials == (newest,)


def test_bad_wishes_are_refused_one_line_each_and_a_good_one_is_met(
    gateway: Gateway, make: Callable[[str], Device]
) -> None:
    liar, weak, good = make("liar-91"), make("weak-92"), make("good-93")
    liar.asks("--as", good.name)
    weak.asks("--rsa", "1024")
    good.asks()
    outcome = renew(gateway, liar.name, weak.name, good.name)
    assert outcome.renewed == [good.name]
    assert len(outcome.refused) == 2
    assert f"the request is for 'CN={good.name}'" in outcome.refused[0]
    assert "RSA key of 1024 bits" in outcome.refused[1]
    assert [len(device.serials) for device in (liar, weak, good)] == [1, 1, 2]
    done = gateway.checkout.invoke("renew")
    assert done.status == 1
    assert f"refused: {liar.name}: " in done.out


def test_a_device_in_quarantine_gets_nothing_until_it_is_released(gateway: Gateway, pump: Device) -> None:
    with pump.registry.transaction() as registry:
        registry.change(pump.name, hardware_address="02:00:00:00:90:90")
    pump.asks()
    devices.quarantine(gateway.checkout.site, [pump.name], print)
    outcome = renew(gateway, pump.name)
    assert not outcome.renewed
    assert len(pump.serials) == 1
    devices.release(gateway.checkout.site, [pump.name], print)
    assert renew(gateway, pump.name) == Outcome(renewed=[pump.name], waiting=[pump.name])


def test_another_devices_session_lasts_while_one_is_renewed(gateway: Gateway, make: Callable[[str], Device]) -> None:
    pump, other = make("pump-90"), make("other-91")
    said = f"{other.flash}/said"
    listening = (
        f"cd {other.flash} && exec stdbuf -oL mosquitto_sub -d -h 10.10.10.1 -p 8883"
        f" --cafile ca.pem --cert certificate.pem --key key.pem -i {other.name} -t devices/{other.name}/commands/#"
    )
    pid = gateway.elsewhere("device", f"sh -c '{listening}' >{said} 2>&1 </dev/null & echo $!").strip()
    wait(lambda: "SUBACK" in gateway.elsewhere("device", f"cat {said}"), "the other device's session", 10)
    pump.asks()
    renew(gateway, pump.name)
    pump.moves(*FROM_THE_BROKER)
    assert renew(gateway) == Outcome(retired=[pump.name])
    assert gateway.elsewhere("device", f"grep -c CONNACK {said}").strip() == "1", "it had to connect again"
    gateway.elsewhere("device", f"kill {pid}")


def test_who_is_due_and_silent_is_named(gateway: Gateway, make: Callable[[str], Device]) -> None:
    due, young = make("due-94"), make("young-95")
    due.becomes_due()
    assert renew(gateway) == Outcome(silent=[due.name])
    assert renew(gateway, young.name) == Outcome(silent=[young.name])
    with pytest.raises(devices.DeviceError, match="nobody-96: no such device"):
        renew(gateway, "nobody-96")


def test_the_gateway_tells_when_a_device_was_last_seen(gateway: Gateway, make: Callable[[str], Device]) -> None:
    heard, silent = make("heard-96"), make("silent-97")
    began = datetime.now(UTC) - timedelta(seconds=1)
    assert heard.is_let_in()
    moments, notes = last_seen(gateway.checkout.site)
    assert began <= moments[heard.name] <= datetime.now(UTC)
    assert silent.name not in moments
    assert [note.partition(" since ")[0] for note in notes][0].endswith("not seen")
