"""A site says everything that is wrong with it at once, each with the place and the mend."""

# ruff: noqa: E501  (the table of problems reads better with one a line)

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatehouse.site import ClosedPort, Listener, Service, Site, SiteError

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f operator"

BROKER = Service(
    name="mosquitto",
    title="Broker",
    listeners=(
        Listener(
            name="mqtts",
            port=8883,
            encryption="tls",
            authentication="client certificate",
            reachable_from=("iot",),
            data="telemetry",
            compromise="a device's own messages",
        ),
    ),
    closed=(ClosedPort(port=1883, reason="plain MQTT"),),
)
SSH = Service(
    name="ssh",
    title="SSH",
    listeners=(
        Listener(
            name="ssh",
            port=22,
            encryption="ssh",
            authentication="key",
            reachable_from=("management",),
            data="administration",
            compromise="the gateway",
        ),
    ),
)


def description() -> dict[str, Any]:
    """A small valid site."""
    return {
        "name": "home",
        "domain": "home.internal",
        "ssh": {"keys": [KEY]},
        "services": (BROKER, SSH),
        "segments": {
            "iot": {"vlan": 10},
            "management": {"vlan": 20, "reaches": ["internet"]},
            "guest": {"vlan": 30, "reaches": ["internet"]},
            "internet": {},
        },
        "gateways": {
            "gw": {
                "networks": {
                    "iot": {"trunk": "eth1", "ipv4": "10.10.10.1/24", "ipv6": "fd10:10:10::1/64"},
                    "management": {"trunk": "eth1", "ipv4": "10.10.20.1/24"},
                    "guest": {"interface": "eth2", "ipv4": "10.10.30.1/24"},
                    "internet": {"interface": "eth0", "ipv4": "dhcp"},
                }
            }
        },
        "devices": [{"name": "kitchen-01", "model": "esp32", "gateway": "gw", "address": "10.10.10.50"}],
    }


def changed(path: str, value: Any) -> dict[str, Any]:
    """The description with one value replaced, by a path such as `gateways/gw/networks/iot/ipv4`."""
    data = copy.deepcopy(description())
    *parents, last = path.split("/")
    place: Any = data
    for part in parents:
        place = place[part]
    place[last] = value
    return data


def problems(data: dict[str, Any]) -> list[str]:
    with pytest.raises(SiteError) as caught:
        Site(**data)
    return [str(problem) for problem in caught.value.problems]


def test_a_valid_site_is_accepted() -> None:
    site = Site(**description())
    assert site.listener("mosquitto", "mqtts").port == 8883
    assert site.gateways["gw"].address == "10.10.20.1"


def test_a_site_without_ipv6_is_accepted() -> None:
    site = Site(**changed("gateways/gw/networks/iot/ipv6", None))
    assert [str(a) for a in site.gateways["gw"].networks["iot"].addresses] == ["10.10.10.1"]


@pytest.mark.parametrize(
    "address", ["192.0.2.1", "2001:db8::1", "fe80::1%eth0", "gw", "gw-1.example.net", "gw.example.net.", "3com.example"]
)
def test_a_contact_is_an_address_or_a_host_name(address: str) -> None:
    assert Site(**changed("gateways/gw/contact", {"address": address})).gateways["gw"].address == address


