"""A lab's layout follows from its gateways, and from a site where there is one."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from types import SimpleNamespace
from typing import Any

import pytest

from gatehouse.site.model import Gateway, Network
from lab.errors import LabError
from lab.topology import GatewayHost, Port, Topology, dump, from_site, load, neighbour, standard, surround


def host(topology: Topology, name: str) -> Any:
    return {h.name: h for h in (*topology.hosts, *topology.gateways, topology.internet)}[name]


def site(**networks: dict[str, str]) -> Any:
    """As much of a site as the lab reads, with real networks."""
    gateway = Gateway(networks={segment: Network(**network) for segment, network in networks.items()})
    ssh = SimpleNamespace(port=2222, former_ports=(22,))
    return SimpleNamespace(lab=True, gateways={"gateway": gateway}, segments={}, ssh=ssh)


MANAGEMENT = {"interface": "port-mgmt", "ipv4": "10.10.20.1/24"}
UPLINK = {"interface": "uplink", "ipv4": "198.51.100.2/24", "router4": "198.51.100.1"}


def test_each_segment_has_its_host_with_the_gateway_as_router_and_resolver() -> None:
    device = host(standard(), "device")
    assert device.addresses == (ip_interface("10.10.10.50/24"), ip_interface("fd10:10:10::50/64"))
    assert device.routers == (ip_address("10.10.10.1"), ip_address("fd10:10:10::1"))
    assert device.resolver == ip_address("10.10.10.1")
    assert {h.name for h in standard().hosts} == {"device", "station", "guest", "server"}


def test_a_second_gateway_has_its_own_prefixes_and_hosts_and_shares_the_internet() -> None:
    topology = standard(gateways=2)
    assert host(topology, "device-2").addresses[0] == ip_interface("10.12.10.50/24")
    assert host(topology, "device-2").gateway == "gateway-2"
    assert host(topology, "gateway-2").management == ip_address("10.12.20.1")
    networks = topology.private_networks
    assert not any(a.overlaps(b) for a in networks for b in networks if a is not b and a.version == b.version)
    assert topology.internet.addresses == (ip_interface("198.51.100.1/24"), ip_interface("2001:db8:51::1/64"))


def test_the_internet_plays_a_named_service_and_another_host_in_each_family() -> None:
    assert [str(service.ip) for service in standard().services] == [
        "198.51.100.80",
        "2001:db8:51::80",
        "198.51.100.90",
        "2001:db8:51::90",
    ]


def test_nothing_behind_a_gateway_counts_as_the_internet() -> None:
    networks = standard().private_networks
    assert ip_network("10.10.20.0/24") in networks
    assert ip_network("198.51.100.0/24") not in networks


def test_a_host_number_is_decimal_in_ipv4_and_reads_the_same_in_ipv6() -> None:
    assert neighbour(ip_interface("10.10.10.1/24"), "50") == ip_interface("10.10.10.50/24")
    assert neighbour(ip_interface("fd10::1/64"), "50") == ip_interface("fd10::50/64")


def test_a_prefix_without_room_for_the_labs_hosts_is_refused() -> None:
    assert neighbour(ip_interface("10.0.0.1/26"), "50") == ip_interface("10.0.0.50/26")
    with pytest.raises(LabError, match=r"10\.0\.0\.0/27 is too small"):
        neighbour(ip_interface("10.0.0.1/27"), "50")


def test_a_topology_comes_back_from_its_label() -> None:
    topology = standard("two", gateways=2, debian="13")
    assert load(dump(topology)) == topology


def test_a_label_of_another_version_asks_for_a_new_lab() -> None:
    with pytest.raises(LabError, match="another version"):
        load('{"name": "lab", "hosts": 7}')


@pytest.mark.parametrize("name", ["", "Lab", "a b", "-lab", "lab/..", "x" * 40])
def test_a_name_that_no_container_can_have_is_refused(name: str) -> None:
    assert standard("my-lab-2").name == "my-lab-2"
    with pytest.raises(LabError, match="no usable name"):
        standard(name)


def test_a_gateway_whose_provider_is_unknown_is_refused() -> None:
    (gateway,) = standard().gateways
    with pytest.raises(LabError, match="router"):
        surround("lab", (replace(gateway, routers=()),))


def test_a_gateway_without_management_is_named_in_the_error() -> None:
    gateway = GatewayHost("gw", (Port("iot", "p", (ip_interface("10.0.0.1/24"),)),), (), ip_address("10.0.0.2"))
    assert gateway.port("iot").interface == "p"
    with pytest.raises(LabError, match="gw has no port in segment 'management'"):
        _ = gateway.management


def test_a_site_gives_its_ports_addresses_and_every_port_ssh_may_be_on() -> None:
    topology = from_site(site(management=MANAGEMENT, internet=UPLINK), "lab")
    (gateway,) = topology.gateways
    assert [(p.segment, p.interface) for p in gateway.ports] == [("management", "port-mgmt"), ("internet", "uplink")]
    assert gateway.ssh_ports == (22, 2222)
    assert gateway.resolver == ip_address("198.51.100.1")
    assert [h.name for h in topology.hosts] == ["station"]


def test_a_site_without_ipv6_makes_a_lab_without_it() -> None:
    topology = from_site(site(management=MANAGEMENT, internet=UPLINK), "lab")
    addresses = [*topology.internet.addresses, *topology.services, *topology.hosts[0].addresses]
    assert {a.version for a in addresses} == {4}


@pytest.mark.parametrize(
    ("networks", "said"),
    [
        ({"management": MANAGEMENT, "internet": {"interface": "uplink", "ipv4": "dhcp"}}, "no fixed address"),
        ({"management": {"trunk": "trunk", "ipv4": "10.10.20.1/24"}, "internet": UPLINK}, "tagged on trunk"),
        ({"management": MANAGEMENT}, "no internet network"),
        ({"internet": UPLINK}, "no management network"),
        ({"management": MANAGEMENT, "internet": {**UPLINK, "router4": None}}, "no router"),
    ],
)
def test_what_containers_cannot_play_is_refused_with_the_place(networks: dict[str, Any], said: str) -> None:
    with pytest.raises(LabError, match=said) as refused:
        from_site(site(**networks), "lab")
    assert "gateway 'gateway'" in str(refused.value)
