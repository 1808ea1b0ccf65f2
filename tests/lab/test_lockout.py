"""Changes that would lock the operator out undo themselves, without anybody's help and through a power cut."""

from __future__ import annotations

import os
import shlex
import signal
from pathlib import Path

import pytest

from lab.state import State
from roles.dnsmasq import deploy as dnsmasq
from tests.checkout import SITE_FILE, Checkout, Run
from tests.lab.gateways import PENDING, Gateway

pytestmark = pytest.mark.timeout(900)

PROBE = Path(dnsmasq.__file__).with_name("probe.py")
# The time that the gateway gives the operator to confirm, and some for its timer and services.
UNDONE_WITHIN = 90
NOTHING_PENDING = f'[ -z "$(ls {PENDING})" ]'

# The ruleset without counters, and without what packets and names put into its sets.
RULES = "nft -s -t list table inet gatehouse"


def failed_to_confirm(run: Run, change: str, *words: str) -> None:
    assert run.status == 1, run.text
    assert "Traceback" not in run.text
    said = [line for line in run.err.splitlines() if f"change '{change}' could not be confirmed by a new login" in line]
    assert len(said) == 1, run.err
    assert all(word in said[0] for word in words), said


def is_as_before(gateway: Gateway) -> None:
    """The operator logs in again, and nothing differs from what was there before the change."""
    gateway.until(NOTHING_PENDING, UNDONE_WITHIN)
    gateway.stays_converged()


def without_ssh_for_the_operator(changed: Checkout, segments: str) -> None:
    changed.edit(
        SITE_FILE,
        (
            "    settings={",
            f'    settings={{"ssh": {{"reachable_from": {{"ssh": {segments}}}}}, ',
        ),
    )


def test_a_firewall_that_lets_nobody_administer_is_undone(gateway: Gateway, changed: Checkout) -> None:
    before = gateway(RULES)
    without_ssh_for_the_operator(changed, '("guest",)')
    failed_to_confirm(changed.deploy(), "firewall", "port 22", "it has been undone")
    assert gateway(RULES) == before
    is_as_before(gateway)


def test_a_wrong_management_prefix_is_undone_by_the_gateway_itself(gateway: Gateway, changed: Checkout) -> None:
    wanted = '"ipv4": "10.10.20.1/24", "ipv6": "fd10:10:20::1/64"'
    changed.edit(SITE_FILE, (wanted, wanted.replace("10.10.20.1", "10.10.21.1").replace("fd10:10:20", "fd10:10:21")))
    changed.edit(SITE_FILE, ('"contact": {', '"contact": {"address": "10.10.20.1", '))
    failed_to_confirm(changed.deploy(), "network", "the gateway undoes it by itself within 60 s")
    gateway.until("ip -o addr show br-management | grep -qF ' 10.10.20.1/24 '", UNDONE_WITHIN)
    gateway.until(NOTHING_PENDING, UNDONE_WITHIN)
    plan = gateway.checkout.invoke("plan")
    assert "Segments" not in plan.out, plan.out
    # Services that serve the prefix had been told of it before; they are told again.
    assert "Time | Configure chrony" in plan.out, plan.text
    gateway.converge()


def test_keys_that_the_operator_does_not_have_are_undone(gateway: Gateway, changed: Checkout, tmp_path: Path) -> None:
    stranger = State("stranger", tmp_path).prepare()
    changed.edit(SITE_FILE, ('ssh={"keys": [_key]}', f'ssh={{"keys": ["{stranger}"]}}'))
    failed_to_confirm(changed.deploy(), "ssh", "AuthenticationException", "it has been undone")
    is_as_before(gateway)


def test_an_sshd_that_lets_nobody_in_is_undone(gateway: Gateway, changed: Checkout) -> None:
    template = "templates/ssh/etc/ssh/sshd_config.d/10-gatehouse.conf.j2"
    changed.edit(template, ("AllowUsers {{ ssh.user }}", "AllowUsers nobody"))
    failed_to_confirm(changed.deploy(), "ssh", "it has been undone")
    gateway.until(NOTHING_PENDING, UNDONE_WITHIN)
    # That a changed checkout was at work stands in the version on the gateway; nothing else is left of it.
    plan = gateway.checkout.invoke("plan")
    assert "SSH" not in plan.out, plan.text
    gateway.converge()