@pytest.mark.parametrize(
    ("path", "value", "what", "mend"),
    [
        ("gateways/gw/networks/iot/ipv4", "10.10.10.0/33", "10.10.10.0/33 is no IPv4 prefix", "use a length from 8 to 30"),
        ("gateways/gw/networks/iot/ipv4", "10.10.20.200/24", "10.10.20.0/24 overlaps", "use another prefix"),
        ("gateways/gw/networks/iot/ipv4", "10.10.10.0/24", "no host's address", "use one inside"),
        ("gateways/gw/networks/iot/ipv6", "fd10::1/33", "no IPv6 prefix", "from 48 to 64"),
        ("segments/guest/vlan", 10, "is that of 'iot' too", "give each segment its own"),
        ("segments/guest/vlan", 4095, "less than or equal to 4094", "correct the value"),
        ("segments/guest/reaches", ["moon"], "no segment 'moon'", "use"),
        ("settings", {"mosquitto": {"reachable_from": {"mqtts": ["moon"]}}}, "unknown segment 'moon'", "use"),
        ("settings", {"mosquitto": {"ports": {"mqtts": 1883}}}, "1883 must stay closed", "use the encrypted port"),
        ("settings", {"mosquito": {}}, "no such service", "use one of mosquitto, ssh"),
        ("settings", {"mosquitto": {"ports": {"plain": 1}}}, "no listener 'plain'", "use one of mqtts"),
        ("settings", {"mosquitto": {"ports": {"mqtts": 22}}}, "port 22/tcp is that of", "use another port"),
        ("colour", "blue", "unknown key", "remove it"),
        ("segments/iot/colour", "blue", "unknown key", "remove it"),
        ("gateways/gw/networks/iot/trunk", None, "needs either interface or trunk", "name the untagged port"),
        ("segments/iot/vlan", None, "on trunk eth1 but segment 'iot' has no vlan", "give the segment one"),
        ("gateways/gw/networks/guest/interface", "eth0", "interface eth0 is that of", "one port a segment"),
        ("gateways/gw/networks/guest/interface", "eth1", "trunk and the untagged port", "native VLAN unused"),
        ("gateways/gw/networks/guest/router4", "10.10.30.254", "router is for the internet side", "remove it"),
        ("gateways/gw/networks/guest/ipv4", "dhcp", "only the internet side", "fix one"),
        *(("gateways/gw/contact", {"address": junk}, f"{junk!r} is no address and no host name", "without port or user")
          for junk in ("", " ", "192.0.2.1:22", "root@gw", "192.0.2.256", "192.0.2", "ssh://gw", "-oProxyCommand=x", "a..b", "gw\n", "g" * 64, "[2001:db8::1]")),
        ("gateways/gw/without", ["moon"], "no service 'moon'", "use mosquitto, ssh"),
        ("gateways", {}, "is empty", "add at least one"),
        ("ssh/keys", [], "is empty", "add at least one"),
        ("ssh/keys", ["hunter2"], "is no SSH public key", "give the one line of a .pub file"),
        # The first line of such a file alone: no key.
        ("ssh/keys", ["-----BEGIN OPENSSH PRIVATE KEY-----"], "holds a private key", "give the line of the .pub file"),
        ("ssh/user", "root", "root is no administrator's name", "name a user"),
        ("destinations", {"c": {"addresses": ["10.10.20.7"], "port": 1, "segments": ["iot"]}}, "is inside segment", "reaches"),
        ("devices", [{"name": "a", "model": "m", "gateway": "gx"}], "unknown gateway 'gx'", "use a gateway of the site"),
        ("devices", [{"name": "a", "model": "m", "gateway": "gw"}] * 2, "name a is that of 'a' too", "each device has its own"),
        ("devices", [{"name": n, "model": "m", "gateway": "gw", "hardware_address": h} for n, h in (("a", "02:00:00:00:00:0a"), ("b", "02:00:00:00:00:0A"))],
         "hardware address 02:00:00:00:00:0a is that of 'a' too", "each device has its own"),
        ("devices", [{"name": "a", "model": "m", "gateway": "gw", "address": "10.9.9.9"}], "is outside", "use an address"),
        ("devices", [{"name": "a", "model": "m", "gateway": "gw", "address": "10.10.10.1"}], "gateway's own", "use another"),
        ("devices", [{"name": "a", "model": "m", "gateway": "gw", "x": 1}], "unknown key", "remove it"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_with_place_and_mend(path: str, value: Any, what: str, mend: str) -> None:
    found = problems(changed(path, value))
    assert any(what in problem and mend in problem.rsplit("(", 1)[-1] for problem in found), found


def test_every_problem_is_said_at_once() -> None:
    data = changed("gateways/gw/networks/iot/ipv4", "10.10.10.0/33")
    data["segments"]["guest"]["vlan"] = 20
    data["settings"] = {"mosquitto": {"ports": {"mqtts": 1883}}}
    data["colour"] = "blue"
    data["devices"].append({"name": "kitchen-01", "model": "esp32", "gateway": "gw"})
    del data["domain"]
    found = "\n".join(problems(data))
    for said in (
        "/33 is no IPv4 prefix",
        "vlan: 20 is that of",
        "1883 must stay",
        "site.colour",
        "kitchen-01",
        "site.domain",
    ):
        assert said in found, found


def test_a_broken_network_is_reported_once_and_not_as_missing_too() -> None:
    found = problems(changed("gateways/gw/networks/management/ipv4", "10.10.20.1"))
    assert len(found) == 1 and "is no IPv4 prefix" in found[0]


def test_a_site_need_not_have_every_usual_segment_but_a_listener_for_any_other_is_refused() -> None:
    data = description()
    usual = BROKER.listeners[0].model_copy(update={"reachable_from": ("iot", "internal")})
    data["services"] = (BROKER.model_copy(update={"listeners": (usual,)}), SSH)
    assert Site(**data).listener("mosquitto", "mqtts").reachable_from == ("iot",)
    other = BROKER.listeners[0].model_copy(update={"reachable_from": ("iot", "nowhere")})
    data["services"] = (BROKER.model_copy(update={"listeners": (other,)}), SSH)
    assert "unknown segment 'nowhere'" in problems(data)[0]


PASSWORDS = BROKER.listeners[0].model_copy(
    update={"name": "passwords", "port": 8885, "reachable_from": ("iot",), "only_with": "programs"}
)


def with_programs(**programs: Any) -> dict[str, Any]:
    both = BROKER.model_copy(update={"listeners": (*BROKER.listeners, PASSWORDS)})
    return {**description(), "services": (both, SSH), "programs": programs}


def test_a_listener_that_nothing_turns_on_is_none_and_its_port_must_stay_closed() -> None:
    off, on = (Site(**with_programs(**given)).service("mosquitto") for given in ({}, {"nodered": {}}))
    assert [listener.name for listener in off.listeners] == ["mqtts"]
    assert [port.port for port in off.closed] == [1883, 8885]
    assert [listener.name for listener in on.listeners] == ["mqtts", "passwords"]
    assert [port.port for port in on.closed] == [1883]


@pytest.mark.parametrize("name", ["gatehouse_probe", "a b", "UPPER", "", "x" * 40, "a.b", "+"])
def test_a_program_has_a_plain_name(name: str) -> None:
    assert "programs" in problems(with_programs(**{name: {}}))[0]
    assert Site(**with_programs(nodered={})).programs


@pytest.mark.parametrize("given", ["", "#/a", "a/#/b", "a+", "a/b+", "$SYS/#", "a b", "a\nuser x", "a//b", "/a", "ä"])
def test_a_topic_of_a_program_is_one_that_an_acl_takes_as_it_is_meant(given: str) -> None:
    assert "is no topic filter" in problems(with_programs(nodered={"reads": [given]}))[0]
    for good in ("a", "a/b", "+/b", "a/+/c/#", "devices/+/telemetry/#"):
        assert Site(**with_programs(nodered={"writes": [good]}))


def test_the_sites_ssh_port_moves_the_listener() -> None:
    assert Site(**changed("ssh/port", 2222)).listener("ssh", "ssh").port == 2222


def test_gateways_of_one_site_may_use_the_same_prefixes_but_not_the_same_management_address() -> None:
    data = description()
    data["gateways"]["gw2"] = copy.deepcopy(data["gateways"]["gw"])
    assert "management address of 'gw' too" in problems(data)[0]
    data["gateways"]["gw2"]["contact"] = {"address": "192.0.2.9"}
    assert set(Site(**data).gateways) == {"gw", "gw2"}


@given(st.recursive(st.none() | st.integers() | st.text(max_size=8), lambda c: st.lists(c, max_size=3) | st.dictionaries(st.text(max_size=4), c, max_size=3)))  # fmt: skip
def test_no_value_anywhere_ends_in_anything_but_a_site_or_its_problems(value: Any) -> None:
    for path in (
        "segments",
        "gateways",
        "devices",
        "settings",
        "destinations",
        "ssh",
        "gateways/gw/networks",
        "broker",
    ):
        try:
            Site(**changed(path, value))
        except SiteError as error:
            assert error.problems
