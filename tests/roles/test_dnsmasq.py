"""The role's own configuration, judged by the real dnsmasq between two segments and an uplink of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Interface, ip_address
from pathlib import Path
from typing import Any

import pytest

from roles.dnsmasq import deploy
from roles.target import Target
from tests.roles.broker import folder

CLIENT = Path(__file__).with_name("lanclient.py")
GATEWAY = f"gh-{os.getpid()}"
# Segment or uplink: the gateway's bridge there, its address, and the neighbour's.
NEIGHBOURS = {
    "iot": ("br-iot", "10.10.10.1/24", "10.10.10.77/24"),
    "guest": ("br-guest", "10.10.30.1/24", "10.10.30.77/24"),
    "internet": ("br-internet", "198.51.100.2/24", "198.51.100.77/24"),
}
DEVICES = [
    {"name": "kitchen-01", "hardware_address": "02:00:00:00:00:01", "address": "10.10.10.50"},
    {"name": "meter-02", "hardware_address": "02:00:00:00:00:02"},
    {"name": "lost-03", "hardware_address": "02:00:00:00:00:03", "address": "10.10.10.53", "status": "revoked"},
]

# What the internet's resolver says: one name in public, one that points into the site (DNS rebinding).
UPSTREAM = """
import socket
answers = {b"public": bytes([198, 51, 100, 80]), b"rebind": bytes([10, 10, 20, 1]), b"local": bytes([127, 0, 0, 1])}
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as serving:
    serving.bind(("192.0.2.53", 53))
    print("ready", flush=True)
    while True:
        query, asker = serving.recvfrom(2048)
        first = query[13 : 13 + query[12]]
        print(first.decode(), flush=True)
        question = query[12 : query.index(0, 12) + 5]
        record = b"\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\x3c\\0\\4" + answers.get(first, bytes([198, 51, 100, 81]))
        serving.sendto(query[:2] + b"\\x81\\x80\\0\\1\\0\\1\\0\\0\\0\\0" + question + record, asker)
