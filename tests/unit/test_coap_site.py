"""A site's CoAP endpoint: off unless the site has it, and then declared everywhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gatehouse.identity.pki import Pki
from gatehouse.identity.store import SecretStore
from gatehouse.site import Site, SiteError, derive
from roles import declared
from roles.coap import files
from roles.mosquitto import files as mosquitto
from roles.nftables import ruleset
from roles.target import Target
from tests.unit.firewall import chains
from tests.unit.test_site_model import changed

DEVICES = [
    {"name": name, "model": "m", "gateway": "gw", "status": status}
    for name, status in (("kitchen-01", "active"), ("lamp-03", "quarantined"), ("pump-02", "revoked"))
]


def site(**more: Any) -> Site:
    return Site(**{**changed("services", declared()), "devices": DEVICES, **more})


@pytest.fixture
def target() -> Callable[..., Target]:
    def make(**more: Any) -> Target:
        made = site(**more)
        prefixes = [str(p) for n in made.gateways["gw"].networks.values() for p in n.prefixes]
        pki = Pki(SecretStore(), "home", made.domain, prefixes).ensure()
        return Target(made, "gw", lambda: pki)

    return make


@pytest.mark.parametrize("given", [{}, {"coap": False}, {"coap": None}])
def test_it_is_off_unless_the_site_says_so(target: Callable[..., Target], given: dict[str, Any]) -> None:
    here = target(**given)
    assert not files.on(here) and here.site.coap is None
    assert "5684" not in ruleset.ruleset(here).content.decode()
    assert "gatehouse-coap" not in mosquitto.acl(here).content.decode()


@pytest.mark.parametrize("given", [True, {}, {"max_sessions": 20}])
def test_it_is_open_to_devices_at_the_gateways_address_and_to_nobody_else(
    target: Callable[..., Target], given: Any
) -> None:
    here = target(coap=given)
    (*_, iot) = [str(a) for a in here.gateway.networks["iot"].addresses[:1]]
    rules = [r for r in derive(here.site, "gw").input if r.service == "coap"]
    assert {(r.segment, r.listener.label) for r in rules} == {("iot", "5684/udp")}
    named = {chain: [r for r in rules if "5684" in r] for chain, rules in chains(ruleset.ruleset(here)).items()}
    assert [chain for chain, rules in named.items() if rules and chain.startswith("in_")] == ["in_iot"]
    assert any(f"ip daddr {iot} udp dport 5684" in rule for rule in named["in_iot"])
    closed = {(each.port, each.transport) for each in here.site.service("coap").closed}
    assert {(5683, "udp"), (5683, "tcp")} <= closed
    assert "user gatehouse-coap\ntopic write devices/+/telemetry/+\n" in mosquitto.acl(here).content.decode()


def test_new_sessions_are_measured_as_those_of_the_broker(target: Callable[..., Target]) -> None:
    segments = changed("segments/iot/limits", {"broker": 7})["segments"]
    text = ruleset.ruleset(target(coap=True, segments=segments)).content.decode()
    assert "udp dport { 5684 } update @broker_of_iot { ether saddr limit rate over 7/second" in text


def test_active_devices_are_let_in_and_the_settings_are_the_sites(target: Callable[..., Target]) -> None:
    here = target(coap={"max_sessions": 20, "idle_seconds": 60})
    found = {file.path: file for file in (*files.configuration(here), *files.admission(here))}
    names = json.loads(found[files.DEVICES].content)
    assert "kitchen-01" in names and not {"lamp-03", "pump-02"} & set(names)
    settings = json.loads(found[files.SETTINGS].content)
    assert (settings["max_sessions"], settings["idle_seconds"]) == (20, 60)
    assert b"BEGIN X509 CRL" in found[files.TRUST].content
    secret = [file for file in (*found.values(), *files.certificate(here)) if b"PRIVATE KEY" in file.content]
    assert {file.path for file in secret} == {files.CLIENT, files.KEY}
    assert all((file.mode, file.group) == (0o640, "gatehouse-coap") for file in secret)


def test_its_keys_and_certificates_have_an_age(target: Callable[..., Target]) -> None:
    here = target(coap=True)
    files.configuration(here)
    files.certificate(here)
    kept = {pattern for secret in here.site.service("coap").secrets for pattern in [secret.kept]}
    assert kept == {
        f"{whose}/{what}" for whose in ("server/coap-*", "client/gatehouse-coap") for what in ("key", "certificate")
    }
    for name in ("server/coap-gw/key", "client/gatehouse-coap/certificate"):
        assert name in here.pki.vault


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"coap": "yes"}, "coap: "),
        ({"coap": {"max_sessions": 0}}, "coap max_sessions"),
        ({"coap": {"idle_seconds": 5}}, "coap idle_seconds"),
        ({"coap": {"psk": True}}, r"coap psk: unknown key \(remove it"),
    ],
)
def test_a_value_that_is_none_is_told_in_one_line(given: dict[str, Any], wanted: str) -> None:
    with pytest.raises(SiteError, match=wanted) as told:
        site(**given)
    assert len(told.value.problems) == 1 and "\n" not in str(told.value.problems[0])


def test_without_its_broker_it_would_lead_nowhere() -> None:
    data = changed("gateways/gw/without", ["mosquitto"])
    with pytest.raises(SiteError, match="CoAP hands messages to the broker"):
        Site(**{**data, "services": declared(), "coap": True})
    Site(**{**data, "services": declared()})
    both = changed("gateways/gw/without", ["mosquitto", "coap"])
    Site(**{**both, "services": declared(), "coap": True})


def test_all_that_it_imports_is_brought_to_the_gateway() -> None:
    brought = {Path(file.path).relative_to(f"{files.LIBRARY}/gatehouse") for file in files.library()}
    wanted = set()
    for file in files.library():
        for line in file.content.decode().splitlines():
            if line.startswith("from gatehouse."):
                wanted.add(Path(line.split()[1].removeprefix("gatehouse.").replace(".", "/")))
    for module in wanted:
        names = {module.with_suffix(".py"), module / "__init__.py"}
        assert names & brought, f"{module} is not brought"
