"""Segments on a trunk: tagged on the wire, apart from each other, and no way in for a frame with other tags."""

from __future__ import annotations

import re
from ipaddress import ip_interface
from pathlib import Path

import pytest

from gatehouse.site import MANAGEMENT
from tests.vm.machines import FIELD, GATEWAY, SITE, Machines

pytestmark = pytest.mark.timeout(5400)

FRAMES = Path(__file__).with_name("frames.py").read_text()
TAGGED = {"iot": 10, "management": 20, "guest": 30}
# Topics of the compliance suite that a kernel of the gateway's own decides; the whole of it takes an emulated one long.
OF_A_KERNEL = ("audit", "confinement", "egress", "gateway", "host", "quarantine", "remote", "segments", "time")
HOSTS = {"iot": "device", "management": "station", "guest": "guest"}


def gateways(machines: Machines, segment: str) -> list[str]:
    """The gateway's addresses in a segment, IPv4 first."""
    return [str(a) for a in machines.site.gateways[GATEWAY].networks[segment].addresses]


def neighbour(machines: Machines, address: str) -> str:
    """A made-up one in the prefix of a gateway's address."""
    networks = machines.site.gateways[GATEWAY].networks.values()
    (prefix,) = (p for n in networks for p in n.prefixes if ip_interface(address).ip in p)
    return str(prefix.network_address + 0x66)


def captured(machines: Machines, interface: str, command: str, host: str) -> list[str]:
    """The frames on a card of the field machine while a host runs a command, as tcpdump shows them with `-e`."""
    capture = f"exec tcpdump -enl -i {interface} icmp or icmp6 or vlan >/run/capture 2>/run/capture.said"
    machines(FIELD, f"rm -f /run/capture*; systemd-run --quiet --collect --unit=capture sh -c '{capture}'")
    machines(FIELD, "for i in $(seq 100); do grep -q listening /run/capture.said && exit; sleep 0.2; done; exit 1")
    machines(host, command)
    machines(FIELD, "sleep 2; systemctl stop capture")
    return machines(FIELD, "cat /run/capture").splitlines()


@pytest.mark.parametrize("segment", TAGGED)
def test_what_a_host_sends_is_on_the_wire_with_the_tag_of_its_segment_and_no_other(
    hardened: Machines, segment: str
) -> None:
    four, six = gateways(hardened, segment)
    lines = captured(hardened, "trunk", f"ping -c 2 -W 5 {four}; ping -c 2 -W 5 {six}", HOSTS[segment])
    ours = [line for line in lines if " echo re" in line and (f"{four}:" in line or f"{four} >" in line or six in line)]
    for address in (four, six):
        assert [line for line in ours if "echo request" in line and address in line], lines
        assert [line for line in ours if "echo reply" in line and address in line], lines
    tags = [re.search(r"vlan (\d+),", line) for line in ours]
    assert {tag[1] if tag else None for tag in tags} == {str(TAGGED[segment])}


def test_a_segment_on_a_port_of_its_own_is_untagged_beside_the_trunk(hardened: Machines) -> None:
    (four, _) = gateways(hardened, "internal")
    lines = captured(hardened, "port-lan", f"ping -c 2 -W 5 {four}", "server")
    replies = [line for line in lines if "echo reply" in line]
    assert replies and not [line for line in replies if "vlan" in line]


def test_a_frame_with_a_foreign_a_double_or_no_tag_goes_nowhere(hardened: Machines) -> None:
    frames = []
    for segment, vlan in TAGGED.items():
        mac = hardened(GATEWAY, f"cat /sys/class/net/br-{segment}/address").strip()
        for address in gateways(hardened, segment):
            others = [tag for tag in TAGGED.values() if tag != vlan]
            ways = {"right": [vlan], "foreign": [99], "native": [], "priority": [0]}
            ways |= {f"other-{tag}": [tag] for tag in others}
            ways |= {f"double-{tag}": [tag, vlan] for tag in others} | {"twice": [vlan, vlan], "behind": [99, vlan]}
            source = neighbour(hardened, address)
            frames += [
                {"name": f"{way} {address}", "tags": tags, "mac": mac, "source": source, "address": address}
                for way, tags in ways.items()
            ]
    found = hardened.seen(FRAMES, {"frames": frames, "seconds": 8}, timeout=240)
    answered = {name: tags for name, tags in found.items() if tags}
    right = {f"right {address}": vlan for segment, vlan in TAGGED.items() for address in gateways(hardened, segment)}
    # Each refusal stands beside the same frame with the right tag, over the same wire at the same time.
    assert answered.keys() == right.keys()
    assert {name: {tuple(seen) for seen in tags} for name, tags in answered.items()} == {
        name: {(vlan,)} for name, vlan in right.items()
    }


def test_the_native_vlan_of_the_trunk_is_unused(hardened: Machines) -> None:
    links = hardened(GATEWAY, "ip -o link show trunk; ip -o addr show trunk")
    assert "master" not in links
    assert "inet" not in links
    members = hardened(GATEWAY, "ls /sys/class/net/br-management/brif").split()
    assert "trunk.20" in members and "trunk" not in members


def test_the_gateway_proves_after_a_reboot_what_it_proved_before(hardened: Machines, tmp_path: Path) -> None:
    before = hardened.proof(tmp_path / "before", *OF_A_KERNEL)
    segments = {check: verdict for check, verdict in before.items() if check.startswith("segments.")}
    assert f"segments.iot-to-{MANAGEMENT}" in segments
    assert set(segments.values()) == {"proven"}
    boot = hardened(GATEWAY, "cat /proc/sys/kernel/random/boot_id")
    hardened.reboot()
    assert hardened(GATEWAY, "cat /proc/sys/kernel/random/boot_id") != boot
    assert hardened(GATEWAY, "systemctl --failed --no-legend").strip() == ""
    assert hardened.proof(tmp_path / "after", *OF_A_KERNEL) == before
    plan = hardened.checkout.invoke("plan", "--site", SITE, timeout=600)
    assert (plan.status, plan.out) == (0, "plan: nothing to change\n"), plan.text
