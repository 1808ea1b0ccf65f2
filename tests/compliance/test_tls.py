"""TLS in detail (RFC 9325): what the servers that others reach take of suites, curves and keys, offered by hand."""

from __future__ import annotations

import re

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509 import Certificate, load_der_x509_certificate, load_pem_x509_certificate

from gatehouse.proof import suites
from gatehouse.proof.plugin import cannot_prove
from gatehouse.proof.suites import P256, SMALL_GROUPS, STATIC, WEAK, X25519
from tests.compliance import handshakes
from tests.compliance.handshakes import GOOD, is_new_only

RSA_AT_LEAST, CURVE_AT_LEAST = 2048, 256  # bits; RFC 9325 §4.5 and §4.2
SOUND_HASHES = ("sha256", "sha384", "sha512", None)  # None: a signature with a hash of its own, as Ed25519

pytestmark = pytest.mark.asks("handshakes")


def note(evidence, server, seen):
    """What was offered and what came of it; certificates are shown in the report where they are judged."""
    kept = ("outcome", "alert", "suite", "group", "version", "reason")
    got = {key: seen.result[key] for key in kept if key in seen.result}
    evidence({"from": seen.position, "to": seen.target, "at": seen.result.get("at"), "sent": f"{server.name}: "
              f"{seen.probe['id'].rpartition(':')[2]}", "got": got})  # fmt: skip
    if seen.outcome == "silent":
        cannot_prove(f"{server.name}: no answer in time: {seen}")


@pytest.fixture
def servers(live, evidence):
    """Those that answer; the offer that each of them is given first is part of the evidence."""
    found = []
    for server in handshakes.servers(live):
        good = handshakes.seen(live)[server.name, GOOD]
        note(evidence, server, good)
        if good.outcome in ("agreed", "alert", "cut"):
            found.append(server)
    if not found:
        cannot_prove("no server answers over TLS")
    return found


@pytest.fixture
def older(live, servers):
    """Those that speak TLS 1.2: nothing can be said of how the others do."""
    found = [server for server in servers if handshakes.seen(live)[server.name, GOOD].outcome == "agreed"]
    if not found:
        cannot_prove("no server speaks TLS 1.2")
    return found


def all_refused(live, evidence, servers, offers):
    """Each offer is turned down by each server, which takes a sound one, or speaks TLS 1.3 alone."""
    for server in servers:
        good = handshakes.seen(live)[server.name, GOOD]
        if is_new_only(good):
            newer = handshakes.seen(live)[server.name, "TLS 1.3"]
            note(evidence, server, newer)
            if newer.outcome in ("silent", "refused"):
                cannot_prove(f"{server.name}: it speaks no TLS at all: {newer}")
            continue
        if good.outcome != "agreed":
            cannot_prove(f"{server.name}: not even a sound offer is taken: {good}")
        for what in offers:
            seen = handshakes.seen(live)[server.name, what]
            note(evidence, server, seen)
            assert seen.outcome != "agreed", f"{server.name}: agreed on {what} (suite {seen.result['suite']:#06x})"
            if seen.outcome not in ("alert", "cut"):
                cannot_prove(f"{server.name}: no answer that says no to {what}: {seen}")


@pytest.mark.controls("RFC-9325:4.1/a", "RFC-9325:4.1/b", "OWASP-ISVS-1.0+main-2026-06:2.4.2")
@pytest.mark.check("tls.weak-suites")
def test_no_server_agrees_on_a_suite_that_protects_nothing_or_little(live, servers, evidence):
    """Offered nothing but suites without encryption or certificate, RC4, DES, export or less than 128 bits: refused."""
    all_refused(live, evidence, servers, WEAK)


@pytest.mark.controls("RFC-9325:4.1/c", "RFC-9325:4.1/d")
@pytest.mark.check("tls.static-keys")
def test_no_server_agrees_on_a_suite_whose_key_opens_all_that_was_said(live, servers, evidence):
    """Offered nothing but static RSA, Diffie-Hellman and ECDH: refused, whatever certificate it has."""
    all_refused(live, evidence, servers, STATIC)


