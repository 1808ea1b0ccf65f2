"""CoAP over DTLS: which devices are let in, what they may post, and what becomes of it. Seen from where devices are."""

from __future__ import annotations

import pytest

from gatehouse.proof.plugin import cannot_prove
from roles.coap import service
from tests.compliance import coap

AUTHENTICATED = pytest.mark.controls(
    "ETSI-EN-303-645-v3.1.3:5.5-4", "OWASP-IoT-Top10-2018:I3", "OWASP-ISVS-1.0+main-2026-06:4.2.3",
)  # fmt: skip
ENCRYPTED = pytest.mark.controls(
    "ETSI-EN-303-645-v3.1.3:5.5-1", "ETSI-EN-303-645-v3.1.3:5.8-1", "OWASP-ISVS-1.0+main-2026-06:4.1.2",
)  # fmt: skip
NOBODY = "not even a device in order is let in"

pytestmark = pytest.mark.asks("coap")


@pytest.fixture(autouse=True)
def has_an_endpoint(live):
    if not any(each.name == service.name for each in live.site.services_of(live.name)):
        cannot_prove("this gateway has no CoAP endpoint (coap=True)")


def note(evidence, seen, number=None):
    """A session, or one of the requests in it; what was posted is the suite's own and stays out of it."""
    entry = seen.evidence()
    if number is not None:
        request = seen.probe["requests"][number]
        answers = seen.result.get("answers") or [{}] * (number + 1)
        entry |= {"sent": f"CoAP {request.get('method', 2)} {request['path']}", "got": answers[number].get("code", "")}
    evidence(entry)


def answer(live, evidence, number):
    """The code that the suite's device was answered with."""
    seen = coap.seen(live)["other"]
    note(evidence, seen, number)
    if seen.outcome != "agreed":
        cannot_prove(f"{NOBODY}: {seen}")
    return seen.result["answers"][number]["code"]


def the_good_one(live, evidence):
    """The same client with a certificate in order is let in over the same path."""
    seen = coap.seen(live)["other"]
    note(evidence, seen)
    if seen.outcome != "agreed":
        cannot_prove(f"{NOBODY}: {seen}")


@AUTHENTICATED
@pytest.mark.check("coap.accepts-devices")
def test_a_device_with_its_certificate_is_let_in_wherever_the_endpoint_is_declared(live, evidence):
    """A device with a valid certificate shakes hands at every declared address; what it posts is answered 2.04."""
    for _, address in coap.listens(live):
        seen = coap.seen(live)[f"good@{address}"]
        note(evidence, seen)
        assert seen.outcome == "agreed", f"{address}: {seen}"
    code = answer(live, evidence, -1)
    assert code == "2.04", f"posted under its own topic: {code or 'no answer'}"


@AUTHENTICATED
@pytest.mark.parametrize("case", coap.REFUSED)
@pytest.mark.check("coap.refuses-{case}")
def test_a_client_whose_certificate_is_not_in_order_gets_no_session(live, case, evidence):
    """Without certificate, with an expired, a foreign, a revoked one, or a server's: refused in the handshake."""
    seen = coap.seen(live)[case]
    note(evidence, seen)
    assert seen.outcome != "agreed", f"a client with the certificate '{case}' was let in"
    the_good_one(live, evidence)
    assert seen.outcome in ("alert", "cut"), f"no answer that says no: {seen}"


@AUTHENTICATED
@pytest.mark.controls("ETSI-EN-303-645-v3.1.3:5.5-5")
@pytest.mark.check("coap.revocation-list")
def test_the_endpoint_knows_what_was_revoked_last(live, evidence):
    """Certificates with the serial numbers that were revoked last are refused: the list is the current one."""
    for case in live.last_revoked:
        seen = coap.seen(live)[case]
        note(evidence, seen)
        assert seen.outcome != "agreed", "a serial number that is revoked was let in: its list is an old one"
    the_good_one(live, evidence)
    if not live.last_revoked:
        cannot_prove("no certificate of this site was ever revoked")


@AUTHENTICATED
@pytest.mark.check("coap.cut-off")
def test_a_device_in_quarantine_posts_nothing(live, evidence):
    """A device whose certificate is in order and that is in quarantine: answered 4.01, where an active one is taken."""
    seen = coap.seen(live)["cut-off"]
    note(evidence, seen, 0 if seen.outcome == "agreed" else None)
    code = answer(live, evidence, -1)
    if code != "2.04":
        cannot_prove(f"not even an active device is taken: {code or 'no answer'}")
    if seen.outcome == "agreed":
        code = seen.result["answers"][0]["code"]
        assert code == "4.01", f"a device in quarantine: {code or 'no answer'}"
    else:
        assert seen.outcome in ("alert", "cut"), f"no answer that says no: {seen}"


@pytest.mark.controls("OWASP-ISVS-1.0+main-2026-06:4.2.2", "OWASP-IoT-Top10-2018:I3", "IEC-62443-3-3/4-2:FR2")
@pytest.mark.parametrize("case", coap.ANSWERS.values())
@pytest.mark.check("coap.denies-{case}")
def test_a_device_posts_its_own_telemetry_and_nothing_else(live, case, evidence):
    """Another's topic, no topic, another method, too much, another format: each has its code; a post is taken."""
    number = list(coap.ANSWERS.values()).index(case)
    wanted, code, good = list(coap.ANSWERS)[number], answer(live, evidence, number), answer(live, evidence, -1)
    assert code == wanted, f"answered {code or 'nothing'}, not {wanted}"
    if good != "2.04":
        cannot_prove(f"not even a device's own message is taken: {good or 'no answer'}")


