"""A manufacturer's usage description (RFC 8520) becomes destinations, or is refused in one line, nothing written."""

from __future__ import annotations

import copy
import datetime
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from deploy import mud
from gatehouse.errors import GatehouseError
from gatehouse.site import Site, destinations
from gatehouse.site.mud import LARGEST, MOST, Flow, MudError, parse
from tests.unit.test_site_model import description


def ace(name: str = "cl0-frdev", **matches: Any) -> dict[str, Any]:
    return {"name": name, "matches": matches, "actions": {"forwarding": "accept"}}


def to_name(name: str, port: int = 443, **more: Any) -> dict[str, Any]:
    return ace(
        f"to-{name}",
        ipv4={"ietf-acldns:dst-dnsname": name, "protocol": 6},
        tcp={
            "destination-port": {"operator": "eq", "port": port},
            "ietf-mud:direction-initiated": "from-device",
            **more,
        },
    )


def mud_file(*entries: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """As in RFC 8520 §9, with these entries from the device."""
    mud = {
        "mud-version": 1,
        "mud-url": "https://bulb.example.com/bulb1000",
        "last-update": "2026-01-28T14:26:18+00:00",
        "cache-validity": 48,
        "is-supported": True,
        "systeminfo": "The BMS Example Light Bulb",
        "model-name": "bulb1000",
        "from-device-policy": {"access-lists": {"access-list": [{"name": "from"}]}},
        "to-device-policy": {"access-lists": {"access-list": [{"name": "to"}]}},
        **changes,
    }
    answer = ace(
        "answers",
        ipv4={"ietf-acldns:src-dnsname": "updates.bulb.example.com", "protocol": 6},
        tcp={"source-port": {"operator": "eq", "port": 443}, "ietf-mud:direction-initiated": "from-device"},
    )
    lists = [
        {"name": "to", "type": "ipv4-acl-type", "aces": {"ace": [answer]}},
        {"name": "from", "type": "ipv4-acl-type", "aces": {"ace": list(entries)}},
    ]
    return {"ietf-mud:mud": mud, "ietf-access-control-list:acls": {"acl": lists}}


def read(content: dict[str, Any]) -> Any:
    return parse(json.dumps(content).encode(), "bulb.json")


def test_what_the_device_opens_is_read_in_both_spellings() -> None:
    new = mud_file(to_name("updates.bulb.example.com"), to_name("mqtt.bulb.example.com", 8883))
    old = copy.deepcopy(new)
    old["ietf-access-control-list:access-lists"] = old.pop("ietf-access-control-list:acls")
    for acl in old["ietf-access-control-list:access-lists"]["acl"]:
        acl["acl-name"], acl["access-list-entries"] = acl.pop("name"), acl.pop("aces")
        for entry in acl["access-list-entries"]["ace"]:
            entry["rule-name"] = entry.pop("name")
            matches = entry["matches"]
            entry["matches"] = {"l3": {"ipv4": matches["ipv4"]}, "l4": {"tcp": matches["tcp"]}}
    expected = (Flow("tcp", 443, "updates.bulb.example.com"), Flow("tcp", 8883, "mqtt.bulb.example.com"))
    assert read(new).flows == read(old).flows == expected
    assert (read(new).model, read(new).about) == ("bulb1000", "The BMS Example Light Bulb")


def test_networks_of_both_families_and_udp_are_read() -> None:
    four = ace(
        ipv4={"destination-ipv4-network": "8.8.8.0/24", "protocol": 17}, udp={"destination-port": {"port": 4433}}
    )
    six = ace(
        "six",
        ipv6={"destination-ipv6-network": "2600:1f00::/40", "protocol": 6},
        tcp={"destination-port": {"operator": "eq", "port": 443}},
    )
    assert read(mud_file(four, six)).flows == (
        Flow("tcp", 443, network="2600:1f00::/40"), Flow("udp", 4433, network="8.8.8.0/24"),
    )  # fmt: skip


def test_what_opens_nothing_here_is_left_out_and_said() -> None:
    names = ace("names", **{"ietf-mud:mud": {"controller": "urn:ietf:params:mud:dns"}})
    friends = ace("friends", **{"ietf-mud:mud": {"same-manufacturer": [None]}})
    ping = ace("ping", ipv4={"protocol": 1, "ietf-acldns:dst-dnsname": "a.example.com"})
    dropped = {**to_name("bad.example.com"), "actions": {"forwarding": "drop"}}
    found = read(mud_file(names, friends, ping, dropped, to_name("updates.bulb.example.com")))
    assert [flow.name for flow in found.flows] == ["updates.bulb.example.com"]
    assert [entry.entry for entry in found.left_out] == ["from: names", "from: friends", "from: ping"]


def test_a_connection_from_outside_opens_nothing() -> None:
    content = mud_file(to_name("updates.bulb.example.com"))
    inwards = ace("in", ipv4={"ietf-acldns:src-dnsname": "a.example.com", "protocol": 6},
                  tcp={"destination-port": {"port": 22}, "ietf-mud:direction-initiated": "to-device"})  # fmt: skip
    content["ietf-access-control-list:acls"]["acl"][0]["aces"]["ace"].append(inwards)
    found = read(content)
    assert len(found.flows) == 1
    assert [entry.why for entry in found.left_out] == ["connections from outside: no device takes any"]


def naming(entry: dict[str, Any]) -> dict[str, Any]:
    return {"from-device-policy": {"access-lists": {"access-list": [entry]}}}


def _with(**matches: Any) -> dict[str, Any]:
    base = {
        "ipv4": {"ietf-acldns:dst-dnsname": "a.example.com", "protocol": 6},
        "tcp": {"destination-port": {"port": 443}},
    }
    return mud_file(ace(**{key: match for key, match in {**base, **matches}.items() if match is not None}))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, "ietf-mud:mud is missing"),
        ([], "is no JSON object"),
        (mud_file(to_name("a.example.com"), **{"mud-version": 2}), "mud-version: is 2, not 1"),
        (_with(eth={}), "unknown match 'eth'"),
        (_with(ipv4={"protocol": 6, "ietf-acldns:dst-dnsname": "a.example.com", "dscp": 4}), "unknown match 'dscp'"),
        (_with(tcp={"destination-port": {"port": 443}, "flags": "syn"}), "unknown match 'flags'"),
        (_with(**{"ietf-mud:mud": {"everybody": [None]}}), "unknown match 'everybody'"),
        (_with(tcp={"destination-port": {"lower-port": 1, "upper-port": 65535}}), "is not a single one"),
        (_with(tcp={"destination-port": {"operator": "gte", "port": 1}}), "is not a single one"),
        (_with(tcp={"destination-port": {"port": 0}}), "is not a single one"),
        (_with(tcp={}), "opens every port"),
        (_with(tcp={"destination-port": {"port": True}}), "is not a single one"),
        (mud_file(ace(ipv4={"ietf-acldns:dst-dnsname": "a.example.com"})), "opens every protocol"),
        (_with(ipv4={"protocol": 6}), "leads everywhere"),
        (_with(ipv4={"protocol": 47, "ietf-acldns:dst-dnsname": "a.example.com"}), "unknown protocol 47"),
        (_with(ipv4={"protocol": 17, "ietf-acldns:dst-dnsname": "a.example.com"}), "protocol 17 is not tcp"),
        (_with(ipv4={"protocol": 6, "destination-ipv4-network": "10.10.20.0/24"}), "is no address of the internet"),
        (_with(ipv4={"protocol": 6, "destination-ipv4-network": "0.0.0.0/0"}), "too much of the internet"),
        (_with(ipv4={"protocol": 6, "destination-ipv4-network": "8.0.0.0/8"}), "too much of the internet"),
        (_with(ipv4={"protocol": 6, "destination-ipv4-network": "8.8.8.8.8"}), "is no network"),
        (_with(ipv4={"protocol": 6, "ietf-acldns:dst-dnsname": "a b;drop.example"}), "is no name on the internet"),
        (_with(ipv4={"protocol": 6, "ietf-acldns:dst-dnsname": 7}), "is no name on the internet"),
        *((_with(ipv4={"protocol": 6, "ietf-acldns:dst-dnsname": name}), "is no name on the internet")
          for name in ("10.10.20.1", "192.168.1.1.", "localhost", "nas.local", "gw.internal", "x.home.arpa.")),
        *((_with(ipv4={"protocol": 6, "destination-ipv4-network": network}), "is no address of the internet")
          for network in ("127.0.0.0/8", "169.254.169.254/32", "192.168.0.0/16", "224.0.0.0/24", "255.255.255.255/32")),
        *((_with(ipv4=None, ipv6={"protocol": 6, "destination-ipv6-network": network}), "is no address of the internet")
          for network in ("fd10:10:20::/64", "::ffff:10.10.20.1/128")),
        (mud_file({**to_name("a.example.com"), "actions": {"forwarding": "tunnel"}}), "unknown action 'tunnel'"),
        (mud_file({**to_name("a.example.com"), "actions": {"mirror": 1}}), "unknown action 'mirror'"),
        (mud_file(*[to_name("a.example.com")] * (MOST + 1)), f"more than {MOST} entries"),
        (mud_file(systeminfo="\x1b[2Jnice"), "systeminfo: is no printable text"),
        (mud_file(**naming({"name": "gone"})), "'gone', which is not there"),
        (mud_file(**naming({})), "names a list without a name"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused_in_one_line(content: Any, said: str) -> None:
    with pytest.raises(MudError) as refused:
        read(content)
    line = str(refused.value)
    assert said in line and line.startswith("bulb.json") and line.endswith(")") and "\n" not in line
    assert read(mud_file(to_name("a.example.com"))).flows


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b" " * (LARGEST + 1), "at most"),
        (b"[" * 100_000 + b"]" * 100_000, "levels deep"),
        (b'{"a":' * 30 + b"1" + b"}" * 30, "levels deep"),
        (b'{"a": 1, "a": 2}', "says 'a' twice"),
        (b"\xff\xfe", "is no JSON"),
        (b'{"ietf-mud:mud": ', "is no JSON"),
    ],
)
def test_what_is_no_description_at_all_is_refused(raw: bytes, said: str) -> None:
    with pytest.raises(MudError, match=said):
        parse(raw, "bulb.json")


