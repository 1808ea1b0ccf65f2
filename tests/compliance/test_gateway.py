"""What the gateway itself offers to each segment: its declared listeners at its address there, and nothing else."""

from __future__ import annotations

import pytest

from gatehouse.proof import expect
from gatehouse.proof.plugin import cannot_prove

pytestmark = [
    pytest.mark.asks("reach"),
    pytest.mark.controls(
        "OWASP-IoT-Top10-2018:I2",
        "ETSI-EN-303-645-v3.1.3:5.6-1",
        "ENISA-IoT-Baseline-2017:GP-TM-50",
        "CIS-Debian-12-v1.1.0:2.1.22",
        "IEC-62443-3-3/4-2:SR/CR 7.7",
        "EU-CRA-2024/2847:Annex I Part I (2)(j)",
    ),
]

# Protocols that show passwords to whoever listens, or ask for none: FTP, Telnet, TFTP, finger, rexec, rlogin, rsh.
LEGACY = {"21/tcp", "23/tcp", "69/udp", "79/tcp", "512/tcp", "513/tcp", "514/tcp"}


def the_link_works(live, evidence, segment, address):
    """The gateway reaches a listener in the segment over the same bridge, in the same family."""
    own = next(a for a in live.place(segment).addresses if (":" in a) == (":" in address))
    seen = live.seen(expect.GATEWAY, expect.across(live.labels[0], own))
    evidence(seen)
    if not seen.reached:
        cannot_prove(f"the link to {segment} is dead, so silence proves nothing: {seen}")


@pytest.mark.controls("IEC-62443-3-3/4-2:SR 1.13")
@pytest.mark.check("gateway.{offer}-from-{segment}")
def test_a_listener_is_reached_from_the_segments_it_is_declared_for_and_from_no_other(live, segment, offer, evidence):
    """A listener, at the gateway's addresses in the segment: reached where declared, silent elsewhere."""
    live.reach  # noqa: B018
    place = live.place(segment)
    targets = [a for a in place.gateway if place.family(a)]
    for address in targets[:1] if offer.listener.broadcast else targets:
        seen = live.was_seen(segment, expect.at_gateway(offer, address))
        if seen is None:
            cannot_prove(f"the suite speaks no {offer.listener.name}")
        evidence(seen)
        if segment in offer.listener.reachable_from:
            assert seen.reached, f"must be reached: {seen}"
            continue
        assert seen.denied, f"must not be reached: {seen}"
        the_link_works(live, evidence, segment, address)
        elsewhere = [s for s in offer.listener.reachable_from if s in live.places]
        answers = [live.was_seen(s, expect.at_gateway(offer, a)) for s in elsewhere for a in live.place(s).gateway]
        if not offer.listener.reachable_from:
            # for the gateway alone
            answers = [live.was_seen(expect.GATEWAY, expect.at_gateway(offer, expect.LOOPBACK))]
        answer = next((a for a in answers if a is not None and a.reached), None)
        if answer is None:
            cannot_prove("it answers nobody at all, so silence proves nothing")
        evidence(answer)


@pytest.mark.check("gateway.other-addresses-from-{segment}")
def test_the_gateways_addresses_in_other_segments_answer_nobody_here(live, segment, evidence):
    """No listener answers at the gateway's addresses in other segments, as Linux would by itself."""
    live.reach  # noqa: B018
    for other, place in live.places.items():
        for address in place.gateway:
            if other == segment or not live.place(segment).family(address):
                continue
            the_link_works(live, evidence, segment, address)
            for offer in expect.offers(live.site, live.name):
                seen = live.was_seen(segment, expect.at_gateway(offer, address))
                if seen is not None and not offer.listener.broadcast:
                    evidence(seen)
                    assert seen.denied, f"must not be reached: {seen}"


