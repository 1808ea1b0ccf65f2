"""What the kit takes from a real broker's retained messages, and puts there, with the role's own rights."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatehouse.identity.pki import Credential
from gatehouse.identity.renewal import certificate_topic, request_topic, serial_topic
from roles.mosquitto import exchange
from roles.target import Target
from tests.roles.broker import NOT_AUTHORISED, Broker, free_port, running

PROGRAM = Path(exchange.__file__)


@pytest.fixture(scope="module")
def target(programs: Callable[..., None], gateway_of: Callable[..., Target]) -> Target:
    programs("mosquitto", "mosquitto")
    return gateway_of(iot={"ipv4": "127.0.0.1/8"}, settings={"mosquitto": {"ports": {"mqtts": free_port()}}})


@pytest.fixture(scope="module")
def broker(target: Target) -> Iterator[Broker]:
    with running(target) as started:
        yield started


@pytest.fixture(scope="module")
def control(target: Target) -> Credential:
    return target.pki.ephemeral_client("gatehouse-control")


@pytest.fixture(scope="module")
def kitchen(target: Target) -> Credential:
    return target.pki.device("kitchen-01")


def run(
    broker: Broker, credential: Credential, look: list[str] | None = None, put: dict[str, str] | None = None
) -> tuple[dict[str, str], str]:
    """Runs it as on a gateway; returns what it found, and what it said on standard error."""
    request: dict[str, Any] = {
        "chain": credential.chain_pem.decode(),
        "key": credential.private_key_pem.decode(),
        "listeners": [["127.0.0.1", broker.port]],
        "look": look or [],
        "put": put or {},
    }
    done = subprocess.run([sys.executable, str(PROGRAM)], input=json.dumps(request), capture_output=True, text=True)
    assert done.returncode == (1 if done.stderr else 0)
    return json.loads(done.stdout) if done.stdout else {}, done.stderr


def publish(broker: Broker, credential: Credential, *messages: tuple[str, bytes]) -> list[int]:
    """Retained, by the device itself; the broker's reason codes."""
    codes = []
    with broker.client(credential) as client:
        for topic, payload in messages:
            client.paho.publish(topic, payload, qos=1, retain=True)
            codes.append(client._answer("publish"))
    return codes


def test_what_devices_ask_and_report_is_found_and_an_answer_reaches_the_one_that_asked(
    broker: Broker, kitchen: Credential, control: Credential
) -> None:
    asked, reported, answer = (of("kitchen-01") for of in (request_topic, serial_topic, certificate_topic))
    assert max(publish(broker, kitchen, (asked, b"please"), (reported, b"1f"))) < 128
    assert run(broker, control, look=[asked, reported, answer]) == ({asked: "please", reported: "1f"}, "")
    assert run(broker, control, put={answer: "here you are"}) == ({}, "")
    assert run(broker, control, look=[answer]) == ({answer: "here you are"}, "")
    with broker.client(kitchen) as device:
        device.subscribe(answer)
        assert device.next_message() == (answer, b"here you are")
    assert run(broker, control, put={answer: ""}, look=[answer]) == ({}, "")


def test_a_device_asks_for_nobody_else_and_reads_nobody_elses_answer(
    broker: Broker, target: Target, kitchen: Credential, control: Credential
) -> None:
    other = target.pki.device("pump-02")
    assert publish(broker, other, (request_topic("kitchen-01"), b"x"), (serial_topic("pump-02"), b"2")) == [
        NOT_AUTHORISED,
        16,
    ]
    run(broker, control, put={certificate_topic("kitchen-01"): "mine", certificate_topic("pump-02"): "theirs"})
    with broker.client(other) as device:
        device.subscribe("devices/+/commands/identity/certificate")
        assert device.next_message() == (certificate_topic("pump-02"), b"theirs")
        assert device.messages.empty()


def test_who_may_not_put_or_look_learns_nothing_and_changes_nothing(
    broker: Broker, kitchen: Credential, control: Credential
) -> None:
    answer = certificate_topic("pump-02")
    run(broker, control, put={answer: "theirs"})
    found, said = run(broker, kitchen, put={answer: "forged"})
    assert (found, said) == ({}, f"mosquitto-exchange: the broker refuses a message on {answer} with reason code 135\n")
    assert run(broker, kitchen, look=[answer]) == ({}, "")
    assert run(broker, control, look=[answer]) == ({answer: "theirs"}, "")


def test_a_broker_that_does_not_let_it_in_or_is_not_there_gives_one_line(broker: Broker, target: Target) -> None:
    expired = target.pki.ephemeral_server("not-a-client")
    _, said = run(broker, expired, look=["x"])
    assert said.startswith("mosquitto-exchange: ") and said.count("\n") == 1
    nowhere = Broker(target, broker.place, free_port(), broker.process)
    _, said = run(nowhere, target.pki.ephemeral_client("gatehouse-control"))
    assert "the broker can't be reached" in said and said.count("\n") == 1


def test_the_messages_of_two_thousand_devices_are_all_found(
    broker: Broker, target: Target, control: Credential
) -> None:
    names = [f"many-{number}" for number in range(2000)]
    texts = {certificate_topic(name): f"{name} " * 150 for name in names}
    assert run(broker, control, put=texts) == ({}, "")
    asked = [topic for name in names for topic in (request_topic(name), certificate_topic(name))]
    found, said = run(broker, control, look=asked)
    assert (found == texts, said) == (True, "")


def test_a_text_that_is_too_long_comes_cut_and_strange_bytes_do_not_stop_the_others(
    broker: Broker, kitchen: Credential, control: Credential
) -> None:
    asked, reported = request_topic("kitchen-01"), serial_topic("kitchen-01")
    assert max(publish(broker, kitchen, (asked, b"y" * 60_000), (reported, b"\xff\x00\xfe"))) < 128
    found, _ = run(broker, control, look=[asked, reported])
    assert found == {asked: "y" * exchange.LONGEST, reported: "\ufffd\0\ufffd"}


@given(st.binary(max_size=300), st.integers(0, 255))
def test_a_packet_is_read_back_as_it_was_written_and_only_when_it_is_all_there(body: bytes, kind: int) -> None:
    whole = exchange.packet(kind, body)
    assert exchange.unpacked(whole + b"rest") == (kind, body, b"rest")
    assert all(exchange.unpacked(whole[:end]) is None for end in range(len(whole)))
