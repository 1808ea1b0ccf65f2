"""What devices may use on the internet, whom they reach beside them, and what happens to one that wants too much."""

from __future__ import annotations

import json
from ipaddress import ip_address

import pytest

from gatehouse.proof import expect
from gatehouse.proof.channel import ProbeError
from gatehouse.proof.plugin import cannot_prove
from gatehouse.site import INTERNET
from tests.compliance import egress
from tests.compliance.refusals import refusals

RESTRICTIVE = pytest.mark.controls("ENISA-IoT-Baseline-2017:GP-TM-43", "ENISA-IoT-Baseline-2017:GP-TM-44")
GUARDED = pytest.mark.controls("IEC-62443-3-3/4-2:SR 5.2")
DISCREET = pytest.mark.controls("ETSI-EN-303-645-v3.1.3:5.6-2")
APART = pytest.mark.controls("ENISA-IoT-Baseline-2017:GP-TM-47", "ENISA-IoT-Baseline-2017:GP-TM-48")
MEASURED = pytest.mark.controls(
    "ENISA-IoT-Baseline-2017:GP-TM-46",
    "EU-CRA-2024/2847:Annex I Part I (2)(i)",
    "ETSI-EN-303-645-v3.1.3:5.9-3",
    "IEC-62443-3-3/4-2:SR/CR 7.1",
)


def granted(live, grant):
    found = egress.grants(live)[grant]
    if isinstance(found, ProbeError):
        cannot_prove(str(found))
    return found


@RESTRICTIVE
@pytest.mark.asks("egress")
@pytest.mark.check("egress.{grant}-for-those-on-its-list")
def test_a_device_reaches_what_its_list_names(live, site, grant, evidence):
    """From the place of a device on the list: each name is resolved, and each of its addresses is reached."""
    found = granted(live, grant)
    for seen in found.resolved:
        evidence(seen)
        assert seen.reached, f"the resolver must answer: {seen}"
    if site.destinations[grant].names:
        names = [address for seen in found.resolved for address in seen.result.get("addresses", ())]
        if not names:
            cannot_prove("none of its names has an address just now")
    asked = 0
    for seen in found.may:
        control = found.control[seen.probe["address"]]
        evidence(seen)
        evidence(control)
        if not (seen.reached or control.reached):
            continue
        asked += 1
        address = seen.probe["address"]
        if ":" in address and found.local_only and seen.denied:
            # nobody out there routes an answer to a ULA (RFC 4193 §4.1): that it leaves is all that can be seen
            evidence({"from": "gateway", "sent": f"capture of what leaves for {address}", "got": str(found.left)})
            assert address in found.left, f"must leave for the internet: {seen}"
            continue
        assert seen.reached, f"must be reached: {seen}"
    if not asked:
        cannot_prove("nobody answers there just now, not even the gateway")


@RESTRICTIVE
@pytest.mark.asks("egress")
@pytest.mark.check("egress.{grant}-for-no-others")
def test_a_list_opens_nothing_for_others_and_no_other_port(live, grant, evidence):
    """A neighbour that is not on the list does not reach it, nor does a listed one reach another port there."""
    found = granted(live, grant)
    for seen in (*found.may_not, *found.other_port):
        evidence(seen)
        assert seen.denied, f"must not be reached: {seen}"
    evidence({"from": "gateway", "sent": "capture of what leaves", "got": f"of others: {found.leaked}"})
    assert not found.leaked, f"left for the internet: {found.leaked[0]}"
    reached = [seen for seen in found.may if seen.reached]
    if not found.other_port or not reached:
        cannot_prove("not even those on the list reach it, so silence proves nothing")
    evidence(reached[0])


@APART
@pytest.mark.asks("neighbours")
@pytest.mark.check("segments.neighbours-in-{isolated}")
def test_a_device_does_not_reach_its_neighbour(live, isolated, evidence):
    """In a segment with isolated ports a host reaches the gateway and not its neighbour, which answers the gateway."""
    try:
        found = egress.neighbours(live)[isolated]
    except ProbeError as error:
        cannot_prove(str(error))
    for seen, control in zip(found.asked, found.control, strict=True):
        evidence(seen)
        evidence(control)
        # nobody answers the ARP request or the solicitation: the position's own kernel says that there is no such host
        assert not seen.let_in and seen.outcome != "refused", f"must not be reached: {seen}"
        if not control.reached:
            cannot_prove(f"the neighbour does not answer the gateway either: {control}")


