"""Devices that show a pre-shared key: who gets in, how it is encrypted, and what they may do at the broker."""

from __future__ import annotations

import pytest

from gatehouse.proof import plays
from gatehouse.proof.plays import NOT_AUTHORISED
from gatehouse.proof.plugin import cannot_prove
from tests.compliance.sessions import connected, note_step, of_cases

FORWARD_SECRET = "ECDHE-PSK-CHACHA20-POLY1305"  # TLS 1.3 with a key alone is not what the broker's library takes

pytestmark = pytest.mark.asks("psk")


@pytest.fixture
def played(live):
    """The sessions of a case, one at each address."""
    if not live.site.psk:
        cannot_prove("the site takes no pre-shared keys, so there is no listener for them")
    return of_cases(live.keyed, "psk", "no position where devices with a key reach the broker from")


@pytest.mark.controls("ETSI-EN-303-645-v3.1.3:5.5-4", "OWASP-IoT-Top10-2018:I3")
@pytest.mark.check("psk.accepts-key")
def test_a_device_gets_in_with_its_key_wherever_that_is_declared(played, evidence):
    """A device with its pre-shared key gets in at every address that is declared for them."""
    for seen, step in connected(played, evidence, "right"):
        assert step["outcome"] == "accepted", f"{seen.target}: {step['outcome']} {step.get('reason', '')}"


@pytest.mark.controls("ETSI-EN-303-645-v3.1.3:5.5-4", "ETSI-EN-303-645-v3.1.3:5.1-1", "OWASP-IoT-Top10-2018:I1")
@pytest.mark.parametrize("case", ["wrong-key", "unknown-name", "elsewhere"])
@pytest.mark.controls("OWASP-ISVS-1.0+main-2026-06:2.1.3")
@pytest.mark.check("psk.refuses-{case}")
def test_a_device_without_its_own_key_is_refused(played, case, evidence):
    """A wrong key, an unknown name, or a key where certificates are asked for: refused, where the right one gets in."""
    for seen, step in connected(played, evidence, case):
        assert step["outcome"] != "accepted", f"{seen.target}: let in with {case}"
        assert step["outcome"] in ("alert", "cut"), f"no answer that says no: {step['outcome']}"
    for _, step in connected(played, evidence, "right"):
        if step["outcome"] != "accepted":
            cannot_prove(f"not even the right key is taken: {step['outcome']}")


@pytest.mark.controls("RFC-9325:4.1/d", "RFC-9325:4.2/b")
@pytest.mark.check("psk.forward-secrecy")
def test_what_a_device_says_cannot_be_read_later_with_its_key(live, played, evidence):
    """Every session with a key has a fresh key exchange of its own: TLS 1.3, or ECDHE where the site allows 1.2."""
    for seen, step in connected(played, evidence, "older"):
        if live.site.broker.tls == "1.3":
            assert step["outcome"] == "alert", f"{seen.target}: TLS 1.2, {step.get('cipher', step['outcome'])}"
        else:
            assert step["outcome"] == "accepted", f"{seen.target}: {step['outcome']} {step.get('reason', '')}"
            assert step["cipher"] == FORWARD_SECRET, f"{seen.target}: {step['cipher']}"
    for _, step in connected(played, evidence, "right"):
        if step["outcome"] != "accepted":
            cannot_prove(f"not even TLS 1.3 works: {step['outcome']}")
        assert step["version"] == "1.3"


@pytest.mark.controls("OWASP-ISVS-1.0+main-2026-06:4.2.2", "OWASP-IoT-Top10-2018:I3", "IEC-62443-3-3/4-2:FR2")
@pytest.mark.check("psk.confined")
def test_a_device_with_a_key_writes_its_own_topics_and_nothing_else(played, evidence):
    """A device writes its own telemetry, whatever name it says; others' topics are refused, with a reason code."""
    for seen, step in connected(played, evidence, "right"):
        if step["outcome"] != "accepted":
            cannot_prove(f"it did not get in: {step['outcome']}")
        own, *forged = plays.steps_of(seen.result, "publish", "device")
        for each in (own, *forged):
            note_step(evidence, seen, each)
        for each in forged:
            assert each["outcome"] != "taken", f"{each['topic']} could be written"
            assert each.get("code") == NOT_AUTHORISED, f"{each['topic']}: {each['outcome']}"
        assert own["outcome"] == "taken", f"its own topic: {own['outcome']} {own.get('code', '')}"
