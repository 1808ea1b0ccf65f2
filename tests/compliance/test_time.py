"""Time: without it no device can check a certificate."""

from __future__ import annotations

import re
import time

import pytest

from gatehouse.proof import expect
from gatehouse.proof.plugin import cannot_prove

pytestmark = pytest.mark.controls("OWASP-ISVS-1.0+main-2026-06:1.4.3", "CIS-Debian-12-v1.1.0:2.3.x")

SECONDS_OFF_AT_MOST = 5


@pytest.mark.asks("reach")
@pytest.mark.check("time.served")
def test_the_gateway_serves_synchronised_time(live, evidence):
    """Every segment that is to get the time gets it, from a clock that says it is synchronised."""
    live.reach  # noqa: B018
    offer = next(offer for offer in expect.offers(live.site, live.name) if offer.listener.name == "ntp")
    for segment in offer.listener.reachable_from:
        place = live.place(segment)
        for address in (a for a in place.gateway if place.family(a)):
            seen = live.seen(segment, expect.at_gateway(offer, address))
            evidence(seen)
            assert seen.reached, f"no time: {seen}"
            assert seen.result["synchronised"], f"stratum {seen.result['stratum']}, not synchronised: {seen}"


@pytest.mark.check("time.right")
def test_the_gateways_clock_agrees_with_the_operators(live, evidence):
    """The gateway's clock and that of whoever runs this suite show the same time."""
    before = time.time()
    (seen,) = live.ask({expect.GATEWAY: [{"kind": "run", "argv": ["date", "+%s.%N"]}]})[expect.GATEWAY]
    after = time.time()
    there = float(seen.result["output"])
    off = max(before - there, there - after, 0)
    evidence({"from": "gateway", "sent": "date", "got": f"{off:.3f} s off", "at": seen.result["at"]})
    assert off <= SECONDS_OFF_AT_MOST, f"{off:.0f} s apart: one of the two clocks is wrong"


@pytest.mark.check("time.synchronised")
def test_the_gateways_clock_is_kept_right_by_its_sources(live, evidence):
    """chronyd has chosen a source and steers the clock by it."""
    seen = live.run("chronyc", "-n", "tracking")
    tracking = dict(re.findall(r"^(.+?)\s*: (.*)$", str(seen.result.get("output")), re.MULTILINE))
    shown = {key: tracking.get(key) for key in ("Reference ID", "Stratum", "System time", "Leap status")}
    evidence({"from": "gateway", "sent": "chronyc tracking", "got": shown, "at": seen.result.get("at")})
    assert tracking.get("Leap status") == "Normal", (
        f"not synchronised: {tracking.get('Leap status') or seen.result.get('error')}"
    )
    if live.is_container:
        cannot_prove("a container's clock is that of the machine underneath, and nobody in here may set it")