@pytest.mark.controls("RFC-9325:3.1.1/b", "RFC-9325:4.2/a")
@pytest.mark.check("tls.recommended-suites")
def test_a_server_that_speaks_tls_1_2_speaks_it_as_recommended(live, servers, evidence):
    """Where the site has TLS 1.2, ECDHE with AES-GCM alone is agreed on."""
    wanted = [server for server in servers if server.older]
    if not wanted:
        cannot_prove("the site has TLS 1.3 alone, everywhere")
    for server in wanted:
        seen = handshakes.seen(live).get((server.name, "AES-GCM")) or handshakes.seen(live)[server.name, GOOD]
        note(evidence, server, seen)
        assert seen.outcome == "agreed", f"{server.name}: TLS 1.2 with ECDHE and AES-GCM is refused: {seen}"
        assert seen.result["suite"] in (*suites.ECDSA_GCM, *suites.RSA_GCM), (
            f"{server.name}: {seen.result['suite']:#06x}"
        )


@pytest.mark.controls("RFC-9325:4.2/c", "RFC-9325:4.5/a")
@pytest.mark.check("tls.curves")
def test_keys_are_agreed_on_over_sound_curves_and_over_no_small_one(live, older, evidence):
    """X25519 is taken where it is offered, P-256 where it alone is, and it too before a curve of less than 224 bits."""
    for server in older:
        for what, group in (("X25519", X25519), ("P-256", P256)):
            seen = handshakes.seen(live)[server.name, what]
            note(evidence, server, seen)
            assert seen.outcome == "agreed", f"{server.name}: {what} is refused: {seen}"
            assert seen.result["group"] == group, f"{server.name}: group {seen.result['group']} instead of {what}"
        seen = handshakes.seen(live)[server.name, "small curves first"]
        note(evidence, server, seen)
        assert seen.result.get("group") not in SMALL_GROUPS, f"{server.name}: group {seen.result['group']} is too small"


@pytest.mark.controls("RFC-9325:3.5/a", "RFC-9325:3.5/b")
@pytest.mark.check("tls.bound-sessions")
def test_sessions_are_bound_to_their_handshake(live, older, evidence):
    """With TLS 1.2 there is secure renegotiation (RFC 5746), and the extended master secret (RFC 7627)."""
    names = {suites.RENEGOTIATION_INFO: "renegotiation_info", suites.EXTENDED_MASTER_SECRET: "extended_master_secret"}
    for server in older:
        there = handshakes.seen(live)[server.name, GOOD].result["extensions"]
        evidence({"from": server.position, "sent": f"{server.name}: extensions of ServerHello", "got": there})
        missing = [name for number, name in names.items() if number not in there]
        assert not missing, f"{server.name}: no {' and no '.join(missing)}"


def shown(live, server) -> list[Certificate]:
    """What a server shows: to who takes any certificate, to who takes RSA alone, and with TLS 1.3."""
    found = []
    for what in (GOOD, "AES-GCM with RSA"):
        seen = handshakes.seen(live).get((server.name, what))
        listed = seen.result.get("certificates", ()) if seen else ()
        found += [load_der_x509_certificate(bytes.fromhex(each)) for each in listed]
    newest = handshakes.seen(live)[server.name, "TLS 1.3"].result.get("certificate")
    return [*found, *([load_pem_x509_certificate(newest.encode())] if newest else [])]


@pytest.mark.controls("RFC-9325:4.5/b", "RFC-9325:4.2/c")
@pytest.mark.check("tls.certificates")
def test_certificates_have_keys_and_signatures_that_hold(live, servers, evidence):
    """Of each chain that is shown: RSA of 2048 bits or a curve of 256 at least, signed with SHA-256 or longer."""
    looked_at = 0
    for server in servers:
        for certificate in dict.fromkeys(shown(live, server)):
            looked_at += 1
            key, hashed = certificate.public_key(), certificate.signature_hash_algorithm
            kind = f"{type(key).__name__.strip('_')} {getattr(key, 'key_size', '')}".strip()
            name = f"{server.name}: {certificate.subject.rfc4514_string() or 'no name'}"
            evidence({"from": server.position, "sent": name, "got": f"{kind}, {hashed.name if hashed else 'no hash'}"})
            if isinstance(key, rsa.RSAPublicKey):
                assert key.key_size >= RSA_AT_LEAST, f"{name}: RSA of {key.key_size} bits"
            elif isinstance(key, ec.EllipticCurvePublicKey):
                assert key.key_size >= CURVE_AT_LEAST, f"{name}: a curve of {key.key_size} bits"
            assert (hashed and hashed.name) in SOUND_HASHES, f"{name}: signed with {hashed.name}"
    if not looked_at:
        cannot_prove("no server shows a certificate")