@pytest.mark.check("gateway.pings-from-{segment}")
def test_a_ping_is_answered_at_the_address_in_the_segment_and_at_no_other(live, segment, evidence):
    """A ping is answered at the gateway's addresses in the segment, and not at those in other segments."""
    live.reach  # noqa: B018
    for other, place in live.places.items():
        for address in place.gateway:
            if not live.place(segment).family(address):
                continue
            seen = live.seen(segment, expect.pinged(address))
            evidence(seen)
            if other == segment:
                assert seen.reached, f"must be answered: {seen}"
            else:
                assert seen.denied, f"must not be answered: {seen}"


@pytest.mark.controls("ETSI-EN-303-645-v3.1.3:5.5-1", "OWASP-ISVS-1.0+main-2026-06:4.2.1", "RFC-9325:3.2")
@pytest.mark.check("gateway.closed-ports-from-{segment}")
def test_ports_that_must_stay_closed_are_closed_from_every_segment(live, segment, evidence):
    """The ports that stand for plain text and other things not wanted answer at none of the gateway's addresses."""
    live.reach  # noqa: B018
    for place in live.places.values():
        for address in place.gateway:
            if not live.place(segment).family(address):
                continue
            the_link_works(live, evidence, segment, address)
            for label in expect.closed_labels(live.site, live.name):
                seen = live.was_seen(segment, expect.closed_at(label, address))
                if seen is not None:
                    evidence(seen)
                    assert seen.denied, f"must be closed: {seen}"


@pytest.mark.controls("ETSI-EN-303-645-v3.1.3:5.5-1", "OWASP-ISVS-1.0+main-2026-06:4.2.1", "RFC-9325:3.2")
@pytest.mark.check("gateway.closed-ports")
def test_nothing_listens_on_ports_that_must_stay_closed(live, evidence):
    """On the gateway itself, loopback included, nothing listens on the ports that must stay closed."""
    live.reach  # noqa: B018
    for label in expect.closed_labels(live.site, live.name):
        for address in ("127.0.0.1", "::1", *(a for place in live.places.values() for a in place.gateway)):
            seen = live.was_seen(expect.GATEWAY, expect.closed_at(label, address))
            if seen is not None:
                evidence(seen)
                assert not seen.reached, f"must be closed: {seen}"
    answers = [live.was_seen(expect.GATEWAY, expect.at_gateway(offer, address))
               for offer in expect.offers(live.site, live.name) for p in live.places.values() for address in
               p.gateway]  # fmt: skip
    answer = next((a for a in answers if a is not None and a.reached), None)
    if answer is None:
        cannot_prove("no declared listener answers either, so this position proves nothing")
    evidence(answer)


@pytest.mark.asks("scans")
@pytest.mark.check("scan.tcp-from-{segment}")
def test_a_scan_of_all_tcp_ports_finds_exactly_the_declared_ones(live, segment, evidence):
    """nmap on all 65535 TCP ports of the gateway's addresses in the segment finds just what is declared."""
    expected = expect.admitted(live.policy, segment, "tcp")
    for address in live.place(segment).gateway:
        found = live.scan(segment, "tcp", address)
        evidence(found)
        if found.outcome != "scanned":
            cannot_prove(str(found))
        opened = set(found.result["open"])
        assert not opened - expected, f"open without a declaration: {', '.join(sorted(opened - expected))} at {address}"
        assert not expected - opened, f"declared and not open: {', '.join(sorted(expected - opened))} at {address}"
        stray = set(found.result["closed"]) - expected
        assert not stray, (
            f"the firewall lets through what nobody listens for: {', '.join(sorted(stray)[:5])} at {address}"
        )
        if not expected:
            live.reach  # noqa: B018
            the_link_works(live, evidence, segment, address)


@pytest.mark.asks("scans")
@pytest.mark.check("scan.udp-from-{segment}")
def test_a_scan_of_the_common_udp_ports_finds_none_that_is_not_declared(live, segment, evidence):
    """nmap on common and declared UDP ports of the gateway's addresses in the segment finds just what is declared."""
    expected = expect.admitted(live.policy, segment, "udp")
    for address in live.place(segment).gateway:
        found = live.scan(segment, "udp", address)
        evidence(found)
        if found.outcome != "scanned":
            cannot_prove(str(found))
        opened = set(found.result["open"])
        assert not opened - expected, f"open without a declaration: {', '.join(sorted(opened - expected))} at {address}"
        # A declared port that knows no question of nmap's is silent here; that it answers is a check of its own.
        stray = set(found.result["closed"]) - expected
        assert not stray, (
            f"the firewall lets through what nobody listens for: {', '.join(sorted(stray)[:5])} at {address}"
        )
        live.reach  # noqa: B018
        the_link_works(live, evidence, segment, address)