def test_names_that_could_not_be_served_any_more_are_served_as_before(gateway: Gateway, changed: Checkout) -> None:
    """`dnsmasq --test` finds nothing wrong with a folder that is not there: it only fails when it starts."""
    files = f"cat {shlex.join(dnsmasq.LOADS)}"
    before = gateway(files)
    template = "templates/dnsmasq/etc/gatehouse/dnsmasq.conf.j2"
    changed.edit(template, ("dhcp-leasefile=/var/lib/dnsmasq/leases", "dhcp-leasefile=/nowhere/leases"))
    deployed = changed.deploy()
    assert deployed.status == 1 and "/nowhere/leases" in deployed.err, deployed.text
    assert "Traceback" not in deployed.text
    assert gateway(files) == before
    assert gateway(NOTHING_PENDING) == ""
    asks = (PROBE.read_text(), f"gateway.{changed.site.domain}", "10.10.10.1", "10.10.20.1")
    gateway(f"systemctl is-active {dnsmasq.UNIT} && python3 -c {shlex.join(asks)}")
    # That a changed checkout was at work stands in the version on the gateway; nothing else is left of it.
    plan = gateway.checkout.invoke("plan")
    assert "dnsmasq" not in plan.out, plan.text
    gateway.converge()


NETWORK = "cat /etc/systemd/network/*; ip -o addr show scope global | awk '{print $2, $4}' | grep ^br-"
GUEST = ('"10.10.30.1/24"', '"10.10.31.1/24"')


def segments_are_as_before(gateway: Gateway, run: Run, before: str) -> None:
    """The deploy failed and said so, and what was there before is there again at once."""
    assert run.status == 1, run.text
    assert "did not take what is new: segments and addresses are as before" in run.err, run.text
    assert "Traceback" not in run.text
    assert gateway(NETWORK) == before
    assert gateway(NOTHING_PENDING) == ""


def test_addresses_that_networkd_does_not_take_leave_those_of_before(gateway: Gateway, changed: Checkout) -> None:
    """It only warns of what it does not understand, and goes on without."""
    before = gateway(NETWORK)
    changed.edit(SITE_FILE, GUEST)
    changed.edit(
        "templates/networkd/etc/systemd/network/bridge.network.j2",
        ("Address={{ address }}", "Address={{ (address | string).replace('10.10.31.1/24', '10.10.31.1/33') }}"),
    )
    deployed = changed.deploy()
    segments_are_as_before(gateway, deployed, before)
    assert "addresses did not come up: 10.10.31.1/24" in deployed.err, deployed.text
    gateway.converge()


def test_what_a_former_declaration_left_behind_is_planned_and_goes(gateway: Gateway) -> None:
    folder = "/etc/systemd/network"
    before = gateway(f"ls {folder}; ls /sys/class/net/br-guest/brif")
    gateway(f"printf '[NetDev]\nName=br-old\nKind=bridge\n' >{folder}/20-gatehouse-br-old.netdev")
    gateway(
        "ip link add br-old type bridge; ip link add left type veth peer name other; ip link set left master br-guest"
    )
    try:
        planned = gateway.checkout.invoke("plan", timeout=240)
        assert (planned.status, "Segments" in planned.out) == (2, True), planned.text
        gateway.converge()
        assert gateway(f"ls {folder}; ls /sys/class/net/br-guest/brif") == before
        assert gateway.ask("ip link show br-old").returncode
        # Not the kit's own: out of the bridge, and otherwise as it was.
        assert "left" in gateway("ip link show left")
    finally:
        gateway.ask("ip link delete left; ip link delete br-old")
    gateway.stays_converged()


def test_a_networkd_that_does_not_start_leaves_the_segments_as_they_were(gateway: Gateway, changed: Checkout) -> None:
    before = gateway(NETWORK)
    changed.edit(SITE_FILE, GUEST)
    broken = "/etc/systemd/system/systemd-networkd.service.d/99-broken.conf"
    gateway(f"printf '[Service]\\nExecStartPre=/bin/false\\n' >{broken}; systemctl daemon-reload")
    gateway("systemctl kill -s KILL systemd-networkd.service")
    gateway.until("systemctl is-failed systemd-networkd.service", 30)
    segments_are_as_before(gateway, changed.deploy(), before)
    gateway(f"rm {broken}; systemctl daemon-reload")
    gateway.converge()
    assert gateway(NETWORK) == before


def test_a_power_cut_in_the_middle_of_a_change_brings_the_old_state_back(gateway: Gateway, changed: Checkout) -> None:
    before = gateway(RULES)
    start_and_vanish(gateway, changed)
    gateway.cut_power()
    gateway.restore_power()
    assert gateway(RULES) == before
    is_as_before(gateway)


def start_and_vanish(gateway: Gateway, changed: Checkout) -> None:
    """Begin a deploy that takes SSH away, and kill it as soon as its firewall is in force and not yet confirmed."""
    without_ssh_for_the_operator(changed, "()")
    process = changed.start("pyinfra", "-y", "inventories/lab", "deploy.py")
    gateway.until(f"[ -e {PENDING}/firewall.sh ] && ! nft list table inet gatehouse | grep -q 'ssh ssh'", 60)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
