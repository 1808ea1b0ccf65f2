"""The role's own configuration, judged by the real broker: who gets in, and what they may do there."""

from __future__ import annotations

import json
import queue
import ssl
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gatehouse.identity.pki import Credential, Pki
from gatehouse.proof.probes.mqtt import Session
from roles.mosquitto import disconnect, service
from roles.mosquitto import files as rendered
from roles.target import Target
from tests.roles.broker import NOT_AUTHORISED, SECONDS, Broker, free_port, running

LOOPBACK = {"ipv4": "127.0.0.1/8", "ipv6": "::1/64"}


@pytest.fixture(scope="module")
def target(programs: Callable[..., None], gateway_of: Callable[..., Target]) -> Target:
    programs("mosquitto", "mosquitto")
    return gateway_of(
        iot=LOOPBACK, settings={"mosquitto": {"ports": {"mqtts": free_port()}}}, broker={"max_packet_bytes": 4096}
    )


@pytest.fixture(scope="module")
def stolen(target: Target) -> Credential:
    """A device's certificate that is revoked before the broker starts."""
    credential = target.pki.device("stolen-01")
    target.pki.revoke(credential.serial, "keyCompromise")
    return credential


@pytest.fixture(scope="module")
def broker(target: Target, stolen: Credential) -> Iterator[Broker]:
    with running(target) as started:
        yield started


@pytest.fixture(scope="module")
def kitchen(target: Target) -> Credential:
    return target.pki.device("kitchen-01")


@pytest.fixture(scope="module")
def pump(target: Target) -> Credential:
    return target.pki.device("pump-02")


@pytest.fixture(scope="module")
def intake(target: Target) -> Credential:
    return target.pki.ephemeral_client("gatehouse-intake")


@pytest.fixture(scope="module")
def control(target: Target) -> Credential:
    return target.pki.ephemeral_client("gatehouse-control")


# Who gets in


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_device_with_its_certificate_gets_in_at_every_address(
    broker: Broker, kitchen: Credential, address: str
) -> None:
    assert broker.lets_in(kitchen, at=address)
    assert not broker.lets_in(None, at=address)


def test_a_revoked_certificate_is_refused_and_the_same_device_gets_in_with_a_new_one(
    broker: Broker, stolen: Credential
) -> None:
    assert not broker.lets_in(stolen)
    assert broker.lets_in(broker.target.pki.device("stolen-01"))


def test_the_twin_of_a_revoked_certificate_is_refused_as_it_is_itself(broker: Broker, stolen: Credential) -> None:
    assert not broker.lets_in(broker.target.pki.twin("stolen-01", stolen.serial))


