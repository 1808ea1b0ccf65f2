"""The device API: who shows a good token is told which devices there are, nobody else, and nothing can be changed."""

from __future__ import annotations

import datetime
import json

import pytest

from gatehouse.api.tokens import audience_of
from gatehouse.identity import jwt
from gatehouse.identity.store import SecretStore
from gatehouse.proof.plugin import cannot_prove
from gatehouse.site.pages import OWN
from roles.api import service
from tests.compliance import web
from tests.compliance.accounts import are_shut_for_others
from tests.compliance.once import once

PATH = "/api/devices"
BAD = ("none", "expired", "foreign", "other-gateway")


@pytest.fixture(autouse=True)
def serves_it(live):
    if not any(each.name == service.name for each in live.site.services_of(live.name)):
        cannot_prove("the site has no device API (api=True)")


@once
def answers(live):
    """What those are told who show a good token, a bad one, or none; and who would change something."""
    page = next(page for page in web.pages(live) if page.label == OWN)
    listener = live.site.listener("nginx", web.HTTPS)
    (segment, address), *_ = live.reached_at(listener)
    server = {"address": address, "port": listener.port, "ca": web.anchor(live, page), "server_name": page.name}
    earlier = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=2)
    audience = audience_of(live.site.name, live.name)
    tokens = {
        "good": jwt.issue(live.vault, live.site.name, "compliance", audience),
        "expired": jwt.issue(live.vault, live.site.name, "compliance", audience, now=earlier),
        "foreign": jwt.issue(SecretStore(), live.site.name, "compliance", audience),
        "other-gateway": jwt.issue(
            live.vault, live.site.name, "compliance", audience_of(live.site.name, f"not-{live.name}")
        ),
    }
    shown = {case: {"Host": page.name, "Authorization": f"Bearer {token}"} for case, token in tokens.items()}
    shown["none"] = {"Host": page.name}
    probes = [{"id": f"api:{case}", "kind": "https", **server, "path": PATH, "headers": h} for case, h in shown.items()]
    post = {"kind": "https", **server, "path": PATH, "method": "POST", "body": "{}", "headers": shown["good"]}
    found = live.ask({segment: [*probes, {"id": "api:change", **post}]})[segment]
    return {str(seen.probe["id"]).partition(":")[2]: seen for seen in found}


def answered(live, evidence, case):
    """The status of an answer; what was shown for it stays out of the evidence."""
    seen = answers(live)[case]
    evidence({**seen.evidence(), "sent": f"{PATH} with token: {case}", "status": seen.result.get("status")})
    if seen.outcome != "answered":
        cannot_prove(f"the API does not answer: {seen.outcome}")
    return seen.result["status"]


@pytest.mark.controls("ETSI-EN-303-645-v3.1.3:5.5-5", "OWASP-IoT-Top10-2018:I3")
@pytest.mark.controls("NISTIR-8259A:Cybersecurity State Awareness/5")
@pytest.mark.check("api.devices")
def test_who_shows_a_good_token_is_told_which_devices_there_are(live, evidence):
    """With a token of the site for this gateway: its devices, no others, with no secret among what is told."""
    assert answered(live, evidence, "good") == 200, "not even a good token is taken: harden brings the keys"
    told = json.loads(answers(live)["good"].result["body"])
    declared = sorted(device.name for device in live.site.devices_of(live.name))
    assert [device["name"] for device in told] == declared
    assert all(set(device) == {"name", "model", "segment", "status", "certificate_ends"} for device in told)


@pytest.mark.controls("ETSI-EN-303-645-v3.1.3:5.5-5", "OWASP-IoT-Top10-2018:I3", "OWASP-IoT-Top10-2018:I6")
@pytest.mark.controls("NISTIR-8259A:Cybersecurity State Awareness/3")
@pytest.mark.controls("OWASP-ISVS-1.0+main-2026-06:2.1.3")
@pytest.mark.check("api.refuses")
def test_nobody_without_a_good_token_is_told_anything(live, evidence):
    """Without a token, with an expired one, a stranger's or another gateway's: refused, where a good one is not."""
    for case in BAD:
        status = answered(live, evidence, case)
        if status in (502, 504):
            cannot_prove("the API does not answer behind the front")
        assert status == 401, f"token {case}: status {status}"
        assert "certificate_ends" not in answers(live)[case].result["body"], f"token {case}: is told of devices"
    if answered(live, evidence, "good") != 200:
        cannot_prove("not even a good token is taken")


@pytest.mark.controls("OWASP-IoT-Top10-2018:I3", "ETSI-EN-303-645-v3.1.3:5.6-1")
@pytest.mark.controls("NISTIR-8259A:Cybersecurity State Awareness/4")
@pytest.mark.check("api.read-only")
def test_not_even_a_good_token_changes_anything(live, evidence):
    """A request that would change something is refused as such, with the token that may read."""
    status = answered(live, evidence, "change")
    if status in (502, 504):
        cannot_prove("the API does not answer behind the front")
    assert status == 405, f"POST: status {status}"


@pytest.mark.controls("ETSI-EN-303-645-v3.1.3:5.5-5", "OWASP-IoT-Top10-2018:I3")
@pytest.mark.check("api.other-accounts")
def test_other_accounts_of_the_gateway_do_not_reach_the_plain_port(live, evidence):
    """Only root and the HTTPS front connect to the port without encryption."""
    are_shut_for_others(live, evidence, live.site.listener(service.name, "http"))
