"""A release on a live gateway: what a device reported of it, as the database has it, and a roll-out that is halted."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.checkout import Run
from tests.documented import example
from tests.lab.gateways import Gateway

pytestmark = pytest.mark.timeout(600)

# Not the device that the lab itself has firmware for.
DEVICE, MODEL = "pump-02", "esp32-relay"
# As the intake writes: over TLS, with its own credential.
WRITE = """
import base64, http.client, socket, ssl, sys
secret = open("/etc/gatehouse/database/intake.credential").read().strip()
tls = ssl.create_default_context(cafile="/etc/gatehouse/database/ca.crt")
connection = http.client.HTTPSConnection("influxdb.lab.internal", 8086)
connection.sock = tls.wrap_socket(socket.create_connection(("127.0.0.1", 8086)), server_hostname=connection.host)
both = base64.b64encode((secret if ":" in secret else "intake:" + secret).encode()).decode()
connection.request("POST", "/write?db=gatehouse", sys.stdin.read(), {"Authorization": f"Basic {both}"})
print(connection.getresponse().status)
"""


def report(gateway: Gateway, counter: int, failed: int, update: str) -> None:
    fields = f'seq=1i,version="1.0",counter={counter:.1f},failed={failed:.1f},update="{update}"'
    line = f"telemetry,device={DEVICE},kind=firmware {fields} {time.time_ns()}"
    assert gateway(f"echo '{line}' | python3 -c '{WRITE}'") == "204\n"


@pytest.fixture
def clean(gateway: Gateway, reporting: tuple[str, ...]) -> Iterator[Gateway]:
    """Nothing is published and the device has said nothing of it; and nothing is published afterwards."""
    assert DEVICE in reporting
    gateway(f"python3 -B /usr/lib/gatehouse/database erase {DEVICE}")
    gateway.checkout.invoke("firmware.withdraw", "--model", MODEL, "--site", "lab")
    yield gateway
    gateway.checkout.invoke("firmware.withdraw", "--model", MODEL, "--site", "lab")


def look(gateway: Gateway, *options: str) -> Run:
    return gateway.checkout.invoke("firmware.status", "--site", "lab", *options)


def state(gateway: Gateway) -> tuple[Any, Any]:
    shown = json.loads(look(gateway, "--no-halt", "--json").out)
    (device,) = (each for each in shown["devices"] if each["name"] == DEVICE)
    return device["state"], [each for each in shown["rollouts"] if each["model"] == MODEL]


def test_a_release_that_its_device_rolled_back_is_halted_on_the_gateway(clean: Gateway, tmp_path: Path) -> None:
    assert state(clean) == ("no release", [])
    report(clean, 0, 0, "ok")
    image, version = tmp_path / "app.bin", f"1.0.{time.time_ns()}"
    image.write_bytes(version.encode())
    names = (("home", "lab"), ("relay", MODEL), ("1.4.2", version))
    publish = example("firmware.md", "./kit firmware.publish --site home --model relay --version 1.4.2", *names)
    half = example(
        "firmware.md", "./kit firmware.rollout --site home --model relay --version 1.4.2 --share 50%", *names
    )
    for command in (
        ("firmware.keys", "--site", "lab"),
        ("firmware.sign", str(image), "--model", MODEL, "--version", version, "--site", "lab"),
        publish.split()[1:],
    ):
        done = clean.checkout.invoke(*command)
        assert done.status == 0, done.text
    found, (release,) = state(clean)
    assert (found, release["version"], release["share_percent"]) == ("pending", version, 100)

    report(clean, release["counter"], 0, "up-to-date")
    assert state(clean)[0] == "current"
    report(clean, release["counter"] - 1, release["counter"], "failed-before")
    halted = look(clean)
    assert halted.status == 2, halted.text
    assert f"gateway: {MODEL} {version} HALTED: given to no device any more" in halted.out
    found, (release,) = state(clean)
    assert (found, release["halted"], release["share_percent"]) == ("failed", True, 0)
    shown = clean.checkout.invoke("firmware.published", "--site", "lab")
    assert f"{MODEL} {version}, counter {release['counter']}, for 0 % of the devices" in shown.out, shown.text

    # Somebody who knows better goes on with it.
    again = clean.checkout.invoke(*half.split()[1:])
    assert again.status == 0, again.text
    shown = clean.checkout.invoke("firmware.published", "--site", "lab")
    assert f"{MODEL} {version}, counter {release['counter']}, for 50 % of the devices" in shown.out, shown.text
