"""The alerts: the gateway's numbers are judged every minute, and what is to be told gets out."""

from __future__ import annotations

import json

import pytest

from gatehouse.proof.plugin import cannot_prove
from gatehouse.site.alerts import topic
from roles.alerts import files, service
from tests.compliance.alerts import seen
from tests.compliance.test_host import EXPOSURE_AT_MOST, rated

LATE = 300  # seconds: it is judged once a minute


@pytest.fixture(autouse=True)
def has_alerts(live):
    if not any(each.name == service.name for each in live.site.services_of(live.name)):
        cannot_prove("the site has no alerts (alerts={})")


@pytest.mark.controls("IEC-62443-3-3/4-2:SR/CR 6.2", "ETSI-EN-303-645-v3.1.3:5.7-2")
@pytest.mark.controls("ETSI-EN-303-645-v3.1.3:5.10-1")
@pytest.mark.asks("alerts")
@pytest.mark.check("alerts.evaluates")
def test_the_gateways_numbers_are_judged_every_minute(live, evidence):
    """What is wrong was looked for within the last minutes."""
    left, *_ = seen(live)
    lines = str(left.result.get("output", "")).splitlines()
    if len(lines) < 2:
        evidence({"from": "gateway", "sent": files.STATUS, "got": "missing"})
        pytest.fail(f"{files.STATUS} is missing: nothing was ever judged")
    status, now = json.loads("".join(lines[:-1])), int(lines[-1])
    age = now - status["when"]
    evidence({"from": "gateway", "sent": files.STATUS, "got": f"judged {age:.0f} s ago, {status['raised']} raised"})
    assert age < LATE, f"judged last {age:.0f} s ago, not within {LATE} s"


@pytest.mark.controls("IEC-62443-3-3/4-2:SR/CR 6.2", "OWASP-IoT-Top10-2018:I8")
@pytest.mark.asks("alerts")
@pytest.mark.check("alerts.delivers")
def test_an_alert_reaches_who_listens_for_it(live, evidence):
    """An alert that the suite asks for, to try the way, comes out of the broker; nobody else could have sent it."""
    _, sent, heard, text = seen(live)
    if sent is None:
        cannot_prove("it is told over no broker")
    evidence({"from": "gateway", "sent": f"alert '{text}', to try the way", "got": sent.result.get("status")})
    if "steps" not in heard.result:
        cannot_prove(f"nobody could listen: {heard}")
    connected, _, came = (step["outcome"] for step in heard.result["steps"])
    evidence({"from": heard.position, "to": heard.target, "sent": f"listens to {topic(live.name)}", "got": came})
    if connected != "accepted":
        cannot_prove(f"the broker does not let in who would listen: {connected}")
    assert came == "received", f"it does not arrive (journalctl -u {files.UNIT}: status {sent.result.get('status')})"


@pytest.mark.controls("ETSI-EN-303-645-v3.1.3:5.6-7")
@pytest.mark.check("alerts.confined")
def test_the_alerts_program_is_confined(live, evidence):
    """systemd rates the unit that tells alerts as little exposed."""
    exposure = rated(live, evidence, files.UNIT)
    assert exposure is not None, f"systemd rates no {files.UNIT}"
    assert exposure <= EXPOSURE_AT_MOST, f"{files.UNIT}: exposure {exposure}, at most {EXPOSURE_AT_MOST}"
