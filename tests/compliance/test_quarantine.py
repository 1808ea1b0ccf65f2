"""Quarantine: what a device that is suspected still reaches. A probe with a hardware address and a name that are always
in quarantine stands beside one that is free, so that nothing has to happen to any real device."""

from __future__ import annotations

import json

import pytest

from gatehouse.proof import plays
from gatehouse.proof.channel import ProbeError
from gatehouse.proof.credentials import CUT_OFF_HARDWARE
from gatehouse.proof.plays import NOT_AUTHORISED
from gatehouse.proof.plugin import cannot_prove
from tests.compliance.isolation import SETS, isolation, quarantined_play

QUARANTINE = pytest.mark.controls("ETSI-EN-303-645-v3.1.3:5.3-15A", "ETSI-EN-303-645-v3.1.3:5.7-2")


@QUARANTINE
@pytest.mark.controls("ETSI-EN-303-645-v2.1.1:5.3-15")
@pytest.mark.asks("isolation")
@pytest.mark.check("quarantine.isolated")
def test_a_device_in_quarantine_reaches_nobody_and_is_reached_by_nobody(live, evidence):
    """A device in quarantine gets no connection through the gateway, in either direction, where a free one does."""
    seen = with_a_position(isolation, live)
    evidence(seen.alive)
    if not seen.alive.reached:
        cannot_prove(f"its own link is dead, so silence proves nothing: {seen.alive}")
    for pair in seen.pairs:
        evidence(pair.free)
        evidence(pair.cut_off)
        assert not pair.cut_off.reached and pair.cut_off.outcome != "refused", f"reached: {pair.cut_off}"
    assert not seen.heard, f"arrived, though nothing came back: {seen.heard[0]}"
    if not any(pair.free.reached for pair in seen.pairs):
        cannot_prove("a device that is free reaches nobody either, and is reached by nobody")


@QUARANTINE
@pytest.mark.asks("quarantined")
@pytest.mark.check("quarantine.broker")
def test_a_device_in_quarantine_is_heard_for_diagnosis_only(live, evidence):
    """At the broker a device in quarantine has its quarantine topics: nothing else it says is taken, none delivered."""
    seen = with_a_position(quarantined_play, live)
    if seen.outcome != "played":
        cannot_prove(f"the play ended early: {seen}")
    for step in seen.result["steps"]:
        keys = ("do", "as", "topic", "payload", "outcome", "code")
        evidence({"from": seen.position, "to": seen.target, **{k: step[k] for k in keys if k in step}})
    for who in ("observer", "device"):
        (connected,) = plays.steps_of(seen.result, "connect", who)
        if connected["outcome"] != "accepted":
            cannot_prove(f"{who} did not get in: {connected['outcome']} {connected.get('reason', '')}")
    for payload in ("telemetry", "forged telemetry", "forged report"):
        (step,) = plays.steps_of(seen.result, "publish", "device", payload=payload)
        assert step["code"] == NOT_AUTHORISED, f"{payload} on {step['topic']}: {step['outcome']}, code {step['code']}"
    got = [message["payload"] for message in seen.result["received"]["device"]]
    assert "command" not in got, "a command was delivered"
    (report,) = plays.steps_of(seen.result, "publish", "device", payload="report")
    assert report["outcome"] == "taken", f"its report was not taken: {report['outcome']}, code {report.get('code')}"
    for who in ("observer", "device"):
        (awaited,) = plays.steps_of(seen.result, "await", who, payload="report")
        assert awaited["outcome"] == "received", f"its report did not reach the {who}"


@QUARANTINE
@pytest.mark.controls("OWASP-ISVS-1.0+main-2026-06:2.1.11")
@pytest.mark.parametrize("status", SETS)
@pytest.mark.controls("OWASP-ISVS-1.0+main-2026-06:2.3.3")
@pytest.mark.check("quarantine.sets-of-{status}")
def test_the_firewall_cuts_off_those_whom_the_registry_says_and_nobody_else(live, status, evidence):
    """In the kernel's sets are the devices with that status, all of them, and no device that is free."""
    devices = [device for device in live.site.devices_of(live.name) if device.status == status]
    for name, fact in zip(SETS[status], ("hardware_address", "address"), strict=True):
        wanted = {str(value) for device in devices if (value := getattr(device, fact)) is not None}
        if name == "quarantined_hardware":
            wanted.add(CUT_OFF_HARDWARE)
        listed = live.run("nft", "-j", "list", "set", "inet", "gatehouse", name)
        assert listed.result.get("status") == 0, f"there is no set {name}: {listed.result.get('error')}"
        try:
            (found,) = [entry["set"] for entry in json.loads(listed.result["output"])["nftables"] if "set" in entry]
        except ValueError:
            cannot_prove(f"set {name} is too long to be shown")
        there = {str(element) for element in found.get("elem", ())}
        evidence({"from": "gateway", "sent": f"nft list set {name}", "got": f"{len(there)} of {len(wanted)} entries"})
        assert not (missing := sorted(wanted - there)), f"{missing[0]} is {status}, and not in the set {name}"
        assert not (free := sorted(there - wanted)), f"{free[0]} is in the set {name}, and no device is {status} by it"


def with_a_position(ask, live):
    """What is seen from the position in quarantine, which a gateway without a broker for devices does not have."""
    try:
        _ = live.cut_off
    except ProbeError as error:
        cannot_prove(str(error))
    return ask(live)