@APART
@pytest.mark.asks("neighbours")
@pytest.mark.check("segments.pretenders-in-{isolated}")
def test_who_pretends_to_be_router_or_address_server_is_not_heard(live, isolated, evidence):
    """Router advertisements and DHCP offers of a host in an isolated segment arrive at no other host there."""
    try:
        found = egress.neighbours(live)[isolated]
    except ProbeError as error:
        cannot_prove(str(error))
    for seen in (found.pretended, found.heard, found.heard_by_gateway):
        evidence(
            {"from": seen.position, "sent": seen.probe["kind"], "got": str(seen.result.get("heard", seen.outcome))}
        )
    heard, near = found.heard.result.get("heard"), found.heard_by_gateway.result.get("heard")
    assert heard == [], f"heard beside it: {heard}"
    if near != ["router", "server"]:
        cannot_prove(f"not even the gateway heard it: {near}; {found.pretended}")


@MEASURED
@pytest.mark.asks("floods")
@pytest.mark.controls("IEC-62443-3-3/4-2:FR7")
@pytest.mark.check("limits.{limited}")
def test_who_wants_more_connections_than_it_may_gets_no_more_and_is_noted(live, limited, evidence):
    """Connections that one host asks for at once: some come about, no more than declared, and the gateway counts it."""
    found = egress.floods(live).get(limited)
    if found is None:
        cannot_prove(f"{limited} reaches no listener over TCP")
    opened = found.seen.result.get("opened", -1)
    evidence({**found.seen.evidence(), "sent": f"{found.asked} connections", "got": f"{opened} of them"})
    assert opened <= found.at_most, f"{opened} of {found.asked} connections came about, at most {found.at_most} may"
    if opened < 1:
        cannot_prove(f"not one connection came about: {found.seen}")
    if found.at_most >= found.asked:
        cannot_prove(f"asking for {found.asked} took so long that all of them were allowed: {found.seen}")
    listed = json.loads(found.counted.result["output"])["nftables"]
    noted = [" on ".join(e["elem"]["val"]["concat"]) for x in listed for e in x.get("set", {}).get("elem", ())]
    evidence({"from": "gateway", "sent": "nft list set inet gatehouse over_limit", "got": ", ".join(noted) or "nobody"})
    assert noted, "nobody is noted for it"


@RESTRICTIVE
@pytest.mark.asks("resolvers")
@pytest.mark.check("resolvers.foreign-from-{asks_here}")
def test_names_are_asked_of_the_gateway_and_of_nobody_else(live, asks_here, evidence):
    """Resolvers on the internet that the site lists: no port for names, and none over HTTPS, is reached from here."""
    seen, control = egress.resolvers(live).get(asks_here, ([], []))
    for probe in seen:
        evidence(probe)
        assert probe.denied, f"must not be reached: {probe}"
    answering = [probe for probe in control if probe.reached]
    if not answering:
        cannot_prove("the resolvers answer nobody just now, or none is listed by a single address")
    evidence(answering[0])


@pytest.mark.asks("routers")
@pytest.mark.inside
@GUARDED
@pytest.mark.check("resolvers.advertised-in-{segment}")
def test_the_gateway_advertises_its_prefix_and_its_resolver(live, segment, evidence):
    """Over IPv6 the gateway alone calls itself a router, for its own prefix, and names itself as the resolver."""
    served = live.policy.admits(segment, 53, "udp", segment) and live.policy.admits(segment, 67, "udp", segment)
    prefixes = [str(p) for p in live.site.gateways[live.name].networks[segment].prefixes if p.version == 6]
    seen = egress.routers(live)[segment]
    evidence({**seen.evidence(), "got": json.dumps(seen.result)})
    if not prefixes or not served:
        assert not seen.reached, f"advertised without a declaration: {seen.result}"
        cannot_prove(f"{segment} has no IPv6, or takes no addresses from the gateway")
    assert seen.reached, f"no router answers in {segment}"
    assert seen.result["prefixes"] == prefixes, f"prefixes {seen.result['prefixes']}, declared {prefixes}"
    own = [str(a) for a in live.site.gateways[live.name].networks[segment].addresses if a.version == 6]
    assert seen.result["resolvers"] == own, f"resolvers {seen.result['resolvers']}, declared {own}"
    assert seen.result["life"] > 0, "advertised without being a router"
    assert ip_address(seen.result["server"]).is_link_local