@pytest.mark.controls("RFC-9325:3.10")
@pytest.mark.asks("early")
@pytest.mark.check("tls.early-data")
def test_nothing_is_taken_before_the_handshake_is_over(live, evidence):
    """No page gives a ticket that lets data come with the first message, which could be sent again by others."""
    told = handshakes.early(live)
    if not told:
        cannot_prove("this gateway goes without the HTTPS front")
    for name, seen in told.items():
        said = str(seen.result.get("output", ""))
        sizes = re.findall(r"Max Early Data: (\d+)", said)
        agreed = "TLSv1.3" in said
        evidence({"from": seen.position, "sent": f"{name}: openssl s_client -tls1_3", "got": f"early data {sizes}"})
        if not agreed:
            cannot_prove(f"{name}: no session with TLS 1.3: {said.strip()[-120:]}")
        assert all(size == "0" for size in sizes), f"{name}: {max(map(int, sizes))} bytes may come early, and again"


TICKETLESS = pytest.mark.controls("RFC-9325:3.4/a")
NAME_BYTES = 32  # a ticket of that length is the name of a session that the server remembers, and there is no key to it


@TICKETLESS
@pytest.mark.asks("early")
@pytest.mark.check("tls.tickets-of-front")
def test_no_page_gives_tickets_that_a_key_opens(live, servers, evidence):
    """A later session with a page is resumed from what the front remembers: no key opens what was said in it."""
    pages = [server for server in servers if server.name.startswith("web ")]
    if not pages:
        cannot_prove("this gateway goes without the HTTPS front")
    for server in pages:
        seen = handshakes.early(live)[server.name]
        said = str(seen.result.get("output", ""))
        if "TLSv1.3" not in said:
            cannot_prove(f"{server.name}: no session with TLS 1.3: {said.strip()[-120:]}")
        sizes = handshakes.ticket_bytes(said)
        evidence(
            {
                "from": seen.position,
                "sent": f"{server.name}: openssl s_client -tls1_3",
                "got": f"tickets of {sizes} bytes",
            }
        )
        assert max(sizes, default=0) <= NAME_BYTES, f"{server.name}: TLS 1.3: a ticket of {max(sizes)} bytes"
        older = handshakes.seen(live).get((server.name, "TLS 1.2"))
        if older is not None and older.outcome == "agreed":
            given(evidence, older.position, f"{server.name}: TLS 1.2", older.result)


@TICKETLESS
@pytest.mark.asks("broker", "programs", "psk")
@pytest.mark.check("tls.tickets-of-broker")
def test_the_broker_gives_no_tickets(live, evidence):
    """Whoever is let in by the broker, with a certificate, a password or a key, gets no ticket for the next session."""
    if not any(service.name == "mosquitto" for service in live.site.services_of(live.name)):
        cannot_prove("this gateway goes without a broker")
    sessions = {f"certificate, {address}": live.broker[f"broker:good@{address}"] for _, address in live.broker_at}
    played = {**(live.programs if live.site.programs else {}), **(live.keyed if live.site.psk else {})}
    sessions |= {
        name: seen
        for name, seen in played.items()
        if name.split("@")[0] in ("programs:right", "psk:right", "psk:older")
    }
    results = {name: (seen.position, seen.result["steps"][0]) for name, seen in sessions.items()}
    older = live.broker["broker:tls 1.2"]
    results["certificate, TLS 1.2"] = (older.position, older.result)
    taken = 0
    for name, (position, result) in results.items():
        if result["outcome"] in ("accepted", "agreed"):
            taken += 1
            given(evidence, position, name, result)
    if not taken:
        cannot_prove("nobody is let in by the broker")


def given(evidence, position, name, result):
    """A session that was agreed on, in which no ticket may have come."""
    got = {key: result[key] for key in ("outcome", "version", "ticket") if key in result}
    evidence({"from": position, "at": result.get("at"), "sent": f"session: {name}", "got": got})
    if "ticket" not in result:
        cannot_prove(f"{name}: no session: {result['outcome']} {result.get('reason', '')}".rstrip())
    assert not result["ticket"], f"{name}: a ticket, with TLS {result['version']}"
