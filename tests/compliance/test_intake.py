"""The intake: what is signed, new and whole is stored, and nothing else. Seen from where devices are."""

from __future__ import annotations

import pytest

from gatehouse.proof import reports
from gatehouse.proof.plugin import cannot_prove

AUTHENTIC = pytest.mark.controls(
    "ETSI-EN-303-645-v3.1.3:5.5-1",
    "OWASP-IoT-Top10-2018:I3",
    "ENISA-IoT-Baseline-2017:GP-TM-51",
    "IEC-62443-3-3/4-2:SR/CR 3.1",
    "OWASP-ISVS-1.0+main-2026-06:1.1.4",
    "OWASP-ISVS-1.0+main-2026-06:4.1.1",
)

pytestmark = pytest.mark.asks("intake")


@pytest.fixture
def taken(live):
    running = {service.name for service in live.site.services_of(live.name)}
    if missing := {"intake", "influxdb", "mosquitto"} - running:
        cannot_prove(f"this gateway goes without {', '.join(sorted(missing))}")
    return live.intake


def note(evidence, taken, case):
    """What was published, what the broker said, and what the intake and the database have of it."""
    step = next((s for s in taken.published.result.get("steps", ()) if s.get("case") == case), {})
    evidence(
        {
            "from": taken.published.position,
            "to": taken.published.target,
            "at": taken.published.result.get("at"),
            "sent": f"{case}: {reports.REFUSED[case][1] if case in reports.REFUSED else 'signed and new'}",
            "topic": step.get("topic"),
            "broker": step.get("outcome"),
            "found": "no answer" if taken.values is None else taken.values.count(taken.made.marks[case]),
        }
    )
    return step


def the_good_one_is_stored(taken):
    if taken.values is None:
        cannot_prove("the database answered no question")
    if taken.made.marks[reports.GOOD] not in taken.values:
        cannot_prove("not even the good message is stored")


@AUTHENTIC
@pytest.mark.check("intake.stores")
def test_a_good_message_of_a_device_is_found_in_the_database_once(taken, evidence):
    """What a device publishes, signed, over the broker, is found by a query, once; and it is counted."""
    step = note(evidence, taken, reports.GOOD)
    evidence(
        {"from": "gateway", "sent": "the intake's numbers", "got": f"{taken.rise('stored_total'):.0f} more stored"}
    )
    assert step.get("outcome") == "taken", f"the broker did not take it: {step.get('outcome')}"
    assert taken.values is not None, "the database answered no question"
    assert taken.values.count(taken.made.marks[reports.GOOD]) == 1, "it is not stored, or more than once"
    assert taken.rise("stored_total") >= 1, "it was not counted"


@AUTHENTIC
@pytest.mark.parametrize("case", reports.REFUSED)
@pytest.mark.controls("ETSI-EN-303-645-v3.1.3:5.10-1")
@pytest.mark.check("intake.refuses-{case}")
def test_a_message_that_is_not_genuine_new_and_whole_is_not_stored(taken, site, case, evidence):
    """A tampered, replayed, unsigned, another's, old, early, too large message: taken by the broker, stored nowhere."""
    step = note(evidence, taken, case)
    why = reports.reason(case, site.messages.json_form)
    counted, wanted = taken.rise(why), sum(reports.reason(c, site.messages.json_form) == why for c in reports.REFUSED)
    evidence({"from": "gateway", "sent": f"refused as {why}", "got": f"{counted:.0f} more, at least {wanted}"})
    if step.get("outcome") != "taken":
        cannot_prove(f"the broker did not take it, so the intake never saw it: {step.get('outcome')}")
    if case != "replayed":
        assert taken.made.marks[case] not in (taken.values or ()), f"is stored, though {reports.REFUSED[case][1]}"
    the_good_one_is_stored(taken)
    assert counted >= wanted, f"{counted:.0f} were refused as {why}; at least {wanted} had to be"
