"""The mutants of a firewall: each rule removed, each that lets through widened; and what becomes of a packet then."""

from __future__ import annotations

import pytest

from lab.sabotage.mutants import mutants
from lab.sabotage.packets import Packet, fate
from lab.sabotage.rules import MutationError, Ruleset
from tests.unit.firewall import ACCEPT, LED, RULES, listing, named, names


@pytest.fixture
def ruleset() -> Ruleset:
    return Ruleset.read(listing())


# the mutants


def test_every_rule_is_removed_once(ruleset: Ruleset) -> None:
    removed = [mutant for mutant in mutants(ruleset) if mutant.name.endswith("/ removed")]
    assert [m.rule for m in removed] == ruleset.rules
    assert removed[0].command(ruleset) == "delete rule inet gatehouse spoofing handle 101"


def test_every_match_of_a_rule_that_lets_through_is_left_out_in_turn(ruleset: Ruleset) -> None:
    rule = 'input: iifname "br-guest" ip daddr 10.0.3.1 tcp dport 53 accept / '
    assert [n.removeprefix(rule) for n in names(ruleset) if n.startswith(rule)] == [
        "removed", "without iifname", "without ip daddr", "without tcp dport",
    ]  # fmt: skip
    assert named(ruleset, f"{rule}without ip daddr").command(ruleset) == (
        'insert rule inet gatehouse input handle 104 iifname "br-guest" tcp dport 53 counter accept;'
        " delete rule inet gatehouse input handle 104"
    )


def test_a_rule_that_leads_to_where_it_is_let_through_is_widened_too(ruleset: Ruleset) -> None:
    rule = 'input: iifname "br-iot" ip daddr 10.0.1.1 tcp dport { 53, 8883 } goto let_in / without iifname'
    assert rule in names(ruleset)
    assert 'forward: iifname "br-iot" oifname "br-net" ether saddr vmap @own / to_cloud for everybody' in names(ruleset)
    assert 'translate: oifname "br-net" masquerade / without oifname' in names(ruleset)


def test_a_rule_that_leads_each_to_their_chain_loses_one_after_the_other_and_leads_everybody_there() -> None:
    ruleset = Ruleset.read(listing(LED))
    rule = "input: iifname vmap {…} / "
    assert [n.removeprefix(rule) for n in names(ruleset) if n.startswith(rule)] == [
        "removed", "without br-guest", "without br-iot", "guests for everybody", "things for everybody",
    ]  # fmt: skip
    assert 'iifname vmap { "br-iot" : goto things };' in named(ruleset, f"{rule}without br-guest").command(ruleset)
    assert "spoofing: iifname vmap {…} / without br-guest" in names(ruleset), "where nothing is let through, too"


def test_a_rate_is_taken_from_who_accepts_by_it_and_the_rule_away_that_drops_by_it(ruleset: Ruleset) -> None:
    assert "input: icmp type echo-request limit rate 20/second burst 20 packets accept / without limit" in names(
        ruleset
    )
    over = [name for name in names(ruleset) if "limit rate over" in name]
    assert [name.rsplit(" / ", 1)[1] for name in over] == ["removed"]


def test_a_rule_that_only_drops_is_not_widened(ruleset: Ruleset) -> None:
    assert [n for n in names(ruleset) if n.startswith("spoofing: ") and not n.endswith("removed")] == []


def test_a_set_is_emptied_where_it_bars_and_widened_where_it_lets_through(ruleset: Ruleset) -> None:
    found = [name for name in names(ruleset) if name.startswith("set ")]
    assert found == ["set from_guest / widened", "set bogons / emptied", "set cloud / widened"]
    widened, emptied = (named(ruleset, name).command(ruleset) for name in found[:2])
    assert widened == "flush set inet gatehouse from_guest; add element inet gatehouse from_guest { 0.0.0.0/0 }"
    assert emptied == "flush set inet gatehouse bogons"


def test_a_policy_that_drops_is_turned(ruleset: Ruleset) -> None:
    assert [name for name in names(ruleset) if name.startswith("chain ")] == [
        "chain input / policy accept",
        "chain forward / policy accept",
    ]


def test_a_mutant_finds_its_rule_under_the_handle_that_it_has_now(ruleset: Ruleset) -> None:
    later = Ruleset.read(listing().replace('"handle": 104', '"handle": 904'))
    mutant = next(m for m in mutants(ruleset) if m.rule is not None and m.rule.handle == 104)
    assert mutant.command(later).endswith("handle 904")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no ruleset"),
        ("{}", "no ruleset"),
        ('{"nftables": [1]}', "no ruleset"),
        ('{"nftables": [{"table": {}}]}', "not one rule"),
        (listing(RULES, {"flowtable": {"name": "f"}}), "nobody knows how to mutate a flowtable"),
    ],
)
def test_what_is_no_ruleset_or_holds_what_nobody_knows_is_refused(text: str, says: str) -> None:
    with pytest.raises(MutationError, match=says):
        Ruleset.read(text)


