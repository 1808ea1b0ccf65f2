"""Whatever dies: what the broker has accepted is stored, and stored once."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import lab
from deploy import vaults
from gatehouse.identity import Pki
from gatehouse.proof import stored
from gatehouse.proof.channel import START, asking, opening
from gatehouse.proof.expect import GATEWAY
from gatehouse.site import Site
from lab import simulator
from roles import influxdb
from tests import database
from tests.lab.gateways import Gateway, wait

pytestmark = pytest.mark.timeout(900)

STEWARD = "python3 -B /usr/lib/gatehouse/database"
METRICS = "/run/gatehouse-intake/metrics.prom"
# A device's name tells which fault it lived through; it reports nothing else.
SECONDS = 20


@pytest.fixture
def site(gateway: Gateway, reporting: tuple[str, ...]) -> Site:
    """The lab's, with the devices that report."""
    return gateway.checkout.site


@pytest.fixture
def pki(site: Site) -> Iterator[Pki]:
    yield vaults.open_pki(site)


def sequences(gateway: Gateway, site: Site, pki: Pki, device: str) -> list[int]:
    """The sequence numbers of all points that the database has of a device."""
    secret = gateway(f"cat {influxdb.credential(influxdb.DASHBOARDS)}").strip()
    probe = database.question(site, pki, secret, device, "seq", 60)
    sent = opening({}) + asking({GATEWAY: [probe]})
    done = lab.run(gateway.name, gateway.host, ["python3", "-I", "-c", START], stdin=sent)
    assert done.returncode == 0, done.stderr
    found = stored.answer(site.database.engine, json.loads(done.stdout.splitlines()[1])["results"][GATEWAY][0])
    assert found is not None, done.stdout[-300:]
    return [int(value) for value in found]


def points(gateway: Gateway, device: str) -> int:
    """How many points a query of the administrator's finds of a device."""
    return int(gateway(f"{STEWARD} count {device}"))


def counted(gateway: Gateway, name: str) -> float:
    lines = gateway(f"cat {METRICS}").splitlines()
    return float(next(line.rsplit(" ", 1)[1] for line in lines if line.startswith(f"gatehouse_intake_{name} ")))


def refused(gateway: Gateway, reason: str) -> float:
    return counted(gateway, f'refused_total{{reason="{reason}"}}')


def kill_the_intake(gateway: Gateway) -> None:
    for _ in range(4):
        gateway("systemctl kill --signal=KILL gatehouse-intake.service")
        time.sleep(3)


def take_the_database_away(gateway: Gateway) -> None:
    gateway("systemctl stop influxdb.service")
    time.sleep(8)
    gateway("systemctl start influxdb.service")


def kill_the_database(gateway: Gateway) -> None:
    gateway("systemctl kill --signal=KILL influxdb.service; sleep 1; systemctl start influxdb.service")


def restart_the_broker(gateway: Gateway) -> None:
    for _ in range(2):
        gateway("systemctl restart mosquitto.service")
        time.sleep(4)


def restart_the_gateway(gateway: Gateway) -> None:
    lab.restart(gateway.name, gateway.host)
    gateway.until("systemctl is-active --quiet gatehouse-intake.service", 90)


def everything_at_once(gateway: Gateway) -> None:
    gateway("systemctl stop influxdb.service")
    time.sleep(3)
    gateway("systemctl kill --signal=KILL gatehouse-intake.service")
    gateway("systemctl restart mosquitto.service")
    time.sleep(3)
    gateway("systemctl start influxdb.service")


