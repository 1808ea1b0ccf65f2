"""Time as rendered, judged by chronyd and systemd themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from roles.chrony import deploy as chrony
from roles.chrony.facts import Contained
from roles.target import Target
from tests.roles.judge import Judge, judging

WITHOUT_IPV6 = {
    "gw": {
        "networks": {
            "iot": {"interface": "eth1", "ipv4": "10.10.10.1/24"},
            "management": {"interface": "eth2", "ipv4": "10.10.20.1/24"},
            "internet": {"interface": "eth0", "ipv4": "198.51.100.2/24", "router4": "198.51.100.1"},
        }
    }
}


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    """A container with Debian's chrony."""
    with judging() as judge:
        yield judge


def allowed(judge: Judge, target: Target) -> set[str]:
    """The prefixes that chronyd says it serves."""
    verdict = judge.accepts([chrony.configuration(target)], f'/usr/sbin/chronyd -p -f "$STAGED"{chrony.CONFIGURATION}')
    assert verdict, verdict.output
    return {line.split()[1] for line in verdict.output.splitlines() if line.startswith("allow ")}


def test_every_segment_is_served_and_the_internet_is_not(judge: Judge, gateway_of: Callable[..., Target]) -> None:
    assert allowed(judge, gateway_of()) == {
        "10.10.10.0/24",
        "fd10:10:10::/64",
        "10.10.20.0/24",
        "10.10.30.0/24",
        "fd10:10:30::/64",
    }


def test_a_site_without_ipv6_is_served_over_ipv4(judge: Judge, gateway_of: Callable[..., Target]) -> None:
    assert allowed(judge, gateway_of(gateways=WITHOUT_IPV6)) == {"10.10.10.0/24", "10.10.20.0/24"}


def test_two_of_several_servers_must_agree(judge: Judge, gateway_of: Callable[..., Target]) -> None:
    several = chrony.configuration(gateway_of(time={"servers": ["192.0.2.1", "192.0.2.2"], "pools": False}))
    assert b"server 192.0.2.2 iburst" in several.content
    assert b"minsources 2" in several.content
    only = chrony.configuration(gateway_of(time={"servers": ["192.0.2.1"], "pools": False}))
    assert b"minsources 1" in only.content
    assert b"\npool " in chrony.configuration(gateway_of()).content


def test_a_configuration_that_chronyd_does_not_understand_is_refused(
    judge: Judge, gateway_of: Callable[..., Target]
) -> None:
    good = chrony.configuration(gateway_of())
    assert judge.accepts([good], chrony.CHECK)
    bad = replace(good, content=good.content.replace(b"rtcsync", b"rtcsink"))
    verdict = judge.accepts([bad], chrony.CHECK)
    assert not verdict
    assert "Invalid directive" in verdict.output


@pytest.mark.parametrize("contained", [True, False])
def test_the_unit_is_confined_in_containers_and_on_machines(judge: Judge, contained: bool) -> None:
    judge.run(f"rm -rf {chrony.SANDBOX.rsplit('/', 1)[0]}")
    exposure = f"systemd-analyze security --offline=true --threshold=20 {chrony.UNIT}"
    assert not judge.run(exposure), "Debian's own unit is thought of as confined: the threshold does nothing"
    judge.install(chrony.sandbox(contained))
    verdict = judge.run(exposure)
    assert verdict, verdict.output[-400:]


def test_only_a_machine_sets_its_clock() -> None:
    machine, container = chrony.sandbox(contained=False).content, chrony.sandbox(contained=True).content
    assert b"CAP_SYS_TIME" in machine
    assert b" -x" not in machine
    assert b"CAP_SYS_TIME" not in container
    assert b"chronyd -U -F 1 -x\n" in container


def test_the_fact_tells_machines_from_containers() -> None:
    fact = Contained()
    assert fact.process(["docker"])
    assert not fact.process(["none"])
    assert not fact.process([])
