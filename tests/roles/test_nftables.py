"""The ruleset with devices' lists and limits, judged and loaded by the real nft in a network of its own."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

import pytest

from gatehouse.site import load
from lab.sabotage.mutants import Mutant, mutants
from lab.sabotage.rules import Ruleset, verdict_target
from roles import rendering
from roles.base.version import ROOT
from roles.nftables import ruleset
from roles.nftables.facts import DIGEST
from roles.target import Target

MANY = 2_000
LISTS = {
    "updates": {"names": ["updates.example.com"], "port": 443, "models": ["relay"]},
    "cloud": {"addresses": ["8.8.8.0/24", "8.8.8.8", "2600:1f00::/40"], "port": 443, "segments": ["iot"]},
}
LIMITED = {"vlan": 10, "limits": {}, "own_resolver": True, "isolated": True}


def text_for(target: Target) -> str:
    """The ruleset as this machine's nft takes it: it has none of the gateway's accounts."""
    return re.sub(r"skuid != \{[^}]*\}", "skuid != { root }", ruleset.ruleset(target).content.decode())


def devices(number: int) -> list[dict[str, Any]]:
    return [
        {
            "name": f"relay-{n}",
            "model": "relay",
            "gateway": "gw",
            "hardware_address": f"02:00:00:00:{n >> 8:02x}:{n & 255:02x}",
            **({"address": f"10.10.{10 + (n >> 8)}.{n & 255}"} if n % 2 and n & 255 not in (0, 1, 255) else {}),
        }
        for n in range(number)
    ]


@pytest.fixture(scope="module")
def made(programs: Callable[..., None], gateway_of: Callable[..., Target]) -> Callable[[int], Target]:
    programs("nft", "nftables")
    programs("ip", "iproute2")

    def make(number: int) -> Target:
        segments = {
            "iot": LIMITED,
            "management": {"vlan": 20, "reaches": ["internet"]},
            "guest": {"vlan": 30, "reaches": ["internet"]},
            "internal": {},
            "internet": {},
        }
        gateway = gateway_of().gateway.model_dump()
        gateway["networks"]["iot"]["ipv4"] = "10.10.10.1/16"
        gateway["networks"]["guest"]["ipv4"] = "10.11.30.1/24"
        gateway["networks"]["management"]["ipv4"] = "10.11.20.1/24"
        return gateway_of(
            segments=segments, gateways={"gw": gateway}, destinations=LISTS, devices=devices(number), psk=True
        )

    return make


@pytest.fixture
def within() -> Iterator[Callable[..., str]]:
    """Runs shell in a network namespace."""
    name = f"gh-nft-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)

    def run(script: str) -> str:
        done = subprocess.run(["ip", "netns", "exec", name, "sh", "-c", script], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    try:
        yield run
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False)


def test_more_devices_are_more_elements_and_no_more_rules(made: Callable[[int], Target]) -> None:
    few, many = (ruleset.ruleset(made(number)).content.decode() for number in (10, MANY))
    assert many.count("\n") == few.count("\n")
    assert "02:00:00:00:07:cf : jump profile_1" in many.replace(" . 10.10.17.207", "")


def test_names_outlive_a_reload_and_a_reload_is_no_difference(
    made: Callable[[int], Target], within: Callable[..., str], tmp_path: Path
) -> None:
    target = made(MANY)
    file, loader, loaded = tmp_path / "firewall.nft", tmp_path / "firewall", tmp_path / "loaded"
    file.write_text(text_for(target))
    digest = DIGEST.format(file=file)
    script = rendering.template("nftables", ruleset.LOADER, ruleset=str(file), loaded=str(loaded), digest=digest)
    loader.write_text(script.content.decode().replace("/run/gatehouse", str(tmp_path)))
    within(f"sh {loader}")
    first = loaded.read_text()
    (name,) = ruleset.names(target)
    four, six = (ruleset.name_set(name, version) for version in (4, 6))
    within(f"nft add element inet gatehouse {four} {{ 8.8.4.9 }}; nft add element inet gatehouse {six} {{ 2600::1 }}")
    within("nft add element inet gatehouse over_limit { 02:00:00:00:00:01 . br-iot }")
    assert within(digest) == first, "what packets and names put into sets is no change of the ruleset"
    within(f"sh {loader}")
    assert "8.8.4.9 expires" in within(f"nft list set inet gatehouse {four}")
    assert "2600::1 expires" in within(f"nft list set inet gatehouse {six}")
    assert loaded.read_text() == first
    within("nft delete element inet gatehouse own_hardware_6 { 02:00:00:00:00:01 }")
    assert within(digest) != first, "what was taken out of a map by hand is one"


def test_a_name_that_is_gone_from_the_site_is_not_carried_on(
    made: Callable[[int], Target], within: Callable[..., str], tmp_path: Path
) -> None:
    target = made(3)
    file, loader = tmp_path / "firewall.nft", tmp_path / "firewall"
    text = text_for(target)
    file.write_text(text)
    script = rendering.template("nftables", ruleset.LOADER, ruleset=str(file), loaded="/dev/null", digest="true")
    loader.write_text(script.content.decode().replace("/run/gatehouse", str(tmp_path)))
    within(f"sh {loader}")
    (name,) = ruleset.names(target)
    within(f"nft add element inet gatehouse {ruleset.name_set(name, 4)} {{ 8.8.4.9 }}")
    file.write_text(text.replace(ruleset.name_set(name, 4), "name_0123456789ab_4"))
    within(f"sh {loader}")
    assert "8.8.4.9" not in within("nft list table inet gatehouse")


def test_bogons_are_fewer_behind_another_router(made: Callable[[int], Target]) -> None:
    network = made(0).gateway.networks["internet"]
    public = ruleset.bogons(network.model_copy(update={"upstream": "public"}))
    assert "10.0.0.0/8" in public[4] and "fc00::/7" in public[6] and "127.0.0.0/8" in public[4]
    for private in (network, network.model_copy(update={"upstream": "private"})):
        found = ruleset.bogons(private)
        assert "10.0.0.0/8" not in found[4] and "fc00::/7" not in found[6] and "127.0.0.0/8" in found[4]
    own = network.model_copy(update={"ipv4": IPv4Interface("198.51.100.2/24")})
    assert "203.0.113.0/24" in ruleset.bogons(own)[4] and "198.51.100.0/24" not in ruleset.bogons(own)[4]


def many_segments() -> dict[str, dict[str, Any]]:
    """Ten beside those that every site has, each with something of its own."""
    more: dict[str, dict[str, Any]] = {f"plant{n}": {"vlan": 100 + n, "limits": {}, "reaches": []} for n in range(10)}
    more["plant1"]["reaches"] = ["internet", "plant2"]
    more["plant3"] |= {"own_resolver": True, "isolated": True}
    return more


@pytest.fixture(params=["the lab's", "one with many segments"])
def loaded(request: pytest.FixtureRequest, made: Callable[[int], Target], gateway_of: Callable[..., Target],
           within: Callable[..., str], tmp_path: Path) -> Ruleset:  # fmt: skip
    """The ruleset of a site, as the kernel lists it."""
    if request.param == "the lab's":
        target = Target(load("lab", ROOT), "gateway", lambda: pytest.fail("a ruleset needs no keys"))
    else:
        few = made(10)
        gateway = few.gateway.model_dump()
        more = many_segments()
        for number, name in enumerate(more):
            gateway["networks"][name] = {
                "interface": f"lan{number}",
                "ipv4": f"10.12.{number}.1/24",
                "ipv6": f"fd10:12:{number}::1/64",
            }
        segments = {name: segment.model_dump() for name, segment in few.site.segments.items()}
        target = gateway_of(
            segments={**segments, **more}, gateways={"gw": gateway}, destinations=LISTS, devices=devices(10), psk=True
        )
    file = tmp_path / "firewall.nft"
    file.write_text(text_for(target))
    return Ruleset.read(within(f"nft -f {file}; nft -j list table inet gatehouse"))


def by_its_own_map(each: Mapping[str, Any]) -> bool:
    """Whether a part of a rule leads packets by a map that has no name."""
    return "vmap" in each and not isinstance(each["vmap"]["data"], str)


def test_one_look_at_the_interface_leads_to_the_rules_of_its_segment(loaded: Ruleset) -> None:
    """So that a packet is compared with no other segment's, however many there are."""
    for hook, own in (("prerouting", "senders"), ("input", "in"), ("forward", "onwards")):
        (base,) = (chain for chain, described in loaded.base.items() if described["hook"] == hook)
        (led,) = (each["vmap"]["data"] for rule in loaded.chains[base] for each in rule.expr if by_its_own_map(each))
        chains = {verdict_target(verdict): bridge for bridge, verdict in loaded.pairs(led)}
        assert {f"{own}_{name}" for name in ("iot", "management", "guest", "internet")} <= set(chains)
        assert [rule.by for rule in loaded.chains[base] if rule.by not in (None, {"lo"})] == []
        for chain, bridge in chains.items():
            assert [rule.by for rule in loaded.chains[chain] if rule.by is not None] == [], f"{chain}: {bridge}"