def test_a_description_with_both_containers_is_refused() -> None:
    content = mud_file(to_name("a.example.com"))
    content["ietf-access-control-list:access-lists"] = content["ietf-access-control-list:acls"]
    with pytest.raises(MudError, match="both spellings"):
        read(content)


# Importing


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Site]:
    """Makes a small site whose destinations are in a file of its own, and has `deploy.mud` load that."""
    file = tmp_path / "destinations.toml"

    def make(reads: bool = True, **changes: Any) -> Site:
        def load(*_: object) -> Site:
            return Site(**{**description(), "state": tmp_path, **changes,
                           "destinations": destinations.read(file) if reads else {}})  # fmt: skip

        monkeypatch.setattr(mud, "load", load)
        return load()

    return make


@pytest.fixture
def bulb(tmp_path: Path) -> Path:
    file = tmp_path / "bulb.json"
    file.write_text(json.dumps(mud_file(to_name("updates.bulb.example.com"), to_name("mqtt.bulb.example.com", 8883))))
    return file


def test_an_import_is_shown_then_written_and_the_next_replaces_it(house: Callable[..., Site], bulb: Path) -> None:
    made = mud.plan(house(), str(bulb))
    assert not mud.path_of(made.site).exists()
    assert [line for line in made.table() if line.startswith("+")] == [
        f"+ {'updates.bulb.example.com':44}   443  tcp",
        f"+ {'mqtt.bulb.example.com':44}  8883  tcp",
    ]
    path = mud.apply(made)
    first = house()
    assert [(d.names, d.port, d.models) for d in first.destinations.values()] == [
        (("updates.bulb.example.com",), 443, ("bulb1000",)),
        (("mqtt.bulb.example.com",), 8883, ("bulb1000",)),
    ]
    assert mud.plan(first, str(bulb)).empty
    path.write_text(path.read_text() + '\n# by hand\n[mine]\nnames = ["b.example.com"]\nport = 1\nsegments = ["iot"]\n')
    bulb.write_text(json.dumps(mud_file(to_name("next.bulb.example.com"))))
    again = mud.plan(house(), str(bulb))
    assert {line[0] for line in again.table()[4:] if line[0] in "+-"} == {"+", "-"}
    mud.apply(again)
    assert [d.names[0] for d in house().destinations.values()] == ["b.example.com", "next.bulb.example.com"]
    assert "# by hand" in path.read_text()