@pytest.fixture
def disconnecting(broker: Broker) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs what the gateway runs: ends the session of a name, once these certificates were refused."""

    def run(name: str, *refused: Credential) -> subprocess.CompletedProcess[str]:
        def shown(given: Credential) -> dict[str, str]:
            return {"chain": given.chain_pem.decode(), "key": given.private_key_pem.decode()}

        request = {
            **shown(broker.target.pki.ephemeral_client(name)),
            "listeners": [["127.0.0.1", broker.port]],
            "refused": [shown(given) for given in refused],
        }
        command = [sys.executable, disconnect.__file__]
        return subprocess.run(command, input=json.dumps(request), capture_output=True, text=True, timeout=30)

    return run


def test_a_revoked_device_is_shown_to_be_refused_and_its_session_ends(
    broker: Broker, kitchen: Credential, stolen: Credential, disconnecting: Callable[..., Any]
) -> None:
    with broker.client(kitchen) as client, broker.client(broker.target.pki.device("other-01")) as other:
        assert disconnecting("kitchen-01", broker.target.pki.twin("stolen-01", stolen.serial)).returncode == 0
        client.ended.get(timeout=SECONDS)
        assert other.publish("devices/other-01/status") in (0, 16)


def test_a_certificate_that_is_still_taken_is_told_and_no_session_ends(
    broker: Broker, kitchen: Credential, disconnecting: Callable[..., Any]
) -> None:
    with broker.client(kitchen) as client:
        done = disconnecting("kitchen-01", broker.target.pki.device("not-revoked-01"))
        assert done.returncode == 1
        assert done.stderr.endswith("still takes the revoked certificate\n")
        assert client.publish("devices/kitchen-01/status") in (0, 16)


def test_an_expired_certificate_is_refused(broker: Broker) -> None:
    now, day = datetime.now(UTC), timedelta(days=1)
    expired = broker.target.pki.ephemeral_client("old-01", not_before=now - 2 * day, not_after=now - day)
    assert not broker.lets_in(expired)
    assert broker.lets_in(broker.target.pki.ephemeral_client("old-01", not_before=now - day, not_after=now + day))


def test_a_certificate_of_another_site_is_refused(
    broker: Broker, kitchen: Credential, new_pki: Callable[[], Pki]
) -> None:
    stranger = new_pki().device(kitchen.name)
    assert not broker.lets_in(stranger)
    assert broker.lets_in(kitchen)


def test_a_service_is_no_device(broker: Broker, kitchen: Credential) -> None:
    server = broker.target.pki.server("other", dns_names=["other.test.internal"])
    assert not broker.lets_in(server)
    assert broker.lets_in(kitchen)


def test_no_older_tls_is_spoken(broker: Broker, kitchen: Credential) -> None:
    older = broker.context(kitchen)
    older.maximum_version = ssl.TLSVersion.TLSv1_2
    assert not broker.lets_in(kitchen, older)
    assert broker.lets_in(kitchen)


def test_no_device_gets_a_ticket_that_a_key_of_the_broker_opens_for_as_long_as_it_runs(
    gateway_of: Callable[..., Target],
) -> None:
    """Beside it, the same broker with OpenSSL as it comes gives some."""

    def tickets(broker: Broker) -> list[bool]:
        shown = broker.target.pki.ephemeral_client("kitchen-01")
        server = {"address": "127.0.0.1", "port": broker.port, "chain": shown.chain_pem.decode()}
        server |= {"key": shown.private_key_pem.decode()}
        sessions = [Session().connect({**server, "maximum": most}, "kitchen-01", None) for most in ("1.2", "1.3")]
        assert [session["outcome"] for session in sessions] == ["accepted", "accepted"]
        return [session["ticket"] for session in sessions]

    settings = {"mosquitto": {"ports": {"mqtts": free_port()}}}
    target = gateway_of(iot=LOOPBACK, settings=settings, broker={"tls": "1.2"})
    with running(target) as broker:
        assert tickets(broker) == [False, False]
    with running(target, openssl="/dev/null") as broker:
        assert tickets(broker) == [True, True]


def test_where_the_site_allows_tls_1_2_it_is_spoken_with_modern_suites_only(
    target: Target, gateway_of: Callable[..., Target], kitchen: Credential
) -> None:
    settings = {"mosquitto": {"ports": {"mqtts": free_port()}}}
    with running(
        gateway_of(iot={"ipv4": "127.0.0.1/8"}, settings=settings, broker={"tls": "1.2"}, pki=target.pki)
    ) as older:
        context = older.context(kitchen)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        assert older.lets_in(kitchen, context)
        context.set_ciphers("ECDHE-ECDSA-AES128-SHA256")
        assert not older.lets_in(kitchen, context)
        context = older.context(kitchen)
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
        assert not older.lets_in(kitchen, context)
        assert older.lets_in(kitchen)


# What a device may do


def test_what_a_device_publishes_under_its_name_arrives(
    broker: Broker, kitchen: Credential, intake: Credential
) -> None:
    with broker.client(intake) as listening, broker.client(kitchen) as device:
        listening.subscribe("devices/+/telemetry/#")
        listening.subscribe("devices/+/status")
        assert device.publish("devices/kitchen-01/telemetry/climate", b"21.5") == 0
        assert listening.next_message() == ("devices/kitchen-01/telemetry/climate", b"21.5")
        assert device.publish("devices/kitchen-01/status", b"online") == 0
        assert listening.next_message() == ("devices/kitchen-01/status", b"online")


def test_a_device_publishes_nowhere_else(broker: Broker, kitchen: Credential, intake: Credential) -> None:
    with broker.client(intake) as listening, broker.client(kitchen) as device:
        listening.subscribe("#")
        for topic in (
            "devices/pump-02/telemetry/climate",
            "devices/pump-02/status",
            "devices/pump-02/commands/open",
            "devices/kitchen-01/commands/open",
            "devices/kitchen-01",
            "devices/telemetry",
            "kitchen-01",
            "$SYS/broker/version",
        ):
            assert device.publish(topic) == NOT_AUTHORISED, topic
        assert device.publish("devices/kitchen-01/telemetry/last") == 0
        assert listening.next_message()[0] == "devices/kitchen-01/telemetry/last"


def test_a_device_reads_its_own_commands_and_nothing_else(
    broker: Broker, kitchen: Credential, pump: Credential, control: Credential
) -> None:
    with broker.client(kitchen) as device, broker.client(pump) as other, broker.client(control) as commanding:
        for topic in ("#", "$SYS/#", "devices/pump-02/#"):
            device.subscribe(topic)
        assert other.publish("devices/pump-02/telemetry/flow") in (0, 16)
        assert device.publish("devices/kitchen-01/telemetry/climate") in (0, 16)
        assert commanding.publish("devices/pump-02/commands/open") in (0, 16)
        assert commanding.publish("devices/kitchen-01/commands/light", b"on") == 0
        assert device.next_message() == ("devices/kitchen-01/commands/light", b"on")
        with pytest.raises(queue.Empty):
            device.messages.get_nowait()


def test_a_device_can_not_take_over_the_session_of_another_by_its_identifier(
    broker: Broker, kitchen: Credential, pump: Credential, control: Credential
) -> None:
    with broker.client(kitchen) as device, broker.client(control) as commanding:
        device.subscribe("devices/kitchen-01/commands/#")
        with broker.client(pump, identifier="kitchen-01") as thief:
            thief.subscribe("devices/kitchen-01/commands/#")
            assert commanding.publish("devices/kitchen-01/commands/light") == 0
            assert device.next_message()[0] == "devices/kitchen-01/commands/light"
            assert thief.publish("devices/kitchen-01/telemetry/climate") == NOT_AUTHORISED
            assert thief.messages.empty()
        assert device.ended.empty()


@pytest.mark.parametrize("name", ["admin", "root", "gatehouse", "gatehouse-intake-2"])
def test_a_name_that_sounds_important_is_worth_nothing(broker: Broker, kitchen: Credential, name: str) -> None:
    with broker.client(broker.target.pki.ephemeral_client(name)) as client:
        assert client.publish("devices/kitchen-01/commands/open") == NOT_AUTHORISED
        assert client.publish(f"devices/{name}/status") in (0, 16)


def test_a_packet_over_the_limit_ends_the_connection(broker: Broker, kitchen: Credential) -> None:
    with broker.client(kitchen) as device:
        assert device.publish("devices/kitchen-01/telemetry/blob", bytes(3_900)) in (0, 16)
        device.paho.publish("devices/kitchen-01/telemetry/blob", bytes(4_100), qos=1)
        assert device.ended.get(timeout=SECONDS) != 0


# What is rendered


def listeners(target: Target) -> list[str]:
    (file,) = (file for file in rendered.configuration(target) if file.path == rendered.CONFIGURATION)
    return [line for line in file.content.decode().splitlines() if line.startswith("listener")]


def test_a_site_without_ipv6_has_one_listener_and_a_certificate_for_it(gateway_of: Callable[..., Target]) -> None:
    target = gateway_of(iot={"ipv4": "10.10.10.1/24"})
    assert rendered.addresses(target) == ["10.10.10.1"]
    assert listeners(target) == ["listener 8883 10.10.10.1"]
    assert rendered.credentials(target) == rendered.credentials(target)


def test_a_broker_that_no_segment_may_reach_listens_on_loopback_and_not_in_the_clear(
    gateway_of: Callable[..., Target],
) -> None:
    target = gateway_of(settings={"mosquitto": {"reachable_from": {"mqtts": ()}}})
    assert listeners(target) == ["listener 8883 127.0.0.1"]


def test_ten_thousand_devices_need_no_other_configuration_than_none(gateway_of: Callable[..., Target]) -> None:
    many = [{"name": f"meter-{n:05}", "model": "meter", "gateway": "gw"} for n in range(10_000)]
    assert rendered.configuration(gateway_of(devices=many)) == rendered.configuration(gateway_of())


def test_every_credential_is_for_the_broker_alone(gateway_of: Callable[..., Target]) -> None:
    files = rendered.credentials(gateway_of())
    assert {(f.owner, f.group, f.mode) for f in files} == {("root", service.user, 0o640)}
    assert not any(b"PRIVATE KEY" in f.content for f in files if not f.path.endswith("/server.key"))
