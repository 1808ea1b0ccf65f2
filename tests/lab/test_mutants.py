"""A few mutants of the firewall on a live gateway: told by probes and by comparison, and the declared ruleset is back.

`./kit sabotage --mutate` makes all of them.
"""

from __future__ import annotations

import functools

import pytest

from lab.sabotage import mutation, mutation_report
from lab.sabotage.mutants import mutants
from lab.sabotage.mutation_bench import Console
from lab.sabotage.rules import Ruleset
from tests.checkout import Checkout
from tests.lab.gateways import Gateway

pytestmark = pytest.mark.timeout(600)

# Rules in and through, and for senders, each with a check that must tell it.
SAMPLE = {
    "in_guest: ip daddr * udp dport 53 accept / removed": "gateway.dnsmasq.dns-from-guest",
    "in_guest: ip6 daddr * udp dport 53 accept / without ip6 daddr": "gateway.other-addresses-from-*",
    "input: iifname vmap {…} / in_management for everybody": "gateway.*",
    'onwards_management: oifname "br-iot" accept / removed': "segments.management-to-iot",
    'onwards_guest: oifname "br-internet" accept / without oifname': "segments.guest-to-*",
    "set from_management_6 / widened": "segments.forged-senders-from-management",
}


def test_mutants_are_told_by_the_checks_that_ask_and_the_ruleset_is_back(gateway: Gateway, here: Checkout) -> None:
    gateway.is_hardened = False
    made = mutation.mutate(here.site, SAMPLE, say=functools.partial(print, flush=True))
    report = mutation_report.Report(made, tuple(mutation_report.reviews()))
    assert report.succeeded, mutation_report.table(report)
    assert len(made.outcomes) == len(SAMPLE)
    for outcome in made.outcomes:
        (check,) = [c for pattern, c in SAMPLE.items() if mutation.matching([pattern], [outcome.name])]
        assert outcome.compared, outcome.name
        assert mutation.matching([check], outcome.checks), f"{outcome.name}: {outcome.checks}"
    gateway.stays_converged()


def test_whoever_leaves_in_the_middle_leaves_the_declared_ruleset(gateway: Gateway, here: Checkout) -> None:
    gateway.is_hardened = False
    declared = gateway("nft -s list chain inet gatehouse input")
    with pytest.raises(KeyboardInterrupt), Console(here.site, gateway.host) as console:
        now = Ruleset.read(console.listing())
        assert console.is_as_loaded()
        assert console.apply([next(m for m in mutants(now) if m.name == "input: drop / removed").command(now)]) == ""
        assert not console.is_as_loaded()
        said = console.apply(["delete chain inet gatehouse nothing"])
        assert said.startswith(("Error", "/dev/stdin")), said
        raise KeyboardInterrupt
    assert gateway("nft -s list chain inet gatehouse input") == declared
    gateway.stays_converged()