@pytest.mark.asks("scans")
@pytest.mark.check("scan.other-addresses-from-{segment}")
def test_a_scan_of_the_gateways_other_addresses_finds_nothing(live, segment, evidence):
    """nmap on every TCP port that anything here listens on, at the addresses in other segments: nothing answers."""
    live.reach  # noqa: B018
    for other, place in live.places.items():
        for address in place.gateway:
            if other == segment or not live.place(segment).family(address):
                continue
            found = live.scan(segment, "listening", address)
            evidence(found)
            if found.outcome != "scanned":
                cannot_prove(str(found))
            assert not found.result["open"], f"open: {', '.join(found.result['open'])} at {address}"
            assert not found.result["closed"], f"let through: {', '.join(found.result['closed'][:5])} at {address}"
            the_link_works(live, evidence, segment, address)


# Whatever would listen without being declared, be it Avahi, SNMP or TFTP, is found here.
@pytest.mark.controls(
    "NISTIR-8259A:Logical Access to Interfaces/1", "OWASP-ISVS-1.0+main-2026-06:3.2.2",
    "ENISA-IoT-Baseline-2017:GP-TM-45", "CIS-Debian-12-v1.1.0:2.1.2", "CIS-Debian-12-v1.1.0:2.1.15",
    "CIS-Debian-12-v1.1.0:2.1.16", "OWASP-ISVS-1.0+main-2026-06:3.2.3",
    "OWASP-ISVS-1.0+main-2026-06:1.1.2",
)  # fmt: skip
@pytest.mark.check("gateway.sockets")
def test_every_socket_that_listens_is_declared(live, evidence):
    """Every socket that waits for others on the gateway, loopback included, belongs to a declared listener."""
    declared = {offer.listener.label: offer for offer in expect.offers(live.site, live.name)}
    declared |= dict.fromkeys(expect.own_clients(live.site, live.name))
    found = live.sockets
    assert found, "not one socket was found, not even that of SSH"
    for socket in found:
        evidence(
            {
                "from": expect.GATEWAY,
                "sent": "ss -tulpn",
                "got": f"{socket.label} at {socket.address}: {socket.program}",
            }
        )
    # A resolver's or a clock's own questions go out from a port of the kernel's range, and "listen" there for the
    # answer.
    units = {unit for service in live.site.services_of(live.name) for unit in service.units}
    strays = [s for s in found if s.label not in declared and not (s.asks and s.unit in units)]
    assert not strays, f"not declared: {', '.join(f'{s.label} at {s.address} ({s.program})' for s in strays)}"
    legacy = [s for s in found if s.label in LEGACY]
    assert not legacy, f"declared, and a protocol of the past: {', '.join(s.label for s in legacy)}"


@pytest.mark.controls("OWASP-ISVS-1.0+main-2026-06:1.1.2")
@pytest.mark.check("gateway.connections")
def test_every_connection_of_the_gateway_is_declared(live, evidence):
    """Whoever the gateway has a connection with, a declared listener or a declared flow accounts for it."""
    found = live.connections
    for each in found:
        evidence({"from": expect.GATEWAY, "sent": "ss -tunp", "got": str(each)})
    # The question itself came over SSH: where not even that is seen, nothing was looked at.
    ssh = live.site.ssh.port
    assert any(each.port == ssh for each in found), "not one connection was found, not even that of SSH"
    own = {expect.LOOPBACK, "::1", *(a for place in live.places.values() for a in place.gateway)}
    strays = expect.undeclared(live.site, live.name, own, found)
    assert not strays, f"not declared: {', '.join(map(str, strays))}"
