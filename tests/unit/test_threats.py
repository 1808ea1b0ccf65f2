"""The threat model of a site follows from its declarations and from the last run, and from nothing else."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET  # noqa: S405  our own picture
from pathlib import Path

import pytest

from deploy.inventory import ROOT
from deploy.threats import threat_model
from gatehouse.proof import results, threat_report, threats
from gatehouse.proof.results import Check, Run
from gatehouse.proof.threat_diagram import svg
from gatehouse.site import Site, load
from tests.unit.test_site_model import changed, description


def run(*checks: tuple[str, str]) -> Run:
    made = Run("home", "1")
    for name, verdict in checks:
        made.add(Check(name, name, "gw", None, verdict, reason="seen"))  # type: ignore[arg-type]
    return made


def element(made: threats.ThreatModel, name: str) -> threats.Element:
    return next(e for e in made.elements if e.name == name)


def test_every_declared_way_is_a_flow_and_no_other() -> None:
    made = threats.model(Site(**description()), "gw", None)
    assert ("iot", "mosquitto", "8883/tcp") in {(f.source, f.destination, f.port) for f in made.flows}
    assert ("guest", "mosquitto") not in {(f.source, f.destination) for f in made.flows}
    without = threats.model(Site(**changed("gateways/gw/without", ["mosquitto"])), "gw", None)
    assert not [f for f in without.flows if f.destination == "mosquitto"]


def test_a_mitigation_has_the_verdict_of_its_checks() -> None:
    site = Site(**description())

    def verdict(*checks: tuple[str, str]) -> str:
        made = threats.model(site, "gw", run(*checks))
        return next(t.proof.verdict for t in element(made, "ssh").threats if t.stride == "spoofing")

    assert verdict(("ssh.no-root", "proven")) == "proven"
    assert verdict(("ssh.no-root", "proven"), ("ssh.keys-only", "failed")) == "failed"
    assert verdict(("ssh.no-root", "proven"), ("ssh.keys-only", "not_proven")) == "not_proven"
    assert verdict(("broker.delivers", "proven")) == "not_proven"


def literals(text: str) -> str:
    """What comes before the first place-holder."""
    return re.split(r"[{*]", text)[0]


def test_every_check_that_a_threat_names_exists() -> None:
    text = "\n".join(path.read_text() for path in (ROOT / "tests" / "compliance").glob("test_*.py"))
    ids = re.findall(r'mark\.check\(\s*"([^"]+)"', text)
    assert len(ids) > 50
    for entry in threats.known():
        for pattern in entry["checks"]:
            assert any(may_be(pattern, found) for found in ids), f"{pattern}: no check has such an id"


def may_be(pattern: str, found: str) -> bool:
    """Whether an id that is written with place-holders in braces can be one that the pattern means."""
    if "{" in pattern or "*" in pattern:
        a, b = literals(pattern), literals(found)
        return a.startswith(b) and b.count(".") == 1 or b.startswith(a)
    return bool(re.fullmatch(re.sub(r"\\\{.*?\\\}", ".+", re.escape(found)), pattern))


def test_a_name_that_no_check_has_is_noticed() -> None:
    assert may_be("host.runs-{service}", "host.runs-{service}") and may_be("broker.tls-*", "broker.tls-{version}")
    assert may_be("broker.tls-1.3", "broker.tls-{version}")
    assert not may_be("host.run", "host.runs-{service}") and not may_be("brokers.*", "broker.tls-{version}")


def test_the_lab_is_shown_in_every_form() -> None:
    site = load("lab", ROOT)
    made = [threats.model(site, gateway, None) for gateway in site.gateways]
    assert "# Threat model of lab" in threat_report.shown(made, "markdown")
    assert "<svg" in threat_report.shown(made, "html")
    assert {"flows", "elements"} <= set(json.loads(threat_report.shown(made, "json"))[0])
    assert ET.fromstring(svg(made[0])).tag.endswith("svg")  # noqa: S314


def test_a_flow_without_encryption_is_not_called_whole_for_nothing() -> None:
    site = load("lab", ROOT)
    made = threats.model(site, next(iter(site.gateways)), None)
    updates = next(f for f in made.flows if f.source == "upgrades")
    assert not updates.encrypted and "archive keys" in updates.integrity
    assert any("an HMAC over each message" in f.integrity for f in made.flows if f.destination == "intake")
    names = next(f for f in made.flows if f.source == "dnsmasq")
    assert not names.authenticated and names.integrity == "none"


def test_one_check_that_failed_is_not_outweighed_by_others() -> None:
    good, bad = threats.Proof("proven", ("a",), (), ("a",)), threats.Proof("failed", ("b",), ("b",), ("b",))
    assert str(threats.together([good, bad])) == "failed (2 checks: b)"
    assert str(threats.together([good, threats.Proof("not_proven", (), (), ("c",))])) == "not proven (1 check)"
    assert str(threats.together([good])) == "proven (1 check)"
    assert str(threats.together([])) == "no check"


def test_what_stands_in_the_last_run_is_taken_and_a_broken_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = load("lab", ROOT).model_copy(update={"state": None})
    monkeypatch.setattr("deploy.inventory.ROOT", tmp_path)
    assert "Nothing was proven yet" in threat_model(site, "markdown")
    made = Run("lab", "1")
    made.add(Check("ssh.no-root", "no root", "gateway", None, "failed", reason="root was let in"))
    folder = results.new_folder(tmp_path / "reports", made)
    file = results.write(folder, made)
    assert "failed (1 check: ssh.no-root)" in threat_model(site, "markdown")
    file.write_text("{")
    with pytest.raises(results.ResultsError, match="no results of a run"):
        threat_model(site, "markdown")


def test_an_unknown_form_is_named() -> None:
    with pytest.raises(threat_report.UnknownForm, match="use markdown, html, json, pytm"):
        threat_report.shown([], "pdf")


def test_threats_are_told_apart_by_stride() -> None:
    letters = {"spoofing", "tampering", "repudiation", "information disclosure", "denial of service"}
    assert {entry["stride"] for entry in threats.known()} == letters | {"elevation of privilege"}
    assert Path(threats.FILE).exists()
