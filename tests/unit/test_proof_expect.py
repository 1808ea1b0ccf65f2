"""What is asked and expected comes from the site's declarations: change those, and both follow."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from gatehouse.identity import Pki, SecretStore
from gatehouse.identity.names import KIT_PREFIX
from gatehouse.proof import expect
from gatehouse.proof.credentials import (
    CUT_OFF,
    OBSERVER,
    OTHER_PROBE,
    PROBE,
    REVOKED,
    foreign_anchor,
    keep_revoked,
    newest_revoked,
    shown,
)
from gatehouse.proof.expect import Place, undeclared
from gatehouse.proof.observation import Observation
from gatehouse.proof.sockets import connections, sockets
from gatehouse.site import ClosedPort, Flow, Listener, Service, Site, derive

ROOT = Path(__file__).resolve().parents[2]
KEY = "ssh-ed25519 " + "A" * 68 + " someone"

LISTENER = {"encryption": "tls", "authentication": "certificate", "data": "d", "compromise": "c"}


def site(**change):
    mqtts = Listener(name="mqtts", port=8883, reachable_from=("iot",), **LISTENER)
    dns = Listener(name="dns", port=53, transport="udp", reachable_from=("iot", "guest"), **LISTENER)
    dhcp = Listener(name="dhcp", port=67, transport="udp", reachable_from=("iot",), broadcast=True, **LISTENER)
    asks = Flow(
        source="gateway", destination="internet", data="d", encryption="none", authentication="a", compromise="c"
    )
    services = (
        Service(name="broker", title="Broker", listeners=(mqtts,), closed=(ClosedPort(port=1883, reason="plain"),)),
        Service(name="names", title="Names", listeners=(dns, dhcp), units=("names.service",), flows=(asks,)),
    )
    networks = {
        "iot": {"interface": "a", "ipv4": "10.1.1.1/24", "ipv6": "fd01::1/64"},
        "management": {"interface": "b", "ipv4": "10.1.2.1/24"},
        "guest": {"interface": "c", "ipv4": "10.1.3.1/24"},
        "internet": {"interface": "d", "ipv4": "192.0.2.2/24", "router4": "192.0.2.1"},
    }
    segments = {"iot": {}, "management": {"reaches": ["iot", "internet"]}, "guest": {"reaches": ["internet"]}}
    given = {
        "name": "home",
        "domain": "home.arpa",
        "services": services,
        "segments": {**segments, "internet": {}},
        "gateways": {"gw": {"networks": networks}},
        "ssh": {"keys": [KEY]},
        "destinations": {"cloud": {"addresses": ["192.0.2.80/32"], "port": 443, "segments": ["iot"]}},
        **change,
    }  # fmt: skip
    return Site(**given)


PLACES = {
    "iot": Place("iot", ("10.1.1.254", "fd01::abcd"), ("10.1.1.1", "fd01::1")),
    "management": Place("management", ("10.1.2.254",), ("10.1.2.1",)),
    "guest": Place("guest", ("10.1.3.254",), ("10.1.3.1",)),
    "internet": Place("internet", ("192.0.2.254",), ("192.0.2.2",)),
}


def ids(work, position):
    return [probe["id"] for probe in work[position]]


def test_the_ports_asked_for_are_those_that_are_declared():
    assert expect.labels(site(), "gw") == ["53/udp", "67/udp", "443/tcp", "1883/tcp", "8883/tcp"]


def test_a_port_that_a_site_changes_is_asked_for_where_it_is_then():
    moved = site(settings={"broker": {"ports": {"mqtts": 8884}}})
    assert "8884/tcp" in expect.labels(moved, "gw")
    assert "8883/tcp" not in expect.labels(moved, "gw")


def test_a_service_that_a_gateway_goes_without_is_not_expected():
    without = {**site().gateways["gw"].model_dump(exclude_none=True), "without": ("broker",)}
    assert [offer.name for offer in expect.offers(site(gateways={"gw": without}), "gw")] == ["names.dns", "names.dhcp"]


def test_every_listener_is_asked_for_from_every_segment_at_every_address():
    asked = expect.gateway_work(site(), "gw", PLACES)
    assert "broker.mqtts@10.1.2.1" in ids(asked, "guest")
    assert "broker.mqtts@fd01::1" in ids(asked, "iot")
    assert "closed:1883/tcp@10.1.1.1" in ids(asked, "guest")
    assert {"closed:1883/tcp@127.0.0.1", "closed:1883/tcp@::1"} <= set(ids(asked, expect.GATEWAY))


def test_a_position_is_asked_only_in_families_it_has():
    asked = expect.gateway_work(site(), "gw", PLACES)
    assert not [name for name in ids(asked, "guest") if "fd01" in name]


def test_a_broadcast_protocol_is_asked_for_once():
    asked = expect.gateway_work(site(), "gw", PLACES)
    assert ids(asked, "guest").count("names.dhcp@*") == 1


def test_every_ordered_pair_of_segments_is_asked_for_on_every_port():
    asked = expect.crossing_work(PLACES, PLACES, ["8883/tcp", "53/udp"])
    pairs = {(position, probe["address"], probe["port"]) for position, probes in asked.items() for probe in probes}
    assert ("guest", "10.1.1.254", 8883) in pairs
    assert ("internet", "10.1.2.254", 53) in pairs
    assert not [pair for pair in pairs if pair[0] == "iot" and pair[1].startswith("10.1.1.")]
    assert len({pair[:2] for pair in pairs}) == 4 * 3


@pytest.mark.parametrize(
    ("who", "towards", "address", "label", "allowed"),
    [
        ("management", "iot", "10.1.1.254", "22/tcp", True),
        ("iot", "management", "10.1.2.254", "22/tcp", False),
        ("guest", "internet", "192.0.2.254", "25/tcp", True),
        ("iot", "internet", "192.0.2.80", "443/tcp", True),
        ("iot", "internet", "192.0.2.80", "80/tcp", False),
        ("iot", "internet", "192.0.2.80", "443/udp", False),
        ("iot", "internet", "192.0.2.90", "443/tcp", False),
        ("internet", "guest", "10.1.3.254", "443/tcp", False),
    ],
)
def test_what_is_permitted_is_what_the_policy_says(who, towards, address, label, allowed):
    assert expect.permitted(derive(site(), "gw"), who, towards, address, label) is allowed


def test_a_scan_must_find_what_a_segment_may_reach():
    policy = derive(site(), "gw")
    assert expect.admitted(policy, "iot", "tcp") == {"8883/tcp"}
    assert expect.admitted(policy, "guest", "tcp") == set()
    assert expect.admitted(policy, "guest", "udp") == {"53/udp"}


def test_forged_senders_are_those_that_would_gain_something():
    tried = set(expect.spoofs(derive(site(), "gw"), PLACES))
    assert ("guest", "management", "iot") in tried
    assert ("guest", "iot", "management") not in tried, "iot may reach nothing there, so nothing is gained"
    assert ("management", "management", "iot") not in tried


def test_unique_local_addresses_are_told_from_global_ones():
    assert PLACES["iot"].has_only_local_ipv6
    assert not Place("iot", ("2001:db8::1",), ("2001:db8::2",)).has_only_local_ipv6


@pytest.mark.parametrize(
    ("outcome", "reached", "denied"),
    [
        ("open", True, False), ("answered", True, False), ("silent", False, True), ("prohibited", False, True),
        ("refused", False, False), ("unsent", False, False), ("error", False, False), ("cut", False, False),
    ],
)  # fmt: skip
def test_an_outcome_is_read_as_reached_denied_or_neither(outcome, reached, denied):
    seen = Observation("iot", {"kind": "tcp", "address": "::1", "port": 1}, {"outcome": outcome})
    assert (seen.reached, seen.denied) == (reached, denied)
    assert seen.target == "[::1]:1"


def test_listening_sockets_are_read():
    text = (
        'udp UNCONN 0 0 127.0.0.1%lo:323 0.0.0.0:* users:(("chronyd",pid=1,fd=2)) cgroup:/system.slice/chrony.service\n'
        'udp UNCONN 0 0 0.0.0.0:40001 0.0.0.0:* users:(("dnsmasq",pid=1,fd=2)) cgroup:/a/b/dnsmasq.service\n'
        "tcp LISTEN 0 128 [::]:22 [::]:*\n"
    )
    chrony, dnsmasq, ssh = sockets(text)
    assert (chrony.label, chrony.program, chrony.unit, chrony.asks) == ("323/udp", "chronyd", "chrony.service", False)
    assert (dnsmasq.unit, dnsmasq.asks) == ("dnsmasq.service", True)
    assert (ssh.label, ssh.address, ssh.program) == ("22/tcp", "::", "the kernel")


OWN = {"127.0.0.1", "::1", "10.1.1.1", "fd01::1"}


@pytest.mark.parametrize(
    ("line", "is_declared"),
    [
        ('tcp ESTAB 0 0 10.1.1.1:8883 10.1.1.7:40000 users:(("m",pid=1,fd=2)) cgroup:/broker.service', True),
        ('tcp ESTAB 0 0 [::ffff:10.1.1.1]:8883 [::ffff:10.1.1.7]:40000 users:(("m",pid=1,fd=2))', True),
        ('tcp ESTAB 0 0 [fd01::1]:40000 [fd01::1]:8883 users:(("p",pid=1,fd=2)) cgroup:/intake.service', True),
        ('udp ESTAB 0 0 192.0.2.2:40000 198.51.100.1:53 users:(("d",pid=1,fd=2)) cgroup:/names.service', True),
        # the same to somebody else's port 8883, over the other transport, of a unit that calls nobody, of no unit
        ('tcp ESTAB 0 0 192.0.2.2:40000 198.51.100.1:8883 users:(("p",pid=1,fd=2)) cgroup:/intake.service', False),
        ('udp ESTAB 0 0 10.1.1.1:8883 10.1.1.7:40000 users:(("m",pid=1,fd=2)) cgroup:/broker.service', False),
        ('udp ESTAB 0 0 192.0.2.2:40000 198.51.100.1:53 users:(("d",pid=1,fd=2)) cgroup:/broker.service', False),
        ('tcp SYN-SENT 0 1 192.0.2.2:40000 198.51.100.1:443 users:(("x",pid=1,fd=2))', False),
        # what is over, or only listens, is no connection
        ("tcp TIME-WAIT 0 0 192.0.2.2:40000 198.51.100.1:443", True),
        ('tcp LISTEN 0 128 0.0.0.0:2323 0.0.0.0:* users:(("x",pid=1,fd=2))', True),
    ],
)
def test_a_connection_is_declared_by_a_listener_or_by_its_units_flow(line, is_declared):
    found = undeclared(site(), "gw", OWN, connections(line + "\n"))
    assert (found == []) is is_declared, found


# identities of probes


@pytest.fixture
def vault():
    return SecretStore()


@pytest.fixture
def pki(vault):
    return Pki(vault, "home", "home.arpa").ensure()


def test_the_revoked_certificate_is_on_the_list_and_stays_the_same(vault, pki):
    first = keep_revoked(vault, pki)
    before = pki.crl()
    assert first.serial in pki.revoked()
    assert keep_revoked(vault, pki).serial == first.serial
    assert pki.crl() == before


def test_a_revoked_certificate_that_grows_old_is_replaced_by_another_that_is_revoked(vault, pki):
    first = keep_revoked(vault, pki)
    second = keep_revoked(vault, pki, now=first.not_before + (first.not_after - first.not_before) * 0.7)
    assert second.serial != first.serial
    assert {first.serial, second.serial} <= pki.revoked().keys()


def test_no_device_can_have_a_probes_name():
    assert all(name.startswith(KIT_PREFIX) for name in (PROBE, OTHER_PROBE, OBSERVER, REVOKED, CUT_OFF))


def test_the_broker_knows_the_observer_and_the_devices_it_may_see():
    acl = (ROOT / "templates" / "mosquitto" / "etc" / "mosquitto" / "gatehouse" / "acl.j2").read_text()
    section = acl.partition(f"user {OBSERVER}\n")[2].partition("{%")[0]
    named = {line.split("/")[1] for line in section.splitlines() if line.startswith("topic")}
    assert named == {PROBE, OTHER_PROBE, CUT_OFF}


def test_what_was_revoked_last_is_shown_with_its_own_serial_number(vault, pki):
    now = datetime.now(UTC)
    serials = [pki.device(f"d-{number}").serial for number in range(7)]
    for number, serial in enumerate(serials):
        pki.revoke(serial, when=now + timedelta(seconds=number))
    assert newest_revoked(pki) == serials[:1:-1]
    made = shown(vault, pki, "home", "home.arpa")
    certificates = [x509.load_pem_x509_certificate(made[f"last-{n}"].chain.encode()) for n in range(1, 6)]
    assert [certificate.serial_number for certificate in certificates] == serials[:1:-1]
    assert "last-6" not in made


def test_what_probes_show_is_new_each_time_but_for_the_revoked_one(vault, pki):
    first, second = (shown(vault, pki, "home", "home.arpa") for _ in range(2))
    assert first["revoked"] == second["revoked"]
    assert not [name for name in first if name != "revoked" and first[name].key == second[name].key]
    assert foreign_anchor("home", "home.arpa") != pki.trust_anchor.decode()