@pytest.mark.parametrize(
    "fault",
    [
        kill_the_intake,
        take_the_database_away,
        kill_the_database,
        restart_the_broker,
        everything_at_once,
        restart_the_gateway,
    ],
    ids=lambda fault: fault.__name__,
)
def test_what_the_broker_accepted_is_stored_once(
    gateway: Gateway, site: Site, pki: Pki, reporting: tuple[str, ...], fault: Callable[[Gateway], None]
) -> None:
    before = {name: set(sequences(gateway, site, pki, name)) for name in reporting}
    with ThreadPoolExecutor(1) as pool:
        playing = pool.submit(
            simulator.play,
            site,
            pki,
            dict.fromkeys(reporting, "good"),
            interval=0.01,
            seconds=SECONDS,
            patience=90,
        )
        time.sleep(5)
        fault(gateway)
        played = playing.result()
    for name in reporting:
        accepted = {n for first, last in played[name]["acknowledged"] for n in range(first, last + 1)}
        assert len(accepted) == played[name]["sent"] > 500, "the devices were to go on until all was accepted"
        wait(
            lambda name=name, accepted=accepted: accepted <= set(sequences(gateway, site, pki, name)),
            f"{name}: all accepted messages stored",
            60,
        )
        points = [n for n in sequences(gateway, site, pki, name) if n not in before[name]]
        assert sorted(points) == sorted(accepted), "nothing twice, and nothing that was not sent"


def test_a_revoked_devices_messages_are_refused_at_once_and_without_a_restart(
    gateway: Gateway, site: Site, pki: Pki, reporting: tuple[str, ...]
) -> None:
    since = gateway("systemctl show -p ActiveEnterTimestampMonotonic gatehouse-intake.service")
    before = counted(gateway, "reloads_total")
    done = gateway.checkout.invoke("quarantine", "--name", reporting[0])
    assert done.status == 0, done.text
    wait(lambda: counted(gateway, "reloads_total") > before, "the keys were read again", 10)
    keys = gateway("cut -d' ' -f1 /etc/gatehouse/intake/keys").split()
    assert reporting[0] not in keys and reporting[1] in keys
    assert gateway.checkout.invoke("release", "--name", reporting[0]).status == 0
    wait(lambda: counted(gateway, "reloads_total") > before + 1, "the keys were read again", 10)
    assert gateway("systemctl show -p ActiveEnterTimestampMonotonic gatehouse-intake.service") == since


def test_what_misbehaving_devices_send_is_counted_by_its_reason_and_not_stored(
    gateway: Gateway, site: Site, pki: Pki, reporting: tuple[str, ...]
) -> None:
    for misbehaving in (
        {"tampered": "bad-signature", "unsigned": "form-not-allowed"},
        {"forged": "bad-signature", "late": "too-old"},
        {"replayed": "replay", "early": "from-the-future"},
        {"oversize": "too-large", "wrong-topic": "wrong-topic"},
    ):
        before = {reason: refused(gateway, reason) for reason in misbehaving.values()}
        stored_before = counted(gateway, "stored_total")
        played = simulator.play(site, pki, dict(zip(reporting, misbehaving, strict=True)), interval=0.02, messages=5)
        assert [each["sent"] for each in played.values()] == [5, 5]
        accepted = [sum(1 + last - first for first, last in each["acknowledged"]) for each in played.values()]
        assert accepted == [10 if how == "replayed" else 5 for how in misbehaving]
        for reason, number in before.items():
            # More than five where a connection was lost: what nobody acknowledged is delivered again.
            wait(
                lambda reason=reason, number=number: refused(gateway, reason) >= number + 5,
                f"{reason}: five",
                15,
                lambda number=number: f"{number} before; {gateway(f'cat {METRICS}; systemctl status mosquitto | cat')}",
            )
        # Of what is replayed the first is good; the database may take the last of it a moment later.
        good = stored_before + 5 * ("replayed" in misbehaving)
        wait(lambda good=good: counted(gateway, "stored_total") >= good, "what is good is stored", 15)
        assert counted(gateway, "stored_total") == good


def test_two_devices_that_flood_are_stored_whole_in_bounded_memory(
    gateway: Gateway, site: Site, pki: Pki, reporting: tuple[str, ...]
) -> None:
    before = {name: points(gateway, name) for name in reporting}
    played = simulator.play(site, pki, dict.fromkeys(reporting, "flood"), messages=3000, patience=90)
    assert [each["sent"] for each in played.values()] == [3000, 3000]
    for name in reporting:
        wait(lambda name=name: points(gateway, name) == before[name] + 3000, f"{name}: all stored", 60)
    peak = gateway("grep VmHWM /proc/$(systemctl show -P MainPID gatehouse-intake.service)/status").split()[1]
    assert int(peak) * 1024 < 150_000_000
