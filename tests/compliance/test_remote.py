"""Remote management: who comes in through the tunnel, and where it leads."""

from __future__ import annotations

import pytest

from gatehouse.proof.plugin import cannot_prove
from gatehouse.site import MANAGEMENT
from tests.compliance.remote import NOISE, STRANGERS, declared, runs, tunnel

pytestmark = [
    pytest.mark.asks("tunnel"),
    pytest.mark.controls("OWASP-IoT-Top10-2018:I2", "ETSI-EN-303-645-v3.1.3:5.5-1", "IEC-62443-3-3/4-2:FR5"),
]


@pytest.fixture
def seen(live):
    if not runs(live):
        cannot_prove("the site has no peers, so there is no tunnel and its port is closed")
    return tunnel(live)


def through(evidence, seen, target):
    where, address, port = target
    got = seen.came_back.get((address, port), "silent")
    evidence({"from": "a peer in the tunnel", "sent": "TCP connection", "to": f"{where}, {address}:{port}", "got": got})
    return got


def the_peer_is_let_in(seen, evidence):
    evidence(seen.answers["peer"])
    if seen.with_shared != "a session":
        cannot_prove(f"not even the suite's own peer comes in: {seen.with_shared}")


@pytest.mark.controls("ETSI-EN-303-645-v3.1.3:5.5-4", "NISTIR-8259A:Logical Access to Interfaces/2")
@pytest.mark.check("remote.reaches-management")
def test_a_peer_reaches_ssh_and_hosts_of_management_through_the_tunnel(live, seen, evidence):
    """A peer with both keys gets a session, and through it the gateway's encrypted services and management's hosts."""
    evidence(seen.answers["peer"])
    assert seen.with_shared == "a session", f"the suite's own peer is not let in: {seen.with_shared}"
    allowed = [target for target, may in seen.asked.items() if may]
    assert any(port == live.site.ssh.port and "gateway" in where for where, _, port in allowed)
    for target in allowed:
        got = through(evidence, seen, target)
        assert got in ("open", "refused") if "host" in target[0] else got == "open", f"must be reached: {target}: {got}"


@pytest.mark.controls("NISTIR-8259A:Logical Access to Interfaces/2", "IEC-62443-3-3/4-2:SR 5.2")
@pytest.mark.check("remote.reaches-nothing-else")
def test_a_peer_reaches_no_other_segment_and_nothing_in_the_clear(seen, evidence):
    """Through the tunnel nothing answers in other segments, nor what of management's is not encrypted."""
    the_peer_is_let_in(seen, evidence)
    reached = [target for target, may in seen.asked.items() if may and through(evidence, seen, target) != "silent"]
    denied = [target for target, may in seen.asked.items() if not may]
    assert {where for where, _, _ in denied} > {f"the gateway in {MANAGEMENT}"}
    for target in denied:
        got = through(evidence, seen, target)
        assert got == "silent", f"must not be reached: {target[0]}, {target[1]}:{target[2]}: {got}"
    if not reached:
        cannot_prove("nothing at all is reached through the tunnel, so silence proves nothing")


@pytest.mark.controls("ETSI-EN-303-645-v3.1.3:5.5-4", "OWASP-IoT-Top10-2018:I1")
@pytest.mark.check("remote.refuses-strangers")
def test_who_has_a_key_that_is_no_peers_gets_no_handshake(seen, evidence):
    """Attempts with a new key, and with one that everybody knows, are not answered; that of a peer is."""
    for who in STRANGERS:
        evidence({**seen.answers[who].evidence(), "sent": f"WireGuard handshake with {who}"})
        assert seen.answers[who].denied, f"answered: {who}"
    the_peer_is_let_in(seen, evidence)


@pytest.mark.controls("ETSI-EN-303-645-v3.1.3:5.5-4", "OWASP-IoT-Top10-2018:I1")
@pytest.mark.controls("OWASP-ISVS-1.0+main-2026-06:2.1.3")
@pytest.mark.check("remote.needs-shared-key")
def test_a_peer_without_the_key_that_it_shares_gets_no_session(seen, evidence):
    """With its own key alone, and without the one that it shares with the gateway, a peer has no session."""
    evidence({**seen.answers["without the shared key"].evidence(), "got": seen.without_shared})
    assert not seen.without_shared.startswith("a session"), "the peer's own key is enough"
    the_peer_is_let_in(seen, evidence)


@pytest.mark.controls("ETSI-EN-303-645-v3.1.3:5.6-1", "ENISA-IoT-Baseline-2017:GP-TM-50")
@pytest.mark.check("remote.silent")
def test_the_port_answers_nobody_who_does_not_know_the_gateways_key(seen, evidence):
    """Empty datagrams, words, noise, and attempts at another key: no answer, where a peer gets one."""
    for who in NOISE:
        evidence({**seen.answers[who].evidence(), "sent": f"UDP datagram: {who}"})
        assert seen.answers[who].denied, f"answered: {who}: {seen.answers[who]}"
    the_peer_is_let_in(seen, evidence)


@pytest.mark.controls("OWASP-IoT-Top10-2018:I1", "IEC-62443-3-3/4-2:SR/CR 7.7")
@pytest.mark.check("remote.peers")
def test_the_tunnel_has_the_declared_peers_and_no_others(live, seen, evidence):
    """The running tunnel knows each declared peer at its own address, and nobody who was removed or let in by hand."""
    for key, address in sorted(seen.peers.items()):
        evidence({"from": "gateway", "sent": "wg show allowed-ips", "got": f"{key} at {address}"})
    assert seen.peers == declared(live), "the running tunnel has other peers than the site declares"
