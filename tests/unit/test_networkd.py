"""What a former declaration of the network left behind is found, and how it is taken away."""

from __future__ import annotations

import json

from roles.networkd.facts import NetworkState
from roles.networkd.operations import _left_behind, _release, _removed

FOLDER = "/etc/systemd/network"
LINKS = [
    {"ifname": "br-iot", "addr_info": [{"scope": "global", "local": "10.10.10.1", "prefixlen": 24}]},
    {"ifname": "trunk.10", "master": "br-iot"},
    {"ifname": "trunk.20", "master": "br-iot"},
    {"ifname": "pr-iot", "master": "br-iot"},
    {"ifname": "veth0", "master": "docker0"},
]


def state(*files: str):
    return NetworkState().process([json.dumps(LINKS), *files])


def left(*files: str):
    loads = [f"{FOLDER}/22-gatehouse-trunk.10.netdev"]
    return _left_behind(state(*loads, *files), loads, {"br-iot": frozenset()}, {"trunk.10": "br-iot"})


def test_the_suites_own_ports_are_none_of_the_segments():
    assert "pr-iot" not in state().masters
    assert state().masters["trunk.20"] == "br-iot"


def test_files_of_the_kit_are_told_from_those_of_others():
    found = state(f"{FOLDER}/20-gatehouse-br-old.netdev", f"{FOLDER}/10-mine.network", "/etc/network/interfaces")
    assert found.own == {f"{FOLDER}/20-gatehouse-br-old.netdev"}
    assert found.foreign == (f"{FOLDER}/10-mine.network", "/etc/network/interfaces")


def test_what_is_declared_is_not_left_behind_and_a_bridge_of_others_is_not_looked_into():
    assert left() == ([], ["trunk.20"])


def test_a_vlan_that_was_left_behind_goes_and_another_port_is_only_put_out():
    files = [f"{FOLDER}/22-gatehouse-trunk.20.netdev", f"{FOLDER}/24-gatehouse-trunk.20.network"]
    assert left(*files) == (files, ["trunk.20"])
    assert _release(files, ["trunk.20"]).endswith("ip link delete dev trunk.20; }")
    assert "nomaster" not in _release(files, ["trunk.20"])
    assert _release([], ["eth3"]) == "ip link set dev eth3 nomaster"


def test_where_nothing_is_left_nothing_is_done():
    assert (_release([], []), _removed([])) == ("true", "")
