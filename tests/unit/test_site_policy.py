"""Who may reach what follows from the declarations, and from nothing else."""

from __future__ import annotations

from ipaddress import ip_address

from gatehouse.site import Site, derive
from tests.unit.test_site_model import changed, description


def test_a_segment_reaches_a_listener_at_its_own_address_only() -> None:
    policy = derive(Site(**description()), "gw")
    assert policy.admits("iot", 8883, "tcp", at="iot")
    assert not policy.admits("iot", 8883, "tcp", at="management")
    assert not policy.admits("guest", 8883, "tcp", at="guest")
    assert not policy.admits("iot", 22, "tcp", at="iot")
    assert policy.admits("management", 22, "tcp", at="management")


def test_the_rules_name_every_address_of_the_segment() -> None:
    (rule,) = (r for r in derive(Site(**description()), "gw").input if r.service == "mosquitto")
    assert [str(a) for a in rule.addresses] == ["10.10.10.1", "fd10:10:10::1"]


def test_a_segment_reaches_only_what_it_lists() -> None:
    policy = derive(Site(**description()), "gw")
    assert policy.forwards("guest", "internet")
    assert not policy.forwards("iot", "internet")
    assert not policy.forwards("guest", "iot")
    assert not policy.forwards("internet", "iot")


def test_a_destination_opens_one_port_of_one_address() -> None:
    data = changed("destinations", {"cloud": {"addresses": ["192.0.2.80"], "port": 443, "segments": ["iot"]}})
    policy = derive(Site(**data), "gw")
    assert policy.forwards_to("iot", ip_address("192.0.2.80"), 443, "tcp")
    assert not policy.forwards_to("iot", ip_address("192.0.2.80"), 80, "tcp")
    assert not policy.forwards_to("iot", ip_address("192.0.2.81"), 443, "tcp")
    assert policy.forwards_to("guest", ip_address("192.0.2.81"), 443, "tcp")


def test_a_gateway_without_a_service_has_no_rule_for_it() -> None:
    policy = derive(Site(**changed("gateways/gw/without", ["mosquitto"])), "gw")
    assert not policy.admits("iot", 8883, "tcp", at="iot")
    assert policy.admits("management", 22, "tcp", at="management")
