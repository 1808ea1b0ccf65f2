"""Cables between bare network namespaces: whole ones are left alone, broken ones replaced, others not touched."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import ip_address, ip_interface

import pytest

from lab.errors import LabError
from lab.wires import Namespace, bridges, cable, configure, hardware_address, short

# A closed port refuses, and only a host that is reached can.
KNOCK = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], 9), timeout=2)
except ConnectionRefusedError:
    print("refused")
except OSError as error:
    print(error)
"""

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="making network namespaces needs root")


@pytest.fixture
def namespace() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes whose network namespaces a test uses."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def new(started: list[subprocess.Popen[str]]) -> Namespace:
    command = ["unshare", "--net", "sh", "-c", "echo ready; exec sleep 600"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    started.append(process)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return Namespace(process.pid)


def reaches(host: Namespace, address: str) -> bool:
    done = subprocess.run(host.command(sys.executable, "-c", KNOCK, address), capture_output=True, text=True)
    return done.stdout.strip() == "refused"


def test_two_hosts_in_one_bridge_reach_each_other_and_not_the_one_in_another(
    namespace: list[subprocess.Popen[str]],
) -> None:
    switch, one, other, apart = (new(namespace) for _ in range(4))
    bridges(switch, {"br-a": "a", "br-b": "b"})
    for host, bridge, number in ((one, "br-a", 1), (other, "br-a", 2), (apart, "br-b", 3)):
        assert cable(switch, bridge, f"sw-{number}", host, "eth0", f"unit:{number}")
        configure(host, "eth0", (ip_interface(f"10.9.9.{number}/24"), ip_interface(f"fd09::{number}/64")), ())
    assert reaches(one, "10.9.9.2")
    assert reaches(one, "fd09::2")
    assert not reaches(one, "10.9.9.3")


def test_a_whole_cable_is_left_alone_and_half_of_one_is_replaced(namespace: list[subprocess.Popen[str]]) -> None:
    switch, host = new(namespace), new(namespace)
    bridges(switch, {"br-a": "a"})
    assert cable(switch, "br-a", "sw-1", host, "eth0", "unit:1")
    index = host.links()["eth0"]["ifindex"]
    assert not cable(switch, "br-a", "sw-1", host, "eth0", "unit:1")
    assert host.links()["eth0"]["ifindex"] == index
    # The names are there, but lead elsewhere: each is half of another cable.
    switch.ip("link delete sw-1", "link add sw-1 type veth peer name stray")
    host.ip("link add eth0 type veth peer name stray")
    assert cable(switch, "br-a", "sw-1", host, "eth0", "unit:1")
    assert not cable(switch, "br-a", "sw-1", host, "eth0", "unit:1")
    assert host.links()["eth0"]["address"] == hardware_address("unit:1")


def test_a_cable_in_the_wrong_bridge_is_moved(namespace: list[subprocess.Popen[str]]) -> None:
    switch, host = new(namespace), new(namespace)
    bridges(switch, {"br-a": "a", "br-b": "b"})
    cable(switch, "br-a", "sw-1", host, "eth0", "unit:1")
    assert cable(switch, "br-b", "sw-1", host, "eth0", "unit:1")
    assert switch.links()["sw-1"]["master"] == "br-b"


def test_an_interface_that_is_no_cable_is_not_taken_away(namespace: list[subprocess.Popen[str]]) -> None:
    switch, host = new(namespace), new(namespace)
    bridges(switch, {"br-a": "a"})
    host.ip("link add eth0 type bridge")
    with pytest.raises(LabError, match="eth0 exists there"):
        cable(switch, "br-a", "sw-1", host, "eth0", "unit:1")
    assert host.links()["eth0"]["linkinfo"]["info_kind"] == "bridge"


def test_a_bridge_that_carries_nothing_any_more_goes_and_the_others_stay(
    namespace: list[subprocess.Popen[str]],
) -> None:
    switch = new(namespace)
    bridges(switch, {"br-a": "a", "br-b": "b"})
    index = switch.links()["br-a"]["ifindex"]
    bridges(switch, {"br-a": "a"})
    assert "br-b" not in switch.links()
    assert switch.links()["br-a"]["ifindex"] == index


def test_configuring_a_host_twice_changes_nothing(namespace: list[subprocess.Popen[str]]) -> None:
    switch, host = new(namespace), new(namespace)
    bridges(switch, {"br-a": "a"})
    cable(switch, "br-a", "sw-1", host, "eth0", "unit:1")
    addresses, routers = (ip_interface("10.9.9.1/24"), ip_interface("fd09::1/64")), (ip_address("10.9.9.254"),)
    for _ in range(2):
        configure(host, "eth0", addresses, routers)
    routes = subprocess.run(host.command("ip", "route"), capture_output=True, text=True, check=True).stdout
    assert routes.splitlines() == [
        "default via 10.9.9.254 dev eth0 ",
        "10.9.9.0/24 dev eth0 proto kernel scope link src 10.9.9.1 ",
    ]


def test_a_command_that_ip_refuses_is_an_error_with_its_words(namespace: list[subprocess.Popen[str]]) -> None:
    with pytest.raises(LabError, match="Cannot find device"):
        new(namespace).ip("link set dev nosuch up")


def test_a_name_made_short_fits_an_interface_and_differs_where_it_must() -> None:
    names = {short("sw-", "gateway", port) for port in ("port-iot", "port-mgmt", "uplink")}
    assert len(names) == 3
    assert all(len(name) <= 15 for name in names)
    assert short("sw-", "gateway", "uplink") in names
