"""The HTTPS front: what is served for each of its names, and how its certificates are renewed."""

from __future__ import annotations

import datetime
import hashlib
import ssl
from collections import Counter

import pytest

from gatehouse.identity.authority import read_certificate
from gatehouse.proof.plugin import cannot_prove
from roles.certbot.deploy import PROGRAM, TIMER
from roles.nginx import USER
from tests.compliance import units, web

ENCRYPTED = ("ETSI-EN-303-645-v3.1.3:5.5-1", "OWASP-ISVS-1.0+main-2026-06:4.1.2", "OWASP-IoT-Top10-2018:I7")
# Prints which of its arguments its account can read.
READABLE = 'for each; do [ ! -r "$each" ] || echo "$each"; done'
# A certificate that is renewed in time never gets so old: two thirds, and half of what is left for mishaps.
OLD = 5 / 6
WANTED = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "SAMEORIGIN",
    "referrer-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


@pytest.fixture
def pages(live):
    """The names that the gateway serves."""
    found = web.pages(live)
    if not found:
        cannot_prove("this gateway goes without the HTTPS front")
    return found


@pytest.fixture
def public(pages):
    """Those that a public CA vouches for."""
    found = [page for page in pages if page.public]
    if not found:
        cannot_prove("the site has no public names: its own PKI vouches for all of them")
    return found


pytestmark = pytest.mark.asks("web")


def agreed(live, evidence, page, what):
    """A handshake that has to come about; nothing can be said of the others where it does not."""
    found = web.seen(live)[f"{page.name}:{what}"]
    evidence(found)
    if found.outcome in ("refused", "timeout", "unreachable"):
        cannot_prove(f"{page.name}: it does not answer: {found}")
    return found


@pytest.mark.controls(*ENCRYPTED, "ETSI-EN-303-645-v3.1.3:5.5-4")
@pytest.mark.check("web.certificate")
def test_each_name_shows_a_certificate_that_its_visitors_trust(live, pages, evidence):
    """Each name, at each address: a certificate for it, from the site's root or a public one, not near its end."""
    for page in pages:
        for identity, each in web.seen(live).items():
            if identity.startswith(f"{page.name}:{web.HTTPS}"):
                evidence(each)
                assert each.outcome == "agreed", f"{page.name}: {each}"
        shown = web.seen(live)[f"{page.name}:{web.HTTPS}"]
        certificate = read_certificate(page.name, shown.result["certificate"].encode())
        begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        over = (datetime.datetime.now(datetime.UTC) - begin) / (end - begin)
        evidence({"from": "operator", "sent": f"life of {page.name}", "got": f"{over:.0%} over, ends {end:%Y-%m-%d}"})
        assert over < OLD, f"{page.name}: {over:.0%} of the certificate's life is over: it is not renewed"
        foreign = web.seen(live)[f"{page.name}:foreign anchor"]
        evidence(foreign)
        assert foreign.outcome == "distrusted", f"{page.name}: another CA vouches for it: {foreign}"


@pytest.mark.controls("RFC-9325:3.1.1/a", "RFC-9325:3.1.1/c", "RFC-9325:4.1/e", "RFC-9325:3.1.3", *ENCRYPTED)
@pytest.mark.controls("OWASP-ISVS-1.0+main-2026-06:2.4.2")
@pytest.mark.check("web.tls")
def test_each_name_speaks_the_profile_of_tls_that_the_site_says_and_nothing_older(live, pages, evidence):
    """TLS 1.3, and 1.2 where the profile has it, with forward secrecy and authenticated encryption; nothing older."""
    old = ["tls 1.0", "tls 1.1", "old suites"]
    for page in pages:
        newest = agreed(live, evidence, page, "tls 1.3")
        assert newest.outcome == "agreed", f"{page.name}: no TLS 1.3: {newest}"
        before = agreed(live, evidence, page, "tls 1.2")
        if live.site.web.profile == "modern":
            old.append("tls 1.2")
        else:
            assert before.outcome == "agreed", f"{page.name}: no TLS 1.2: {before}"
            assert before.result["cipher"].startswith("ECDHE-"), f"{page.name}: {before.result['cipher']}"
        for what in old:
            if web.seen(live)[f"{page.name}:able {what}"].outcome != "agreed":
                cannot_prove(f"this position can't try {what} itself")
            found = web.seen(live)[f"{page.name}:{what}"]
            evidence(found)
            assert found.outcome in ("alert", "cut"), f"{page.name}: {what} is not refused: {found}"