def asked_of(live, segment, service, listener):
    """The probe of a listener from a segment, and the gateway's IPv4 addresses there; or it can't be proven."""
    live.reach  # noqa: B018  asked now
    offer = next((o for o in expect.offers(live.site, live.name) if o.name == f"{service}.{listener}"), None)
    own = [str(a) for a in live.site.gateways[live.name].networks[segment].addresses if a.version == 4]
    if offer is None or segment not in offer.listener.reachable_from or not own:
        cannot_prove(f"{segment} is not served by {service} over IPv4")
    return live.seen(segment, expect.at_gateway(offer, own[0])), own


@pytest.mark.asks("reach")
@pytest.mark.inside
@GUARDED
@pytest.mark.check("resolvers.handed-out-in-{segment}")
def test_dhcp_names_the_gateway_as_router_resolver_and_clock(live, segment, evidence):
    """Who asks for an address is told the gateway's in the segment: as the router, for names, and for the time."""
    seen, own = asked_of(live, segment, "dnsmasq", "dhcp")
    evidence({**seen.evidence(), "got": json.dumps(seen.result)})
    assert seen.reached, f"nobody hands out addresses: {seen}"
    served = {"routers": True, "resolvers": live.policy.admits(segment, 53, "udp", segment)}
    served["time_servers"] = live.policy.admits(segment, 123, "udp", segment)
    for what, wanted in served.items():
        assert seen.result.get(what, []) == (own if wanted else []), f"{what}: {seen.result.get(what)}, declared {own}"


@pytest.mark.asks("reach")
@pytest.mark.inside
@DISCREET
@pytest.mark.check("resolvers.own-name-in-{segment}")
def test_the_gateway_s_name_is_its_address_in_the_segment_of_who_asks(live, segment, evidence):
    """The gateway's own name is answered with its address in the asker's segment, and with no other."""
    seen, own = asked_of(live, segment, "dnsmasq", "dns")
    evidence({**seen.evidence(), "got": json.dumps(seen.result)})
    assert seen.reached, f"the resolver must answer: {seen}"
    assert seen.result["addresses"] == own, f"answered {seen.result['addresses']}, here it is {own}"


@pytest.mark.controls("CIS-Debian-12-v1.1.0:3.3.7")
@pytest.mark.asks("forged")
@pytest.mark.check("segments.impossible-senders-from-internet")
def test_what_comes_from_nowhere_is_dropped(live, evidence):
    """A datagram from the internet whose sender can't exist is dropped before anything else is looked at."""
    if INTERNET not in live.places:
        cannot_prove("no position on the internet side")
    egress.is_dropped_for_its_sender(live, evidence, "bogons")


@pytest.mark.inside
@pytest.mark.controls("IEC-62443-3-3/4-2:FR6", "ENISA-IoT-Baseline-2017:GP-TM-55")
@pytest.mark.asks("refusals")
@pytest.mark.check("segments.refusals-from-{segment}")
def test_who_is_refused_is_noted(live, segment, evidence):
    """Who is refused, at the gateway, onwards or for a forged sender, is counted by its hardware address."""
    live.place(segment)
    for found in refusals(live)[segment]:
        evidence(found.sent)
        evidence(
            {"from": "gateway", "sent": f"nft list set {found.what}", "got": f"{found.risen} more of {found.hardware}"}
        )
        assert not found.sent.reached, f"must not be reached: {found.sent}"
        assert found.risen >= 1, f"not noted in {found.what}: {found.sent}"


@RESTRICTIVE
@pytest.mark.check("segments.no-helpers")
def test_no_connection_opens_another(live, evidence):
    """No connection tracking helper is at work: what a device says in a connection opens no port."""
    listed = live.run("sh", "-c", "nft -s list ruleset | grep -E '^table inet gatehouse |ct helper'")
    lines = [line.strip() for line in str(listed.result.get("output", "")).splitlines()]
    assert "table inet gatehouse {" in lines, "the kit's table could not be listed"
    at_work = [line for line in lines if "ct helper" in line]
    switch = live.run("sh", "-c", "cat /proc/sys/net/netfilter/nf_conntrack_helper 2>/dev/null || echo none")
    by_itself = str(switch.result.get("output", "")).strip()
    evidence({"from": "gateway", "sent": "nft list ruleset", "got": f"{len(at_work)} helpers; by itself: {by_itself}"})
    assert not at_work, f"a helper is at work: {at_work[0]}"
    assert by_itself in ("none", "0"), "the kernel gives helpers to connections by itself"
