"""Secrets replaced on a live gateway: killed at every step nobody is locked out; under load nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

import lab
from deploy import vaults
from gatehouse.identity import rotation
from lab import simulator
from roles import influxdb
from roles.influxdb.deploy import STEWARD
from tests.lab.gateways import Gateway, wait
from tests.lab.test_intake import counted, sequences

pytestmark = pytest.mark.timeout(900)

LOGIN = "influxdb.intake"
CLIENTS = [f"client/gatehouse-{service}/key" for service in ("alerts", "coap", "intake")]
STEPS = ["make"]
STEPS += [f"{phase}{end}" for phase in rotation.PHASES for end in ("", ": prove", ": done")]
# Replaces one secret, and is killed when it says that it is about to take a step.
KILLED = """
import os, signal, sys
from deploy import rotating
from deploy.inventory import ROOT
from gatehouse.site import load

def say(line):
    print(line, flush=True)
    if line == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)

outcome = rotating.rotate(load("lab", ROOT), [sys.argv[1]], say)
sys.exit("; ".join(outcome.failed))
"""


def takes(gateway: Gateway, account: str, value: bytes) -> bool:
    """Whether the database takes a login of the vault's."""
    command = ["sh", "-c", f"python3 -B {STEWARD} tries {account}"]
    done = lab.run(gateway.name, gateway.host, command, stdin=value)
    assert done.returncode == 0, done.stderr
    return done.stdout == "taken\n"


def consumer_works(gateway: Gateway) -> bool:
    file = influxdb.credential(influxdb.INTAKE)
    return gateway(f"python3 -B {STEWARD} tries {influxdb.INTAKE} <{file}").strip() == "taken"


def test_killed_at_every_step_nobody_is_locked_out_and_the_next_run_goes_on(gateway: Gateway) -> None:
    site = gateway.checkout.site
    former = vaults.open_vault(site).get(LOGIN)
    environment = {**os.environ, "PYTHONPATH": str(gateway.checkout.root)}
    for step in STEPS:
        command = [sys.executable, "-c", KILLED, LOGIN, f"{LOGIN}: {step}"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
        assert done.returncode == -signal.SIGKILL, f"{step}: {done.stdout}{done.stderr}"
        assert former.decode() not in done.stdout + done.stderr
        assert consumer_works(gateway), f"{step}: the intake is locked out"
        vault = vaults.open_vault(site)
        for account in (influxdb.ADMIN, influxdb.INTAKE):
            known = rotation.accepted(vault, influxdb.secret_name(account))
            assert any(takes(gateway, account, value) for value in known), f"{step}: the operator is locked out"
    assert rotation.phase_of(vaults.open_vault(site), LOGIN) == "retire"
    ended = gateway.checkout.invoke("rotate", "--only", LOGIN)
    assert ended.status == 0 and "former one is refused" in ended.out, ended.text
    vault = vaults.open_vault(site)
    assert vault.names("rotation/") == []
    assert takes(gateway, influxdb.INTAKE, vault.get(LOGIN)) and not takes(gateway, influxdb.INTAKE, former)
    assert consumer_works(gateway)
    gateway.stays_converged()


def test_under_load_every_secret_is_replaced_and_no_message_is_lost(
    gateway: Gateway, reporting: tuple[str, ...]
) -> None:
    site = gateway.checkout.site
    pki = vaults.open_pki(site)
    before = {name: set(sequences(gateway, site, pki, name)) for name in reporting}
    numbers = {device.name: device.hmac_key for device in site.devices}
    failures = counted(gateway, "write_failures_total")
    with ThreadPoolExecutor(1) as pool:
        behaviours = dict.fromkeys(reporting, "good")
        playing = pool.submit(simulator.play, site, pki, behaviours, interval=0.02, seconds=60, patience=90)
        # Of devices that other tests enrolled nobody plays the part.
        theirs = [word for name in reporting for word in ("--only", f"devices/{name}/hmac")]
        keys = gateway.checkout.invoke("rotate", *theirs)
        assert keys.status == 0 and "has not taken up" not in keys.out, keys.text
        logins = gateway.checkout.invoke("rotate", "--only", "influxdb.*")
        assert logins.status == 0 and logins.out.count("former one is refused") == len(influxdb.ACCOUNTS), logins.text
        assert counted(gateway, "write_failures_total") == failures, "a write of the intake's was refused"
        client = gateway.checkout.invoke("rotate", "--only", "client/*")
        replaced = [line.partition(":")[0] for line in client.out.splitlines() if "former one is refused" in line]
        assert client.status == 0 and sorted(replaced) == CLIENTS, client.text
        played = playing.result()
    for name in reporting:
        accepted = {n for first, last in played[name]["acknowledged"] for n in range(first, last + 1)}
        assert len(accepted) == played[name]["sent"] > 500
        wait(
            lambda name=name, accepted=accepted: accepted <= set(sequences(gateway, site, pki, name)),
            f"{name}: all accepted messages stored",
            60,
        )
        points = [n for n in sequences(gateway, site, pki, name) if n not in before[name]]
        assert sorted(points) == sorted(accepted), "nothing twice, and nothing that was not sent"
    moved = {device.name: device.hmac_key for device in gateway.checkout.site.devices}
    assert all(moved[name] == (numbers[name] or 0) + 1 for name in reporting)
    vault = vaults.open_vault(site)
    assert vault.names("rotation/") == []
    for name in reporting:
        assert vault.names(f"devices/{name}/hmac/") == [f"devices/{name}/hmac/{moved[name]}"]
    listed = {row["name"]: row for row in json.loads(gateway.checkout.invoke("credentials", "--json").out)}
    assert listed[f"devices/{reporting[0]}/hmac"]["age_days"] == 0 and listed[LOGIN]["state"] == "fresh"
    gateway.stays_converged()


def test_a_program_s_password_is_replaced_when_it_is_named(gateway: Gateway) -> None:
    name = "broker/programs/homeassistant/password"
    former = vaults.open_vault(gateway.checkout.site).get(name)
    done = gateway.checkout.invoke("rotate", "--only", name)
    assert done.status == 0 and "former one is refused" in done.out, done.text
    assert vaults.open_vault(gateway.checkout.site).get(name) != former
    assert former.decode() not in done.text
    gateway.stays_converged()


def test_the_database_s_key_is_replaced_when_it_is_named(gateway: Gateway) -> None:
    done = gateway.checkout.invoke("rotate", "--only", "server/influxdb-*")
    assert done.status == 0 and "former one is refused" in done.out, done.text
    gateway.until(f"python3 -B {STEWARD} check | grep -qx 'as declared'")
    gateway.stays_converged()