@pytest.mark.controls("OWASP-IoT-Top10-2018:I3", "OWASP-IoT-Top10-2018:I9", "RFC-9325:3.2", "RFC-9325:3.3")
@pytest.mark.check("web.headers")
def test_each_name_tells_browsers_to_insist_on_https_and_tells_strangers_no_version(live, pages, evidence):
    """HSTS and what keeps pages from being framed or misread, on every answer; no version, no compression."""
    for page in pages:
        found = agreed(live, evidence, page, "page")
        assert found.outcome == "answered", f"{page.name}: {found}"
        headers = found.result["headers"]
        evidence({"from": found.position, "sent": f"headers of {page.name}", "got": headers})
        insists = headers.get("strict-transport-security")
        assert insists == f"max-age={live.site.web.hsts_days * 86_400}", f"{page.name}: HSTS is {insists}"
        for name, value in WANTED.items():
            assert headers.get(name) == value, f"{page.name}: {name} is {headers.get(name)}"
        assert "frame-ancestors" in headers.get("content-security-policy", ""), f"{page.name}: may be framed by others"
        assert headers.get("server") == "nginx", f"{page.name}: tells a version: {headers.get('server')}"
        assert "content-encoding" not in headers, f"{page.name}: answers are compressed (BREACH)"


@pytest.mark.controls("RFC-9325:3.2", "OWASP-IoT-Top10-2018:I7")
@pytest.mark.check("web.redirect")
def test_without_https_each_name_only_leads_there(live, pages, evidence):
    """On port 80 each name answers with its own HTTPS address, the rest of the request kept, and nothing else."""
    port = live.site.listener("nginx", web.HTTPS).port
    for page in pages:
        found = agreed(live, evidence, page, web.HTTP)
        wanted = f"https://{page.name}{'' if port == 443 else f':{port}'}/x?y=z"
        assert found.outcome == "answered", f"{page.name}: {found}"
        got = found.result["status"], found.result["headers"].get("location")
        assert got == (301, wanted), f"{page.name}: {got}"


@pytest.mark.controls("RFC-9325:3.7", "OWASP-IoT-Top10-2018:I3")
@pytest.mark.check("web.unknown-names")
def test_who_asks_for_no_name_or_an_unknown_one_is_shown_nothing(live, pages, evidence):
    """Without a name of the gateway's, the handshake is refused: no certificate tells a scanner what it has found."""
    for asked in ("no name", "unknown name"):
        found = web.seen(live)[asked]
        evidence(found)
        if found.outcome in ("refused", "timeout", "unreachable"):
            cannot_prove(f"it does not answer: {found}")
        assert "unrecognized name" in str(found.result.get("reason")), f"{asked}: {found}"
    if not any(agreed(live, evidence, page, web.HTTPS).outcome == "agreed" for page in pages):
        cannot_prove("no known name is shown a certificate either")


