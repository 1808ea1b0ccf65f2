"""The threat model in OWASP pytm's form, read and judged by pytm itself."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytm

from deploy.inventory import ROOT
from gatehouse.proof import threat_report, threats
from gatehouse.proof.results import Check, Run
from gatehouse.proof.threat_pytm import name
from gatehouse.proof.threats import DataFlow, ThreatModel
from gatehouse.site import load
from tests.unit.enrolling import a_site
from tests.unit.machine import INIT, Machine, commands

# Found wherever a flow is not encrypted, or not authenticated, and nowhere else.
IN_THE_CLEAR, BY_ANYBODY = "CR08", "CR06"


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """pytm keeps all that it read in its class."""
    pytm.TM.reset()
    yield
    pytm.TM.reset()


def read(models: Sequence[ThreatModel]) -> Any:
    """The model as pytm has it once it has filled in what it derives itself."""
    made = pytm.loads(threat_report.shown(models, "pytm"))
    assert made.check()
    made.resolve()
    return made


def found(made: Any) -> dict[str, set[str]]:
    """What each of pytm's threats was found of."""
    of: dict[str, set[str]] = defaultdict(set)
    for each in made.findings:
        of[each.threat_id].add(each.target)
    return of


@pytest.fixture
def lab() -> ThreatModel:
    return threats.model(load("lab", ROOT), "gateway", None)


def properties(flow: DataFlow) -> tuple[Any, ...]:
    transport = {"tls": "TLS", "dtls": "DTLS", "ssh": "SSH", "wireguard": "WireGuard"}.get(flow.encryption, "")
    number = re.match(r"\d+", flow.port)
    return (
        flow.source, flow.data, transport, int(number[0]) if number else -1,
        flow.encrypted, flow.authenticated, flow.authentication,
    )  # fmt: skip


def test_pytm_has_every_flow_with_the_same_properties_and_no_other(lab: ThreatModel) -> None:
    read([lab])
    flows = {
        f.name: (
            f.source.name, str(f.data), f.protocol, f.dstPort,
            f.controls.isEncrypted, f.controls.authenticatesSource, f.controls.authenticationScheme,
        )
        for f in pytm.TM._flows
    }  # fmt: skip
    assert flows == {name(flow): properties(flow) for flow in lab.flows}
    assert len(flows) == len(lab.flows) == len(pytm.TM._flows) > 40
    assert {True, False} == {flow[4] for flow in flows.values()} == {flow[5] for flow in flows.values()}


def test_segments_and_the_gateway_are_its_boundaries_and_everything_is_where_it_belongs(lab: ThreatModel) -> None:
    read([lab])
    assert sorted(each.name for each in pytm.TM._boundaries) == sorted([*lab.segments, "gateway"])
    place = {each.name: each.inBoundary and each.inBoundary.name for each in pytm.TM._elements}
    services = [element.name for element in lab.elements if element.kind == "service"]
    assert {place[name] for name in services} == {place["mosquitto 8883/tcp"]} == {"gateway"}
    assert (place["iot"], place["device kitchen-01"], place["operator"]) == ("iot", "iot", None)
    for flow, of in zip(pytm.TM._flows, lab.flows, strict=True):
        assert flow.crosses(pytm.Boundary) == of.crosses, flow.name


def test_secrets_threats_and_what_is_left_are_there(lab: ThreatModel) -> None:
    read([lab])
    secrets = {each.name for each in pytm.TM._data if each.isCredentials}
    assert secrets == {f"{element.name}: {secret}" for element in lab.elements for secret in element.secrets}
    made = {each.name: each for each in pytm.TM._elements}
    for element in lab.elements:
        if element.kind == "service":
            told = [(each["text"], each["proof"], each["residual"]) for each in made[element.name].threats]
            assert told == [(each.text, str(each.proof), each.residual) for each in element.threats]


def test_what_pytm_finds_of_flows_is_what_is_not_encrypted_or_not_authenticated(lab: ThreatModel) -> None:
    of = found(read([lab]))
    assert of[IN_THE_CLEAR] == {name(flow) for flow in lab.flows if not flow.encrypted}
    assert of[BY_ANYBODY] == {name(flow) for flow in lab.flows if not flow.authenticated}
    assert of["AA01"] == {"chrony", "dnsmasq", "nginx"}, "who asks nobody who they are, at one of their ports"


def test_only_what_was_proven_counts_as_a_control() -> None:
    site = load("lab", ROOT)
    run = Run("lab", "1")
    for service, verdict in (("mosquitto", "proven"), ("coap", "failed")):
        run.add(Check(f"host.confines-{service}", "confined", "gateway", None, verdict, reason="seen"))  # type: ignore[arg-type]
    of = found(read([threats.model(site, "gateway", run)]))
    assert "mosquitto" not in of["AC12"] and {"coap", "influxdb"} <= of["AC12"]


def test_what_pytm_finds_is_explained_and_what_it_is_not_asked_exists(lab: ThreatModel) -> None:
    """Each kind of finding has a row in the document, and each threat that is left out is one of pytm's."""
    text = (ROOT / "docs" / "proof.md").read_text()
    made = read([lab])
    assert sorted(found(made)) == sorted(set(re.findall(r"\b(?:AA|AC|CR|DE|DO|HA)\d\d\b", text)))
    left_out = {threat for assumption in made.assumptions for threat in assumption.exclude}
    assert left_out == {each.threat_id for each in made.excluded_findings}, "none that pytm would not find anyway"
    assert not left_out & set(found(made))


def test_gateways_of_one_site_are_told_apart() -> None:
    models = threats.models(a_site(gateways=2), None)
    read(models)
    assert len(pytm.TM._flows) == sum(len(model.flows) for model in models)
    names = [each.name for each in pytm.TM._elements if not isinstance(each, pytm.Boundary)]
    assert {"gw1: mosquitto", "gw2: mosquitto"} <= set(names) and len(names) == len(set(names))
    assert {"gw1", "gw2"} <= {each.name for each in pytm.TM._boundaries}


def test_it_is_used_as_documented(tmp_path: Path) -> None:
    machine = Machine.new(tmp_path)
    machine.did(INIT)
    python = machine.checkout / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text((machine.checkout / "kit").read_text().replace("-m invoke ", ""))
    python.chmod(0o755)
    (block,) = (each for each in commands("proof.md") if "pytm" in each)
    said = machine.did(block)
    assert "nginx: AA01 Authentication Abuse/ByPass" in said, said
    assert "digraph tm" in (machine.checkout / "home.dot").read_text()
    assert len(json.loads((machine.checkout / "home.pytm.json").read_text())["flows"]) > 5
