"""Who reaches whom. Every denial stands beside successes over the same links: a dead link is no firewall."""

from __future__ import annotations

import json

import pytest

from gatehouse.proof import expect
from gatehouse.proof.plugin import cannot_prove
from gatehouse.proof.probes.segment import OUTER
from gatehouse.site import INTERNET
from roles.networkd import port, ports
from tests.compliance import egress
from tests.compliance.field import position as host_in

SEPARATED = pytest.mark.controls(
    "OWASP-IoT-Top10-2018:I2",
    "ENISA-IoT-Baseline-2017:GP-TM-47",
    "ENISA-IoT-Baseline-2017:GP-TM-48",
    "NISTIR-8259A:Logical Access to Interfaces/2",
    "IEC-62443-3-3/4-2:FR5",
    "IEC-62443-3-3/4-2:SR 5.1",
    "IEC-62443-3-3/4-2:SR 5.2",
    "IEC-62443-3-3/4-2:NDR 5.2",
)
NAMED_ONLY = pytest.mark.controls("ENISA-IoT-Baseline-2017:GP-TM-43", "ENISA-IoT-Baseline-2017:GP-TM-44")

pytestmark = pytest.mark.asks("reach")


def both_links_work(live, evidence, segment, towards, label, address):
    """The gateway reaches the listener of the denied target, and one beside the denied sender, in the same family."""
    far = live.seen(expect.GATEWAY, expect.across(label, address))
    near_address = next(a for a in live.place(segment).addresses if (":" in a) == (":" in address))
    near = live.seen(expect.GATEWAY, expect.across(live.labels[0], near_address))
    evidence(far)
    evidence(near)
    for seen, what in ((far, towards), (near, segment)):
        if not seen.reached:
            cannot_prove(f"the link to {what} is dead, so silence proves nothing: {seen}")


def is_denied(live, evidence, seen, segment, towards, label, address):
    assert seen.denied, f"must not be reached: {seen}"
    both_links_work(live, evidence, segment, towards, label, address)


@SEPARATED
@pytest.mark.check("segments.{segment}-to-{towards}")
def test_a_segment_reaches_of_another_what_it_may_and_nothing_else(live, segment, towards, evidence):
    """From one segment to another, on every port that means something here: as declared."""
    heard = live.reach[towards]
    asked = 0
    for address in live.place(towards).addresses:
        for label in live.labels if live.place(segment).family(address) else ():
            seen = live.seen(segment, expect.across(label, address))
            evidence(seen)
            asked += 1
            if expect.permitted(live.policy, segment, towards, address, label):
                assert seen.reached, f"must be reached: {seen}"
            else:
                leaked = [line for line in heard if line.startswith(expect.said(segment, label, address))]
                assert not leaked, f"arrived, though nothing came back: {leaked[0]}"
                is_denied(live, evidence, seen, segment, towards, label, address)
    if not asked:
        cannot_prove(f"{segment} and {towards} have no family of addresses in common")


@SEPARATED
@pytest.mark.asks("forged")
@pytest.mark.controls("CIS-Debian-12-v1.1.0:3.3.7")
@pytest.mark.check("segments.forged-senders-from-{segment}")
def test_a_segment_cannot_speak_with_the_addresses_of_another(live, segment, evidence):
    """Packets with another segment's sender address are dropped, and with one that is no segment's."""
    heard = live.reach
    egress.is_dropped_for_its_sender(live, evidence, "inside" if segment == INTERNET else f"from_{segment}")
    label = live.datagrams
    tried = 0
    for who, pretended, towards in expect.spoofs(live.policy, live.places):
        if who != segment:
            continue
        for address in live.place(towards).addresses:
            for source in live.place(pretended).addresses:
                sent = live.was_seen(segment, f"spoof:{source}>{address}")
                if sent is None:
                    continue
                evidence(sent)
                tried += 1
                assert sent.outcome == "sent", f"could not be sent: {sent}"
                honest = live.seen(pretended, expect.across(label, address))
                evidence(honest)
                if not honest.reached:
                    cannot_prove(f"the honest sender is not heard either: {honest}")
        forged = [line for line in heard[towards] if line.startswith(f"{segment} as {pretended}")]
        assert not forged, f"a forged packet arrived in {towards}: {forged[0]}"
    if not tried:
        cannot_prove("no other segment may reach anything that this one could reach in its name")