def test_a_model_of_the_registry_s_own_name_is_taken(house: Callable[..., Site], bulb: Path) -> None:
    mud.apply(mud.plan(house(), str(bulb), model='ESP "32"'))
    assert {d.models for d in house().destinations.values()} == {('ESP "32"',)}


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (to_name("broker.plant.example"), "a name of the site's own"),
        (to_name("a.example.com", 853), "is for names"),
    ],
)
def test_a_site_that_would_not_be_valid_is_not_written(
    house: Callable[..., Site], bulb: Path, entry: dict[str, Any], said: str
) -> None:
    bulb.write_text(json.dumps(mud_file(entry)))
    data = description()
    data["segments"]["iot"]["own_resolver"] = True
    site = house(**{"segments": data["segments"], "domain": "plant.example", "devices": [
        {"name": "b", "model": "bulb1000", "gateway": "gw", "hardware_address": "02:00:00:00:00:09"}]})  # fmt: skip
    with pytest.raises(GatehouseError, match=said):
        mud.plan(site, str(bulb))
    assert not mud.path_of(site).exists()


def test_a_site_that_does_not_read_the_file_is_told_so(house: Callable[..., Site], bulb: Path) -> None:
    with pytest.raises(MudError, match="read_destinations"):
        mud.plan(house(reads=False), str(bulb))


