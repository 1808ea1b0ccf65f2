"""Devices that show a pre-shared key, at the real broker: who gets in, how it is encrypted, and what they may do."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import pytest

from gatehouse.identity import psk
from gatehouse.proof.probes.mqtt import Session
from gatehouse.site import Device
from roles.mosquitto import files as rendered
from roles.target import Target
from tests.roles.broker import NOT_AUTHORISED, Broker, free_port, running

LOOPBACK = {"ipv4": "127.0.0.1/8"}
NAMES = ("sensor-01", "sensor-02", "zero-03")
# A key that begins with zeros is one like any other.
ZEROS = "0000" + "5a" * 30


def site_of(gateway_of: Callable[..., Target], **more: object) -> Target:
    settings = {"mosquitto": {"ports": {"mqtts": free_port(), "psk": free_port()}}}
    devices = [
        Device(name=name, model="m", gateway="gw", authentication="psk", hmac_key=1).model_dump(exclude_none=True)
        for name in NAMES
    ]
    target = gateway_of(iot=LOOPBACK, settings=settings, psk=True, devices=devices, **more)
    for name in NAMES:
        target.pki.vault.set(psk.secret_name(name), psk.new_key().hex(), psk.KIND)
    target.pki.vault.set(psk.secret_name("zero-03"), ZEROS, psk.KIND)
    return target


@pytest.fixture(scope="module", params=["1.3", "1.2"])
def least(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def target(programs: Callable[..., None], gateway_of: Callable[..., Target], least: str) -> Target:
    programs("mosquitto", "mosquitto")
    return site_of(gateway_of, broker={"tls": least})


@pytest.fixture(scope="module")
def broker(target: Target) -> Iterator[Broker]:
    with running(target) as started:
        yield started


class Shown:
    """A device with a key, connected or refused: `outcome` is what became of it."""

    def __init__(self, broker: Broker, identity: str, key: str | None = None, maximum: str = "1.3", says: str = ""):
        port = broker.target.site.listener("mosquitto", "psk").port
        psk_hex = key or psk.key_of(broker.target.pki.vault, identity).hex()
        probe = {"address": "127.0.0.1", "port": port, "identity": identity, "psk": psk_hex, "maximum": maximum}
        self.session = Session()
        self.result = self.session.connect(probe, says, says or None)
        self.outcome = self.result["outcome"]


def test_a_device_gets_in_with_its_key(broker: Broker) -> None:
    for name in NAMES:
        assert Shown(broker, name).outcome == "accepted"


def test_no_session_gets_a_ticket_that_a_key_of_the_broker_opens(broker: Broker, least: str) -> None:
    sessions = [Shown(broker, "sensor-01", maximum=maximum) for maximum in ("1.2", "1.3")]
    taken = [session.result for session in sessions if session.outcome == "accepted"]
    assert [each["version"] for each in taken] == (["1.2", "1.3"] if least == "1.2" else ["1.3"])
    assert not any(each["ticket"] for each in taken)


def test_every_session_has_forward_secrecy(broker: Broker, least: str) -> None:
    newest = Shown(broker, "sensor-01").result
    # TLS 1.3 with a key alone, without (EC)DHE, is not what OpenSSL takes unless it is told to (RFC 8446 §4.2.9).
    assert (newest["version"], newest["cipher"]) == ("1.3", "TLS_CHACHA20_POLY1305_SHA256")
    older = Shown(broker, "sensor-01", maximum="1.2")
    if least == "1.2":
        assert (older.outcome, older.result["cipher"]) == ("accepted", "ECDHE-PSK-CHACHA20-POLY1305")
    else:
        assert older.outcome == "alert"


@pytest.mark.parametrize("maximum", ["1.3", "1.2"])
def test_a_wrong_key_an_unknown_name_and_anothers_name_are_refused(broker: Broker, maximum: str) -> None:
    other = psk.key_of(broker.target.pki.vault, "sensor-02").hex()
    for identity, key in (("sensor-01", "5a" * 32), ("sensor-01", other), ("nobody", other)):
        refused = Shown(broker, identity, key, maximum)
        assert refused.outcome == "alert", (identity, refused.result)
    assert Shown(broker, "sensor-01").outcome == "accepted"


def test_the_name_that_goes_with_the_key_decides_whatever_the_device_says(broker: Broker) -> None:
    device = Shown(broker, "sensor-01", says="sensor-02")
    assert device.outcome == "accepted"
    assert device.session.publish("devices/sensor-01/telemetry/t", b"x")["outcome"] == "taken"
    for topic in ("devices/sensor-02/telemetry/t", "devices/sensor-01/commands/c", "$SYS/x", "x"):
        assert device.session.publish(topic, b"x")["code"] == NOT_AUTHORISED, topic


def test_a_key_takes_over_no_session_of_another_device(broker: Broker) -> None:
    with broker.client(broker.target.pki.device("kitchen-01")) as other:
        assert Shown(broker, "sensor-01", says="kitchen-01").outcome == "accepted"
        assert other.publish("devices/kitchen-01/telemetry/t") in (0, 16)


def test_where_keys_are_asked_for_a_certificate_is_nothing_and_the_other_way_round(broker: Broker) -> None:
    certified = broker.target.pki.device("kitchen-01")
    port = broker.target.site.listener("mosquitto", "psk").port
    assert not Broker(broker.target, broker.place, port, broker.process).lets_in(certified)
    assert broker.lets_in(certified)
    key = psk.key_of(broker.target.pki.vault, "sensor-01").hex()
    probe = {"address": "127.0.0.1", "port": broker.port, "identity": "sensor-01", "psk": key}
    assert Session().connect(probe, "", None)["outcome"] == "alert"


def test_a_new_key_is_taken_after_a_reload_and_the_former_one_no_more(broker: Broker) -> None:
    vault = broker.target.pki.vault
    former, other = psk.key_of(vault, "sensor-01").hex(), Shown(broker, "sensor-02")
    vault.set(psk.secret_name("sensor-01"), psk.new_key().hex(), psk.KIND)
    reload(broker, psk.key_file(vault, broker.target.site.devices))
    assert Shown(broker, "sensor-01", former).outcome == "alert"
    assert Shown(broker, "sensor-01").outcome == "accepted"
    assert other.session.ping()["outcome"] == "answered"


def test_a_revoked_device_is_refused_and_its_session_ends_with_the_kits_own(broker: Broker) -> None:
    vault, devices = broker.target.pki.vault, broker.target.site.devices
    open_one, other = Shown(broker, "sensor-02"), Shown(broker, "zero-03")
    revoked = [d.model_copy(update={"status": "revoked"}) if d.name == "sensor-02" else d for d in devices]
    reload(broker, psk.key_file(vault, revoked))
    assert Shown(broker, "sensor-02").outcome == "alert"
    assert broker.lets_in(broker.target.pki.ephemeral_client("sensor-02"))
    assert open_one.session.ping()["outcome"] in ("ended", "cut")
    assert other.session.ping()["outcome"] == "answered"
    reload(broker, psk.key_file(vault, devices))
    assert Shown(broker, "sensor-02").outcome == "accepted"


def reload(broker: Broker, keys: bytes) -> None:
    (broker.place / "psk").write_bytes(keys)
    os.kill(broker.process.pid, signal.SIGHUP)
    assert broker.lets_in(broker.target.pki.ephemeral_client("gatehouse-test"))


def test_the_file_of_keys_has_those_of_the_gateways_own_devices_that_are_not_revoked(target: Target) -> None:
    devices = [
        device.model_copy(update={"status": status})
        for device, status in zip(target.site.devices, ("active", "revoked", "quarantined"), strict=True)
    ]
    names = [line.split(":")[0] for line in psk.key_file(target.pki.vault, devices).decode().splitlines()]
    assert names == [psk.PROBE, "sensor-01", "zero-03"]
    (file,) = (file for file in rendered.credentials(target) if file.path.endswith("/psk"))
    assert (file.group, file.mode) == ("mosquitto", 0o640)


def test_unless_the_site_says_so_there_is_no_such_listener(gateway_of: Callable[..., Target]) -> None:
    target = gateway_of(iot=LOOPBACK)
    assert rendered.keyed(target) == []
    assert "8884/tcp" in {f"{port.port}/{port.transport}" for port in target.site.service("mosquitto").closed}
    (configuration,) = (f for f in rendered.configuration(target) if f.path == rendered.CONFIGURATION)
    assert b"8884" not in configuration.content and b"psk" not in configuration.content
    (file,) = (file for file in rendered.credentials(target) if file.path.endswith("/psk"))
    assert file.content == b""