def is_as_permitted_on_the_internet(live, evidence, segment, label, address):
    """A real host out there: reached or not, as the policy has it. Returns whether that could be told."""
    seen, control = (live.seen(position, expect.across(label, address)) for position in (segment, expect.GATEWAY))
    evidence(seen)
    evidence(control)
    if expect.permitted(live.policy, segment, INTERNET, address, label):
        if ":" in address and live.place(segment).has_only_local_ipv6 and seen.denied:
            return False  # nobody out there routes an answer to a ULA (RFC 4193 §4.1): the firewall has no part in it
        if not (seen.reached or control.reached):
            cannot_prove(f"it answers nobody just now: {control}")
        assert seen.reached, f"must be reached: {seen}"
    else:
        assert seen.denied, f"must not be reached: {seen}"
        if not control.reached:
            cannot_prove(f"it answers nobody just now: {control}")
    return True


@NAMED_ONLY
@pytest.mark.inside
@pytest.mark.check("destinations.{destination}-from-{segment}")
def test_a_named_destination_is_reached_by_those_who_may(live, site, segment, destination, evidence):
    """A named service on the internet: reached from the segments it is declared for, and from no other."""
    live.reach  # noqa: B018  asked now
    named = site.destinations[destination]
    label = f"{named.port}/{named.transport}"
    addresses = [str(n.network_address) for n in named.addresses if n.num_addresses == 1]
    told = [is_as_permitted_on_the_internet(live, evidence, segment, label, address)
            for address in addresses if live.place(segment).family(address)]  # fmt: skip
    if not any(told):
        cannot_prove("no single address of it can be asked")


@SEPARATED
@pytest.mark.check("segments.ports")
def test_each_segment_has_its_declared_port_and_no_other(live, evidence):
    """In each segment's bridge is the port that the site names, with its VLAN's tag, and nothing else."""
    links = json.loads(live.run("ip", "-json", "-details", "link", "show").result["output"])
    declared = ports(live.site, live.name)
    found = {link["ifname"]: link for link in links if link.get("master") in declared.values()}
    own = {name: link for name, link in found.items() if not name.startswith(OUTER)}
    for name, link in own.items():
        evidence({"from": "gateway", "sent": f"port {name}", "got": f"in {link['master']}"})
    strays = [f"{name} is in {link['master']}" for name, link in own.items() if declared.get(name) != link["master"]]
    assert not strays, f"of no segment as declared: {', '.join(strays)}"
    tagged = {
        port(live.site, live.name, segment): live.site.segments[segment].vlan
        for segment, network in live.site.gateways[live.name].networks.items()
        if network.trunk
    }
    for name, vlan in tagged.items():
        data = own.get(name, {}).get("linkinfo", {}).get("info_data", {})
        evidence({"from": "gateway", "sent": f"tag of {name}", "got": data.get("id", "none: it is not there")})
        assert name not in own or (data.get("id"), data.get("protocol")) == (vlan, "802.1Q"), f"{name}: {data}"
    if missing := sorted(declared.keys() - own.keys()):
        cannot_prove(f"{missing[0]} is not in {declared[missing[0]]}: not plugged in?")


@NAMED_ONLY
@pytest.mark.inside
@pytest.mark.check("destinations.others-from-{segment}")
def test_what_is_on_the_internet_and_not_named_is_reached_only_by_those_who_may_reach_all(live, segment, evidence):
    """Real hosts on the internet, on ports that are named for nobody or for others: as declared."""
    live.reach  # noqa: B018
    told = [is_as_permitted_on_the_internet(live, evidence, segment, label, address)
            for towards, label, address in live.outside
            if towards == INTERNET and live.place(segment).family(address)]  # fmt: skip
    if not any(told):
        cannot_prove("no other host on the internet is known to answer")


@SEPARATED
@pytest.mark.check("segments.hosts-agree-in-{segment}")
def test_a_probe_in_the_bridge_sees_what_a_separate_host_sees(live, segment, evidence):
    """What a probe in the segment's bridge sees is what a host on the segment's own cable sees."""
    live.reach  # noqa: B018
    if live.field is None:
        cannot_prove("only a lab has hosts around the gateway that the suite may use")
    compared = 0
    for own, theirs in live.pairs(segment, host_in(segment)):
        evidence(theirs)
        compared += 1
        assert (own.let_in, own.denied) == (theirs.let_in, theirs.denied), f"they differ: {own}; {theirs}"
    assert compared, "nothing was asked by both"