def test_a_description_without_need_of_the_internet_is_no_import(house: Callable[..., Site], bulb: Path) -> None:
    bulb.write_text(json.dumps(mud_file()))
    with pytest.raises(MudError, match="nothing to import"):
        mud.plan(house(), str(bulb))


def test_a_file_that_is_not_there_leads_to_itself_or_has_no_end_is_said(
    house: Callable[..., Site], tmp_path: Path
) -> None:
    loop = tmp_path / "loop.json"
    loop.symlink_to(loop)
    for file, said in (
        (tmp_path / "none.json", "No such file"),
        (loop, "Too many levels of symbolic links"),
        (tmp_path, "Is a directory"),
        (Path("/dev/zero"), f"more than {LARGEST} bytes"),
    ):
        with pytest.raises(MudError, match=said) as refused:
            mud.plan(house(), str(file))
        assert "\n" not in str(refused.value)


def test_a_list_that_is_named_again_and_again_adds_nothing() -> None:
    """What comes nearest to a circle: entries can't name a list."""
    again = {"from-device-policy": {"access-lists": {"access-list": [{"name": "from"}] * 500}}}
    assert read(mud_file(to_name("a.example.com"), **again)).flows == (Flow("tcp", 443, "a.example.com"),)


# Signatures


class Signer:
    """A CA and a certificate of it that signs MUD files."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, now = folder, datetime.datetime.now(datetime.UTC)
        self.ca, self._certificate, self._key = (folder / f"{name}-{part}.pem" for part in ("ca", "cert", "key"))
        keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
        names = [x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, n)]) for n in (f"{name} CA", f"{name} MUD")]
        for subject, key, path in ((names[0], keys[0], self.ca), (names[1], keys[1], self._certificate)):
            made = x509.CertificateBuilder().subject_name(subject).issuer_name(names[0]).public_key(key.public_key())
            made = made.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
            made = made.not_valid_after(now + datetime.timedelta(days=9))
            made = made.add_extension(x509.BasicConstraints(path == self.ca, None), critical=True)
            path.write_bytes(made.sign(keys[0], hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        secret = serialization.NoEncryption()
        self._key.write_bytes(
            keys[1].private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret)
        )

    def sign(self, file: Path, form: str = "DER") -> Path:
        signature = file.with_name(f"{file.name}.p7s")
        subprocess.run(
            ["openssl", "cms", "-sign", "-binary", "-in", str(file), "-signer", str(self._certificate),
             "-inkey", str(self._key), "-outform", form, "-out", str(signature)],
            check=True, capture_output=True,
        )  # fmt: skip
        return signature


@pytest.mark.parametrize("form", ["DER", "PEM"])
def test_a_good_signature_is_named(house: Callable[..., Site], bulb: Path, form: str) -> None:
    signer = Signer(bulb.parent, "bulb")
    signer.sign(bulb, form)
    made = mud.plan(house(mud={"signed": True}), str(bulb), authority=str(signer.ca))
    assert made.signer == "CN=bulb MUD"
    assert "# signed by CN=bulb MUD" in mud.apply(made).read_text()


def test_a_file_that_was_changed_after_it_was_signed_is_refused(house: Callable[..., Site], bulb: Path) -> None:
    signer = Signer(bulb.parent, "bulb")
    signer.sign(bulb)
    bulb.write_text(bulb.read_text().replace("updates.bulb", "updates.evil"))
    with pytest.raises(MudError, match="its signature is not good"):
        mud.plan(house(), str(bulb), authority=str(signer.ca))


def test_a_signature_by_another_ca_is_refused(house: Callable[..., Site], bulb: Path) -> None:
    Signer(bulb.parent, "other").sign(bulb)
    with pytest.raises(MudError, match="its signature is not good"):
        mud.plan(house(), str(bulb), authority=str(Signer(bulb.parent, "bulb").ca))


def test_a_signature_that_nobody_can_check_is_no_signature(house: Callable[..., Site], bulb: Path) -> None:
    signature = Signer(bulb.parent, "bulb").sign(bulb)
    with pytest.raises(MudError, match="--ca FILE"):
        mud.plan(house(), str(bulb))
    signature.write_bytes(b"\x30\x03\x02\x01\x00")
    with pytest.raises(MudError, match="its signature is not good"):
        mud.plan(house(), str(bulb), authority=str(Signer(bulb.parent, "bulb").ca))


def test_a_site_that_demands_a_signature_takes_none_without(house: Callable[..., Site], bulb: Path) -> None:
    site = house(mud={"signed": True})
    with pytest.raises(MudError, match="has no signature, and the site takes none without"):
        mud.plan(site, str(bulb))
    assert not mud.path_of(site).exists()
    assert mud.plan(house(), str(bulb)).signer == ""
