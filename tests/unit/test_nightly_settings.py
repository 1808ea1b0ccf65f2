"""What the nightly verification looks at is derived from what the site declares."""

from __future__ import annotations

import json
from typing import Any

from gatehouse.identity import Pki, SecretStore
from gatehouse.site import Site
from roles import declared
from roles.target import Target
from roles.watch import files
from tests.unit.test_site_model import changed, description


def target(**changes: Any) -> Target:
    site = Site(**{**description(), "services": declared(), **changes})
    gateway = next(iter(site.gateways))
    return Target(site, gateway, lambda: Pki(SecretStore(), "home", "home.arpa", ["10.0.0.0/8"]).ensure())


def test_it_looks_at_every_declared_unit_and_port_and_at_the_broker() -> None:
    here = target()
    found = files.settings(here)
    assert {"mosquitto.service", "chrony.service", "ssh.service", files.TIMER} <= set(found["units"])
    assert "grafana-server.service" not in found["units"], "it may not be deployed"
    addresses = here.listens_on("mosquitto", "mqtts")
    assert addresses and found["broker"]["addresses"] == addresses
    assert {(address, 8883) for address in addresses} <= set(found["open"])
    assert found["firewall"]["loaded"].startswith("/run/gatehouse-verify/")


def test_its_files_hold_no_secret_and_its_unit_may_talk_to_the_gateway_alone() -> None:
    made = {file.path: file.content.decode() for file in files.configuration(target())}
    unit = made[f"/etc/systemd/system/{files.UNIT}"]
    assert "IPAddressDeny=any" in unit
    (allowed,) = [line for line in unit.splitlines() if line.startswith("IPAddressAllow=")]
    own = {address for address, _ in json.loads(made[files.SETTINGS])["open"]}
    assert own and set(allowed.partition("=")[2].split()) == {"localhost", *own}
    assert not [path for path, text in made.items() if "PRIVATE KEY" in text]
    assert "BEGIN CERTIFICATE" in made[files.AUTHORITY]


def test_a_gateway_without_broker_and_firewall_is_not_asked_for_them() -> None:
    data = changed("gateways/gw/without", ["mosquitto", "intake", "nftables"])
    here = target(**{**data, "services": declared()})
    found = files.settings(here)
    assert (found["broker"], found["firewall"], found["open"]) == (None, None, [])
    assert "mosquitto.service" not in found["units"]
    unit = {file.path: file.content.decode() for file in files.configuration(here)}[f"/etc/systemd/system/{files.UNIT}"]
    assert "ExecStartPre" not in unit