"""


@pytest.fixture(scope="module")
def target(programs: Callable[..., None], gateway_of: Callable[..., Target]) -> Target:
    programs("dnsmasq", "dnsmasq-base")
    programs("ip", "iproute2")
    return gateway_of(devices=[{"model": "x", "gateway": "gw", **device} for device in DEVICES])


@pytest.fixture(scope="module")
def lan(target: Target) -> Iterator[Lan]:
    made = Lan(folder())
    try:
        made.build()
        made.start(deploy.configuration(target).content.decode())
        yield made
    finally:
        made.remove()


class Lan:
    """A gateway in a network namespace with dnsmasq on it, and a neighbour on each side."""

    def __init__(self, home: Path) -> None:
        self.home, self.upstream_was_asked, self.processes = home, list[str](), list[subprocess.Popen[str]]()

    def build(self) -> None:
        _ip("netns", "add", GATEWAY)
        _ip("-n", GATEWAY, "link", "set", "lo", "up")
        for name, (bridge, own, neighbours) in NEIGHBOURS.items():
            other, port = f"{GATEWAY}-{name}", f"p-{name}"
            _ip("netns", "add", other)
            _ip("-n", GATEWAY, "link", "add", bridge, "type", "bridge")
            _ip("-n", GATEWAY, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", other)
            _ip("-n", GATEWAY, "link", "set", port, "master", bridge, "up")
            _ip("-n", GATEWAY, "addr", "add", own, "dev", bridge)
            _ip("-n", GATEWAY, "link", "set", bridge, "up")
            _ip("-n", other, "addr", "add", neighbours, "dev", "eth0")
            _ip("-n", other, "link", "set", "eth0", "up")
        _ip("-n", f"{GATEWAY}-internet", "addr", "add", "192.0.2.53/32", "dev", "eth0")
        _ip("-n", GATEWAY, "route", "add", "192.0.2.53/32", "dev", "br-internet")
        _ip("-n", GATEWAY, "addr", "add", "fd10:10:10::1/64", "dev", "br-iot", "nodad")

    def start(self, configuration: str) -> None:
        within, outside = ["ip", "netns", "exec", GATEWAY], ["ip", "netns", "exec", f"{GATEWAY}-internet"]
        resolver = subprocess.Popen([*outside, sys.executable, "-c", UPSTREAM], stdout=subprocess.PIPE, text=True)
        self.processes.append(resolver)
        assert resolver.stdout is not None and resolver.stdout.readline() == "ready\n"
        listener = threading.Thread(
            target=lambda: self.upstream_was_asked.extend(line.strip() for line in resolver.stdout or ()), daemon=True
        )
        listener.start()
        moved = configuration.replace("/var/lib/dnsmasq", str(self.home))
        (self.home / "dnsmasq.conf").write_text(moved)
        shutil.chown(self.home, "dnsmasq")
        command = ["dnsmasq", "--keep-in-foreground", f"--conf-file={self.home}/dnsmasq.conf", "--pid-file="]
        with (self.home / "log").open("w") as log:
            daemon = subprocess.Popen([*within, *command, "--log-facility=-"], stdout=log, stderr=log, text=True)
        self.processes.append(daemon)
        until = time.monotonic() + 5
        while self.names("iot", "10.10.10.1", "gateway.test.internal")["status"] is None:
            assert daemon.poll() is None and time.monotonic() < until, (self.home / "log").read_text()

    def remove(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        for name in (GATEWAY, *(f"{GATEWAY}-{name}" for name in NEIGHBOURS)):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        shutil.rmtree(self.home)

    def names(self, side: str, server: str, name: str, kind: str = "A") -> dict[str, Any]:
        """What a neighbour on that side is answered."""
        return self._client(side, "dns", server, name, kind)

    def addresses(self, side: str, mac: str, hostname: str = "") -> dict[str, Any]:
        """What a neighbour on that side with this hardware address is given."""
        return self._client(side, "dhcp", "eth0", mac, hostname)

    def _client(self, side: str, *arguments: str) -> dict[str, Any]:
        command = ["ip", "netns", "exec", f"{GATEWAY}-{side}", sys.executable, str(CLIENT), *arguments]
        answer: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        return answer


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


# Names


@pytest.mark.parametrize(("side", "address"), [("iot", "10.10.10.1"), ("guest", "10.10.30.1")])
def test_the_gateway_has_the_address_of_the_asker_s_segment(lan: Lan, side: str, address: str) -> None:
    for name in ("gateway.test.internal", "gw.test.internal"):
        assert lan.names(side, address, name) == {"status": 0, "addresses": [address]}


def test_the_broker_is_where_the_devices_reach_it(lan: Lan) -> None:
    assert lan.names("iot", "10.10.10.1", "broker.test.internal")["addresses"] == ["10.10.10.1"]
    assert lan.names("iot", "10.10.10.1", "broker.test.internal", "AAAA")["addresses"] == ["fd10:10:10::1"]
    assert lan.names("guest", "10.10.30.1", "broker.test.internal")["addresses"] == ["10.10.10.1"]


def test_a_device_with_a_fixed_address_has_its_name_until_it_is_revoked(lan: Lan) -> None:
    assert lan.names("iot", "10.10.10.1", "kitchen-01.test.internal")["addresses"] == ["10.10.10.50"]
    assert lan.names("iot", "10.10.10.1", "lost-03.test.internal") == {"status": 3, "addresses": []}


def test_names_of_the_internet_are_asked_there_and_names_of_the_site_are_not(lan: Lan) -> None:
    assert lan.names("iot", "10.10.10.1", "public.example")["addresses"] == ["198.51.100.80"]
    assert lan.names("iot", "10.10.10.1", "unknown.test.internal")["status"] == 3
    assert "public" in lan.upstream_was_asked
    assert "unknown" not in lan.upstream_was_asked


@pytest.mark.parametrize("name", ["rebind.example", "local.example"])
def test_a_name_of_the_internet_can_not_point_into_the_site(lan: Lan, name: str) -> None:
    assert lan.names("guest", "10.10.30.1", name) == {"status": 3, "addresses": []}
    assert lan.names("guest", "10.10.30.1", "public.example")["addresses"] == ["198.51.100.80"]


def test_the_uplink_is_not_served(lan: Lan) -> None:
    assert lan.names("internet", "198.51.100.2", "gateway.test.internal")["status"] is None
    assert lan.names("iot", "10.10.10.1", "gateway.test.internal")["status"] == 0


# Addresses


def test_a_known_device_gets_its_address_and_learns_where_everything_is(lan: Lan) -> None:
    given = {"address": "10.10.10.50", "3": "10.10.10.1", "6": "10.10.10.1", "42": "10.10.10.1"}
    assert lan.addresses("iot", "02:00:00:00:00:01") == given


def test_a_known_device_is_found_under_its_own_name_whatever_it_calls_itself(lan: Lan) -> None:
    given = lan.addresses("iot", "02:00:00:00:00:02", "gateway")["address"]
    assert lan.names("iot", "10.10.10.1", "meter-02.test.internal")["addresses"] == [given]
    assert lan.names("iot", "10.10.10.1", "gateway.test.internal")["addresses"] == ["10.10.10.1"]


def test_a_stranger_gets_an_address_of_the_pool_and_no_name(lan: Lan) -> None:
    given = ip_address(lan.addresses("guest", "02:00:00:00:00:99", "grafana")["address"])
    assert ip_address("10.10.30.128") <= given <= ip_address("10.10.30.254")
    assert lan.names("guest", "10.10.30.1", "grafana.test.internal") == {"status": 3, "addresses": []}


def test_a_revoked_device_gets_no_address(lan: Lan) -> None:
    assert lan.addresses("iot", "02:00:00:00:00:03") == {}
    assert lan.addresses("iot", "02:00:00:00:00:01")["address"] == "10.10.10.50"


# What is rendered


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"iot": {"ipv4": "10.10.10.1/24"}},
        {"iot": {"ipv6": "fd10:10:10::1/64"}},
        {"settings": {"dnsmasq": {"reachable_from": {"dhcp": ()}}}},
        {"settings": {"dnsmasq": {"reachable_from": {"dns": ("guest",), "dns-tcp": ("guest",)}}}},
        {"settings": {"dnsmasq": {"reachable_from": {"dhcp": (), "dns": (), "dns-tcp": ()}}}},
    ],
    ids=["usual", "without IPv6", "IPv6 alone", "without DHCP", "names for guests alone", "nothing"],
)
def test_dnsmasq_accepts_every_kind_of_site(
    target: Target, gateway_of: Callable[..., Target], tmp_path: Path, changes: dict[str, Any]
) -> None:
    file = tmp_path / "dnsmasq.conf"
    file.write_bytes(deploy.configuration(gateway_of(**changes)).content)
    accepted = ["dnsmasq", "--test", f"--conf-file={file}"]
    assert subprocess.run(accepted, capture_output=True).returncode == 0
    file.write_text(file.read_text() + "dhcp-range=nonsense\n")
    assert subprocess.run(accepted, capture_output=True).returncode != 0


def test_the_site_s_own_public_prefixes_are_inside_too(gateway_of: Callable[..., Target]) -> None:
    public = deploy.configuration(gateway_of(iot={"ipv6": "2001:db8:10::1/64"})).content.decode()
    assert "bogus-nxdomain=2001:db8:10::/64\n" in public
    assert "bogus-nxdomain=2001:db8" not in deploy.configuration(gateway_of()).content.decode()


@pytest.mark.parametrize(
    ("gateway", "first", "last"),
    [
        ("10.10.10.1/24", "10.10.10.128", "10.10.10.254"),
        ("10.10.10.254/24", "10.10.10.1", "10.10.10.127"),
        ("10.10.10.1/30", "10.10.10.2", "10.10.10.2"),
        ("10.0.0.1/8", "10.128.0.0", "10.255.255.254"),
    ],
)
def test_the_pool_is_the_half_of_the_prefix_without_the_gateway(gateway: str, first: str, last: str) -> None:
    assert tuple(map(str, deploy.dynamic(IPv4Interface(gateway)))) == (first, last)


def test_a_gateway_without_resolvers_of_its_own_forwards_to_those_of_the_machine(
    gateway_of: Callable[..., Target], target: Target
) -> None:
    assert "resolv-file=/etc/resolv.conf" not in deploy.configuration(target).content.decode()
    networks = {name: net.model_dump(exclude_none=True, mode="json") for name, net in target.gateway.networks.items()}
    without = gateway_of(gateways={"gw": {"networks": networks}})
    assert "resolv-file=/etc/resolv.conf" in deploy.configuration(without).content.decode()
