"""Alerts on a live gateway: what is caused is heard by who listens at the broker, and so is its end."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from typing import Any

import pytest

import lab
from deploy import vaults
from gatehouse.identity.pins import broker_host
from gatehouse.proof.credentials import PROBE, Shown
from gatehouse.site.alerts import topic
from lab import simulator
from roles.alerts import files
from roles.intake.files import CONNECTED, METRICS
from roles.mosquitto import files as mosquitto
from roles.target import Target
from tests.compliance.alerts import LISTENER
from tests.lab.gateways import Gateway, wait

pytestmark = pytest.mark.timeout(300)

HEARD = "/run/alerts-heard.jsonl"
LISTEN = "alerts-listener.service"
INTAKE = "gatehouse-intake.service"
SETTINGS = "/etc/gatehouse/verify.json"
# On the gateway, with the kit's own library: hears all alerts from now on; is a device that sends what is no message.
START = """
import json, os, ssl, sys
sys.path.insert(0, "/usr/lib/gatehouse/python")
given = json.load(sys.stdin)
for name, text in given["files"].items():
    with open(os.open(f"/run/alerts-{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
"""
HEAR = (
    START
    + """
from gatehouse.messages.mqtt import Subscriber
tls = ssl.create_default_context(cafile="/run/alerts-ca")
tls.load_cert_chain("/run/alerts-listener")
subscriber = Subscriber((given["address"], given["port"]), tls, given["name"], given["client"], 100, 65536)
subscriber.connect([given["topic"]])
with open(given["heard"], "w", buffering=1) as out:
    print("null", file=out)
    while True:
        for came in subscriber.read(1):
            print(came.payload.decode(), file=out)
            subscriber.acknowledge([came.number])
"""
)
BABBLE = (
    START
    + """
from gatehouse.alerts.ways import Mqtt
place = [given[key] for key in ("address", "port", "name")]
device = Mqtt(*place, "/run/alerts-ca", "/run/alerts-device", f"devices/{given['device']}/telemetry/t")
number, size = given["much"]
print(sum(1 for _ in device.send([b"no message"[:size].ljust(size, b".")] * number)))
"""
)
# Two with one certificate, at two addresses, who both want to stay; and one that is where it belongs.
TWICE = """
umask 077; mkdir -p /run/twice; cd /run/twice
python3 -c 'import json, sys; [open(name, "w").write(text) for name, text in json.load(sys.stdin).items()]'
for address in $1; do ip address add $address/24 dev eth0 2>/dev/null || true; done
as() {{ timeout 6 mosquitto_sub -h {host} -p {port} --cafile ca --cert $1 --key $1 -A $2 -t devices/$1/commands/x; }}
as kitchen-01 {at} & sleep 1; as kitchen-01 {elsewhere} & as pump-02 {pump} & wait
ip address delete {elsewhere}/24 dev eth0; ip address delete {pump}/24 dev eth0; rm -rf /run/twice
"""
# Clients that show no certificate, more than the broker is asked to put up with.
KNOCK = """
import socket, ssl, sys
tls = ssl.create_default_context()
tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
for _ in range(25):
    try:
        with socket.create_connection((sys.argv[1], int(sys.argv[2])), 5) as wire, tls.wrap_socket(wire) as session:
            session.recv(1)
    except OSError:
        pass
"""


@pytest.fixture
def place(gateway: Gateway) -> dict[str, Any]:
    """Where the broker is, who listens there, and which device babbles."""
    site = gateway.checkout.site
    pki = vaults.open_pki(site)
    target = Target(site, gateway.host, lambda: pki)
    shown = {"listener": Shown.of(pki.ephemeral_client(LISTENER)), "device": Shown.of(pki.ephemeral_client(PROBE))}
    return {
        "address": mosquitto.addresses(target)[0],
        "port": site.listener("mosquitto", "mqtts").port,
        "name": broker_host(site),
        "client": LISTENER,
        "device": PROBE,
        "topic": topic(gateway.host),
        "heard": HEARD,
        "much": (12, 10),
        "files": {
            "ca": pki.trust_anchor.decode(),
            **{name: "".join(asdict(each).values()) for name, each in shown.items()},
        },
    }


@pytest.fixture
def listening(gateway: Gateway, place: dict[str, Any]) -> Iterator[Gateway]:
    """The gateway, with somebody who listens to its alerts."""
    run = f"systemd-run --quiet --collect --pipe --unit={LISTEN} python3 -I -c {shlex.quote(HEAR)}"
    started = lab.run(
        gateway.name, gateway.host,
        ["sh", "-c", f"umask 077; rm -f {HEARD}; cat >/run/alerts-given; ({run} </run/alerts-given >/dev/null 2>&1 &)"],
        stdin=json.dumps(place).encode(),
    )  # fmt: skip
    assert started.returncode == 0, started.stderr
    try:
        gateway.until(f"[ -s {HEARD} ]", 20)
        yield gateway
    finally:
        gateway(f"systemctl stop {LISTEN} 2>/dev/null; rm -f /run/alerts-*; true")


def heard(gateway: Gateway) -> list[tuple[str, str, str]]:
    """State, kind and subject of what was heard so far; what came twice has one number, and is one."""
    lines = [json.loads(line) for line in gateway(f"cat {HEARD}").splitlines()[1:]]
    told = {each.get("number", place): each for place, each in enumerate(lines, start=-len(lines))}
    return [(each["state"], each["alert"], each.get("about", "")) for each in told.values()]


def subjects(gateway: Gateway) -> set[tuple[str, str]]:
    """Kind and subject of it."""
    return {each[1:] for each in heard(gateway)}


def rejected(gateway: Gateway, device: str = PROBE) -> int:
    """The messages of the babbling device, or of another, that the intake has rejected since it started."""
    line = f'gatehouse_intake_rejected_total{{device="{device}"}} '
    return int(gateway(f"grep -F {shlex.quote(line)} {METRICS} || echo 0").split()[-1])


def babble(gateway: Gateway, place: dict[str, Any]) -> None:
    """Has the device of `place` send what is no message; returns when the intake has written down that it came."""
    device, (number, _) = place["device"], place["much"]
    known = rejected(gateway, device)
    done = lab.run(gateway.name, gateway.host, ["python3", "-I", "-c", BABBLE], stdin=json.dumps(place).encode())
    assert (done.returncode, done.stdout.strip()) == (0, str(number)), done.stderr
    counted = partial(rejected, gateway, device)
    wait(lambda: counted() == known + number, f"all {number} of {device} are counted", 30, lambda: str(counted()))


def judge(gateway: Gateway) -> None:
    """Reads the gateway's numbers and judges them, now."""
    gateway(f"systemctl start gatehouse-collector.service; systemctl start {files.UNIT}")


def test_what_is_caused_is_heard_once_is_listed_and_its_end_is_heard(listening: Gateway, place: dict[str, Any]) -> None:
    listening.is_hardened = False
    judge(listening)
    babble(listening, place)
    listening(f"python3 -I -c {shlex.quote(KNOCK)} {place['address']} {place['port']}")
    listening(f"mv {SETTINGS} {SETTINGS}.away; ! systemctl start gatehouse-verify.service")
    caused = {
        ("rejected-messages", PROBE),
        ("broker-refusals", "handshake"),
        ("unit", "gatehouse-verify.service"),
        ("restart", INTAKE),
    }
    try:
        judge(listening)
        # What it had counted it takes along.
        restarts = int(listening(f"systemctl show -P NRestarts {INTAKE}"))
        listening(f"systemctl kill --signal=KILL {INTAKE}")
        listening.until(f"[ $(systemctl show -P NRestarts {INTAKE}) -gt {restarts} ]", 20)
        judge(listening)
        wait(lambda: caused <= subjects(listening), "all is heard", 30, lambda: str(heard(listening)))
        raised = [each for each in heard(listening) if each[0] == "raised" and each[1:] in caused]
        assert sorted(raised) == sorted(("raised", *each) for each in caused), "each once"
        listed = listening.checkout.invoke("alerts", "--json")
        assert listed.status == 0, listed.text
        assert caused <= {(row["alert"], row["about"]) for row in json.loads(listed.out)}, listed.text
    finally:
        listening(f"mv {SETTINGS}.away {SETTINGS}; systemctl start gatehouse-verify.service")
    ended = {("ended", *each) for each in caused}

    def over() -> bool:
        judge(listening)
        return ended <= set(heard(listening))

    wait(over, "the end of all of it is heard", 60, lambda: str(heard(listening)))
    told = [each for each in heard(listening) if each[1:] in caused]
    assert len(told) == 2 * len(caused), told
    listening.stays_converged()


def test_what_nobody_takes_waits_and_is_told_when_the_broker_is_back(gateway: Gateway) -> None:
    gateway.is_hardened = False
    gateway("systemctl stop mosquitto.service")
    try:
        failed = gateway.ask(f"echo waiting >{files.TEST}; chmod 644 {files.TEST}; systemctl start {files.UNIT}")
        assert failed.returncode != 0, "a way that fails is seen in the unit"
        status = json.loads(gateway(f"cat {files.STATUS}"))
        assert status["waiting"] >= 1 and status["failing"] == 1
        listed = gateway.checkout.invoke("alerts")
        assert listed.status == 0 and "gateway: mqtt: " in listed.text and "wait since" in listed.text, listed.text
    finally:
        gateway("systemctl start mosquitto.service")
    gateway.until(f"systemctl start {files.UNIT}", 20)
    status = json.loads(gateway(f"cat {files.STATUS}"))
    assert (status["waiting"], status["failing"]) == (0, 0)
    gateway.stays_converged()


@pytest.fixture
def devices(gateway: Gateway) -> dict[str, str]:
    """What each of the lab's two devices shows: its certificate and its key."""
    simulator.stop(gateway.checkout.site)
    pki = vaults.open_pki(gateway.checkout.site)
    own = {name: pki.device(name, days=1) for name in ("kitchen-01", "pump-02")}
    return {name: (each.chain_pem + each.private_key_pem).decode() for name, each in own.items()}


def test_one_certificate_in_two_places_is_heard_and_a_device_where_it_belongs_is_not(
    listening: Gateway, place: dict[str, Any], devices: dict[str, str]
) -> None:
    listening.is_hardened = False
    kitchen, pump = (str(device.address) for device in listening.checkout.site.devices[:2])
    elsewhere = f"{kitchen.rpartition('.')[0]}.77"
    script = TWICE.format(host=place["name"], port=place["port"], at=kitchen, elsewhere=elsewhere, pump=pump)
    judge(listening)
    shown = json.dumps({"ca": place["files"]["ca"], **devices})
    done = lab.run(listening.name, "device", ["sh", "-c", script, "sh", f"{elsewhere} {pump}"], stdin=shown)
    assert done.returncode == 0, done.stderr
    log = "journalctl -q -o cat -u mosquitto.service --since -60s"
    assert "as pump-02 " in listening(f"{log} | grep -F 'connected from {pump}:'"), "it was there, too"
    judge(listening)
    caused = {("shared-certificate", "kitchen-01"), ("source-address", "kitchen-01")}
    wait(lambda: caused <= subjects(listening), "both are heard", 20, lambda: str(heard(listening)))
    texts = [json.loads(line) for line in listening(f"cat {HEARD}").splitlines()[1:]]
    assert any(kitchen in each["text"] and elsewhere in each["text"] for each in texts if "shared" in each["alert"])
    raised = {each[1:] for each in heard(listening) if each[0] == "raised"}
    assert not raised & {("shared-certificate", "pump-02"), ("source-address", "pump-02")}
    listening.stays_converged()


def test_a_device_that_sends_more_and_larger_messages_than_it_used_to_is_heard_and_another_is_not(
    listening: Gateway, place: dict[str, Any], devices: dict[str, str]
) -> None:
    listening.is_hardened = False
    # A past of three windows of three seconds, and not of a day.
    listening(f"cp -p {files.SETTINGS} {files.SETTINGS}.before")
    limits = {"window": 3, "learning": 9, "unusual_messages": 15, "rejected_messages": 1000}
    edited = json.loads(listening(f"cat {files.SETTINGS}"))
    edited["limits"] |= limits
    listening(f"printf %s {shlex.quote(json.dumps(edited))} >{files.SETTINGS}")

    def sends(name: str, number: int, size: int) -> None:
        shown = {**place["files"], "device": devices[name]}
        babble(listening, {**place, "device": name, "files": shown, "much": (number, size)})

    def learned() -> bool:
        judge(listening)
        known = json.loads(listening(f"cat {files.BOOK}"))["habits"]["devices"]
        return devices.keys() <= known.keys() and all(
            known[name][what]["number"] >= 3 for name in devices for what in ("rate", "size")
        )

    def usual() -> bool:
        for name in devices:
            sends(name, 2, 20)
        return learned()

    try:
        wait(usual, "both devices have a past", 60)
        assert not {each[0] for each in subjects(listening)} & {"unusual-rate", "unusual-size"}
        sends("kitchen-01", 200, 700)
        sends("pump-02", 2, 20)
        judge(listening)
        caused = {("unusual-rate", "kitchen-01"), ("unusual-size", "kitchen-01")}
        wait(lambda: caused <= subjects(listening), "both are heard", 20, lambda: str(heard(listening)))
        assert not {("unusual-rate", "pump-02"), ("unusual-size", "pump-02")} & subjects(listening)
    finally:
        listening(f"mv {files.SETTINGS}.before {files.SETTINGS}")
    listening.stays_converged()


@pytest.fixture
def by_hand(listening: Gateway) -> Iterator[Gateway]:
    """Readings are taken when the test says so, and devices are silent after five seconds."""
    timers = f"{files.TIMER} gatehouse-collector.timer"
    known = {name: {**each, "silent_after": 5} for name, each in json.loads(listening(f"cat {files.DEVICES}")).items()}
    listening.is_hardened = False
    listening(f"systemctl stop {timers}; cp -p {files.DEVICES} {files.DEVICES}.before")
    try:
        listening(f"printf %s {shlex.quote(json.dumps(known))} >{files.DEVICES}")
        yield listening
    finally:
        listening(f"mv {files.DEVICES}.before {files.DEVICES}; systemctl start {timers}")
    listening.stays_converged()


def test_a_device_that_falls_silent_is_heard_until_it_speaks_and_a_restart_of_the_gateway_s_is_nobody_s_silence(
    by_hand: Gateway, place: dict[str, Any], devices: dict[str, str]
) -> None:
    def speak(*names: str) -> None:
        for name in names:
            shown = {**place["files"], "device": devices[name]}
            babble(by_hand, {**place, "device": name, "files": shown, "much": (1, 10)})

    def told() -> list[tuple[str, str]]:
        return [(state, about) for state, kind, about in heard(by_hand) if kind == "silent-device"]

    speak(*devices)
    judge(by_hand)
    assert told() == []
    time.sleep(5)
    speak("pump-02")
    judge(by_hand)
    only = [("raised", "kitchen-01")]
    wait(lambda: told() == only, "the one that said nothing is heard", 20, lambda: str(heard(by_hand)))
    by_hand(f"systemctl restart {INTAKE}; {CONNECTED}")
    time.sleep(5)
    judge(by_hand)
    assert told() == only, "the other one said nothing either, but for a while nobody would have heard it"
    ended = [*only, ("ended", "kitchen-01")]

    def over() -> bool:
        speak(*devices)
        judge(by_hand)
        return told() == ended

    wait(over, "it speaks again", 60, lambda: str(heard(by_hand)))