def test_a_rule_is_said_as_nft_takes_it_and_lists_it(
    loaded: Ruleset, within: Callable[..., str], tmp_path: Path
) -> None:
    at, file = "inet gatehouse", tmp_path / "again.nft"
    again = (
        f"insert rule {at} {r.chain} handle {r.handle} {r.text}; delete rule {at} {r.chain} handle {r.handle}"
        for r in loaded.rules
    )
    file.write_text("\n".join(again) + "\n")
    listing = f"nft -s list table {at}"
    assert (
        within(f"{listing} >before; nft -f {file}; {listing} | diff before -".replace("before", f"{tmp_path}/before"))
        == ""
    )


def test_every_rule_has_its_mutants_and_nft_takes_each(
    loaded: Ruleset, within: Callable[..., str], tmp_path: Path
) -> None:
    found = mutants(loaded)
    assert [m.rule for m in found if m.name.endswith("/ removed")] == loaded.rules
    for rule in loaded.rules:
        widened = [m for m in found if m.rule == rule and not m.name.endswith("/ removed")]
        matches = [each for each in rule.expr if "match" in each]
        led = sum(len(each["vmap"]["data"]["set"]) for each in rule.expr if by_its_own_map(each))
        assert len(widened) >= len(matches) + led if loaded.lets_through(rule) else len(widened) == led, rule.label
    turns: dict[str, list[Mutant]] = {}
    for mutant in found:
        turns.setdefault(mutant.touches, []).append(mutant)
    # Those that change the same can't be in one transaction.
    for turn in range(max(map(len, turns.values()))):
        file = tmp_path / f"{turn}.nft"
        file.write_text(
            "\n".join(m.command(loaded) for several in turns.values() for m in several[turn : turn + 1]) + "\n"
        )
        assert within(f"nft -c -f {file}") == ""