def test_a_rule_that_nobody_can_say_is_an_error_and_not_left_out() -> None:
    with pytest.raises(MutationError, match="a rule with 'synproxy'"):
        mutants(Ruleset.read(listing({**RULES, "to_cloud": [[{"synproxy": {}}]]})))


def test_the_same_rule_twice_is_an_error() -> None:
    twice = {**RULES, "let_in": [[ACCEPT], [ACCEPT]]}
    with pytest.raises(MutationError, match="the same rule twice: let_in: accept / removed"):
        mutants(Ruleset.read(listing(twice)))


# what becomes of a packet


@pytest.mark.parametrize(
    ("packet", "wanted"),
    [
        (Packet("br-guest", "", "10.0.3.9", "10.0.3.1", "tcp", 53), "accept"),
        (Packet("br-guest", "", "10.0.3.9", "10.0.3.1", "udp", 53), "drop"),
        (Packet("br-guest", "", "10.0.4.9", "10.0.3.1", "tcp", 53), "drop"),
        (Packet("br-iot", "", "10.0.1.9", "10.0.1.1", "tcp", 8883), "accept"),
        (Packet("br-iot", "", "10.0.1.9", "10.0.1.1", "tcp", 22), "drop"),
        (Packet("br-guest", "br-net", "10.0.3.9", "192.0.2.1", "tcp", 1), "translated"),
        (Packet("br-iot", "br-net", "10.0.1.9", "192.0.2.80", "tcp", 443, hardware="02:00:00:00:00:01"), "translated"),
        (Packet("br-iot", "br-net", "10.0.1.9", "192.0.2.80", "tcp", 443), "drop"),
        (Packet("br-net", "", "240.0.0.1", "192.0.2.2", "tcp", 53, state="established"), "drop"),
        (Packet("br-net", "", "192.0.2.1", "192.0.2.2", "tcp", 0, state="established"), "accept"),
    ],
)
def test_a_packet_goes_the_way_that_the_ruleset_gives_it(ruleset: Ruleset, packet: Packet, wanted: str) -> None:
    assert fate(ruleset, packet) == wanted


@pytest.mark.parametrize(
    ("packet", "mutant", "wanted"),
    [
        (Packet("br-guest", "", "10.0.3.9", "10.0.3.1", "tcp", 53), "", "accept"),
        (Packet("br-guest", "", "10.0.3.9", "10.0.3.1", "tcp", 53), "without br-guest", "drop"),
        (Packet("br-iot", "", "10.0.1.9", "10.0.3.1", "tcp", 53), "", "drop"),
        (Packet("br-iot", "", "10.0.1.9", "10.0.3.1", "tcp", 53), "guests for everybody", "accept"),
        (Packet("br-iot", "", "10.0.1.9", "10.0.1.1", "tcp", 8883), "", "accept"),
        (Packet("br-net", "", "192.0.2.9", "10.0.1.1", "tcp", 8883), "", "drop"),
        (Packet("br-net", "", "192.0.2.9", "10.0.1.1", "tcp", 8883), "things for everybody", "accept"),
        (Packet("br-guest", "", "10.0.4.9", "10.0.3.1", "tcp", 53), "", "drop"),
    ],
)
def test_a_packet_is_led_to_the_chain_of_its_interface(packet: Packet, mutant: str, wanted: str) -> None:
    ruleset = Ruleset.read(listing(LED))
    if mutant:
        ruleset = next(m for m in mutants(ruleset) if m.touches == "input 0" and mutant in m.name).mutated(ruleset)
    assert fate(ruleset, packet) == wanted


def test_a_mutant_changes_the_way_of_what_it_concerns_and_of_nothing_else(ruleset: Ruleset) -> None:
    other = Packet("br-iot", "", "10.0.1.9", "10.0.3.1", "tcp", 53)
    mutant = named(ruleset, 'input: iifname "br-guest" ip daddr 10.0.3.1 tcp dport 53 accept / without iifname')
    mutated = mutant.mutated(ruleset)
    assert (fate(ruleset, other), fate(mutated, other)) == ("drop", "accept")
    last = named(ruleset, "input: drop / removed").mutated(ruleset)
    assert fate(last, other) == "drop", "the policy drops it all the same"