@pytest.mark.controls("IEC-62443-3-3/4-2:SR/CR 1.11", "OWASP-ISVS-1.0+main-2026-06:2.1.12")
@pytest.mark.asks("logins")
@pytest.mark.check("web.limits-logins")
def test_who_tries_one_login_after_the_other_is_told_to_wait(live, pages, evidence):
    """Of many logins in a row the last are not even looked at (429), while the page itself is still shown."""
    found = web.guessed(live)
    if not found:
        cannot_prove("no page has a login")
    for name, (*logins, page) in found.items():
        statuses = Counter(seen.result.get("status", seen.outcome) for seen in logins)
        got = {str(status): times for status, times in statuses.items()}
        evidence({"from": logins[0].position, "sent": f"{name}: {len(logins)} logins in a row", "got": got})
        status = page.result.get("status", page.outcome)
        evidence({"from": page.position, "sent": f"{name}: the page with the login", "got": status})
        if not isinstance(status, int):
            cannot_prove(f"{name}: it does not answer: {page}")
        assert statuses[429], f"{name}: {len(logins)} logins in a row, and nobody is told to wait"
        if status == 429:
            cannot_prove(f"{name}: whoever asks is told to wait")


@pytest.mark.controls("ETSI-EN-303-645-v3.1.3:5.5-8", "ETSI-EN-303-645-v3.1.3:5.4-1")
@pytest.mark.check("web.served")
def test_what_is_served_is_what_lies_on_the_disk_and_the_front_alone_can_read_its_key(live, pages, evidence):
    """The certificate that is shown is the newest that there is, and its key is for root and the front alone."""
    keys = [f"{web.folder(page)}/key.pem" for page in pages]
    readable = {account: read_by(live, account, keys) for account in (USER, "nobody")}
    for page, key in zip(pages, keys, strict=True):
        shown = agreed(live, evidence, page, web.HTTPS).result.get("fingerprint", "")
        places = [f"{web.folder(page)}/chain.pem"]
        places += [f"/etc/letsencrypt/live/{page.name}/fullchain.pem"] if page.public else []
        for place in places:
            file = live.host.file(place)
            assert file.exists, f"{page.name}: no {place}"
            text = file.content_string
            end = "-----END CERTIFICATE-----"
            der = ssl.PEM_cert_to_DER_cert(text[: text.index(end) + len(end)] + "\n")
            there = hashlib.sha256(der).hexdigest()
            evidence({"from": "gateway", "sent": f"fingerprint of {place}", "got": there})
            assert there == shown, f"{page.name}: {place} is not what is shown: the front has not read it"
        for account, may in ((USER, True), ("nobody", False)):
            can = key in readable[account]
            evidence({"from": "gateway", "sent": f"{account} reads {key}", "got": str(can)})
            assert can == may, f"{account} {'can' if can else 'cannot'} read {key}"


def read_by(live, account, paths):
    """Which of these files an account of the gateway can read."""
    seen = live.run("runuser", "-u", account, "--", "sh", "-c", READABLE, "sh", *paths)
    return set(str(seen.result.get("output", "")).splitlines())


@pytest.mark.asks("renewal")
@pytest.mark.controls("ETSI-EN-303-645-v3.1.3:5.5-8", "ETSI-EN-303-645-v3.1.3:5.3-4A")
@pytest.mark.check("web.renewal")
def test_public_certificates_renew_themselves(live, public, evidence):
    """The timer has a next time, nothing is overdue, and a renewal that is tried now works up to its last step."""
    times = units.next_times(live, TIMER)
    evidence({"from": "gateway", "sent": TIMER, "got": times or "no next time"})
    assert times, f"{TIMER} has no next time"
    due = live.run(PROGRAM, "due")
    evidence({"from": "gateway", "sent": "certificates due", "got": due.result.get("output", due.outcome)})
    assert due.result.get("status") == 0, f"certificates due: {due}"
    assert not str(due.result["output"]).strip(), f"not renewed or not installed: {due.result['output'].strip()}"
    tried = web.rehearsed(live)
    said = str(tried.result.get("error", "")).strip()
    evidence(
        {"from": "gateway", "sent": "a renewal on trial", "got": said or tried.outcome, "at": tried.result.get("at")}
    )
    assert tried.result.get("status") == 0, f"a renewal does not work: {said or tried.outcome}"