@pytest.mark.controls("ETSI-EN-303-645-v3.1.3:5.5-1", "OWASP-IoT-Top10-2018:I3", "IEC-62443-3-3/4-2:SR/CR 3.1")
@pytest.mark.check("coap.stores")
def test_what_is_posted_and_genuine_is_stored_once_and_what_is_not_is_not(live, evidence):
    """A good message, posted twice, is found in the database once; one that was changed on the way is not."""
    missing = {"intake", "influxdb"} - {each.name for each in live.site.services_of(live.name)}
    if missing:
        cannot_prove(f"this gateway goes without {', '.join(sorted(missing))}")
    codes = [answer(live, evidence, number) for number in (-3, -2, -1)]
    assert codes == ["2.04"] * 3, f"the broker did not take them: {codes}"
    found = coap.values(live)
    if found is None:
        cannot_prove("the database answered no question")
    counted = {case: found.count(mark) for case, mark in coap.marks(live).items()}
    evidence({"from": "gateway", "sent": "a query for what was posted", "got": str(counted)})
    assert counted[coap.GOOD] == 1, f"the good message is stored {counted[coap.GOOD]} times"
    assert counted[coap.TAMPERED] == 0, "a message that was changed on the way is stored"


@ENCRYPTED
@pytest.mark.controls("RFC-9325:4.1/d", "RFC-9325:4.2/b")
@pytest.mark.check("coap.dtls")
def test_dtls_1_2_with_forward_secrecy_is_spoken(live, evidence):
    """DTLS 1.2 with an ephemeral key exchange and authenticated encryption; suites without are refused."""
    seen = coap.seen(live)["other"]
    the_good_one(live, evidence)
    assert seen.result["version"] == "1.2", f"version {seen.result['version']}"
    cipher = seen.result["cipher"]
    assert cipher.startswith("ECDHE-") and ("GCM" in cipher or "CHACHA20" in cipher), cipher
    refused(live, evidence, "old suites")


@pytest.mark.controls("RFC-9325:3.1.2/a")
@pytest.mark.check("coap.refuses-dtls-1.0")
def test_who_offers_dtls_1_0_alone_is_refused(live, evidence):
    """Offered DTLS 1.0 alone, with the suites that it has: refused, where the same client is let in with 1.2."""
    the_good_one(live, evidence)
    version = coap.seen(live)["other"].result["version"]
    if version != "1.2":
        cannot_prove(f"not even the good one speaks DTLS 1.2: {version}")
    refused(live, evidence, "DTLS 1.0")


def refused(live, evidence, case):
    """An offer that the endpoint must turn down, and say so."""
    seen = coap.seen(live)[case]
    note(evidence, seen)
    if seen.outcome == "incapable":
        cannot_prove(f"this position can't speak {case} itself: {seen.result.get('reason')}")
    assert seen.outcome != "agreed", f"{case}: agreed on {seen.result['version']} with {seen.result['cipher']}"
    if seen.outcome not in ("alert", "cut"):
        cannot_prove(f"{case}: no answer that says no: {seen}")


@AUTHENTICATED
@pytest.mark.check("coap.is-genuine")
def test_the_endpoint_proves_who_it_is(live, evidence):
    """Its certificate leads to the site's root and has its name; by another root it is not trusted."""
    foreign = coap.seen(live)["foreign anchor"]
    note(evidence, foreign)
    assert foreign.outcome == "distrusted", f"another CA vouches for it: {foreign}"
    for _, address in coap.listens(live):
        seen = coap.seen(live)[f"good@{address}"]
        note(evidence, seen)
        assert seen.outcome != "distrusted", f"{address}: not the site's endpoint: {seen.result['reason']}"
    the_good_one(live, evidence)


@pytest.mark.controls("OWASP-IoT-Top10-2018:I2")
@pytest.mark.check("coap.cookies")
def test_nobody_makes_the_gateway_send_to_another_address(live, evidence):
    """Whoever says hello first gets a cookie to return, in fewer bytes than they sent, and nothing else."""
    seen = coap.before_a_session(live)["hello"]
    evidence(seen)
    if seen.outcome != "answered":
        cannot_prove(f"no hello is answered: {seen}")
    sent, got = seen.result["sent_bytes"], seen.result["got_bytes"]
    assert seen.result["asks_for_cookie"], f"{got} bytes to an address that has proven nothing"
    assert got <= sent, f"{got} bytes for {sent}"


@ENCRYPTED
@pytest.mark.check("coap.no-plaintext")
def test_plain_coap_is_answered_nowhere(live, evidence):
    """CoAP without encryption: silence on its own port and on that of CoAP over DTLS, which answers DTLS beside it."""
    found = coap.before_a_session(live)
    for case in ("plain", "plain on the encrypted port"):
        evidence(found[case])
        assert found[case].outcome != "answered", f"plain CoAP is answered: {found[case]}"
    assert found["plain"].denied, f"the firewall lets plain CoAP through: {found['plain']}"
    evidence(found["hello"])
    if found["hello"].outcome != "answered":
        cannot_prove(f"this position is answered nothing at all: {found['hello']}")
