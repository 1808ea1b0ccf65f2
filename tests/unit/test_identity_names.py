"""Which names a device may have, and the random secrets it is given."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatehouse.identity import passwords
from gatehouse.identity.names import LONGEST, RESERVED, NameRefused, check_device_name, check_label

LDH = string.ascii_lowercase + string.digits + "-"


@pytest.mark.parametrize("name", ["kitchen-01", "a", "0", "pump", "a--b", "x" * 63, "admin-lamp", "gatehouse"])
def test_a_plain_name_is_taken_as_it_is(name):
    assert check_device_name(name) == name


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "empty"),
        ("a\n", "can't be printed"),
        ("a\x00b", "can't be printed"),
        ("a\u202eb", "can't be printed"),
        ("x" * 64, "longer than 63 bytes"),
        ("ü" * 32, "longer than 63 bytes"),
        ("+", "MQTT topics"),
        ("#", "MQTT topics"),
        ("$SYS", "MQTT topics"),
        ("Kitchen", "capitals"),
        ("a b", "other characters"),
        ("a/b", "other characters"),
        ("a.b", "other characters"),
        ("a+", "other characters"),
        ("küche", "other characters"),
        ("-a", "'-' at an end"),
        ("a-", "'-' at an end"),
        ("..", "other characters"),
        ("gatehouse-probe", "the kit's own"),
        *((name, "reserved") for name in sorted(RESERVED)),
    ],
)
def test_a_name_that_would_mean_something_else_is_refused_with_the_reason(name, why):
    with pytest.raises(NameRefused, match=why) as caught:
        check_device_name(name)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


def test_a_service_has_its_name_to_itself():
    assert check_device_name("mosquitto") == "mosquitto"
    with pytest.raises(NameRefused, match="reserved"):
        check_device_name("mosquitto", services=["influxdb", "mosquitto"])


def test_a_probe_may_have_a_name_that_no_device_may():
    assert check_label("gatehouse-probe") == "gatehouse-probe"
    with pytest.raises(NameRefused, match="MQTT"):
        check_label("+")


@given(st.text(max_size=80))
def test_whatever_is_accepted_is_a_dns_label_a_topic_level_and_a_file_name(name):
    try:
        check_device_name(name)
    except NameRefused as refused:
        assert str(refused).isprintable()
    else:
        assert 1 <= len(name.encode("ascii")) <= LONGEST
        assert set(name) <= set(LDH)
        assert name.strip("-") == name


@given(st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True))
def test_every_label_is_accepted_unless_it_is_reserved(name):
    if name in RESERVED or name.startswith("gatehouse-"):
        return
    assert check_device_name(name) == name


@pytest.mark.parametrize("make", [passwords.token, passwords.hex_key, passwords.raw_key, passwords.password])
def test_secrets_are_unique_and_never_weak(make):
    assert len({make() for _ in range(50)}) == 50
    assert len(make(512)) > len(make(128))
    for bits in (0, 8, 120, 129):
        with pytest.raises(ValueError, match="at least 128"):
            make(bits)


def test_secrets_hold_the_bits_they_say():
    assert len(passwords.raw_key(256)) == 32
    assert bytes.fromhex(passwords.hex_key(256)).__len__() == 32
    assert len(passwords.token(256)) == 43
    assert 62 ** len(passwords.password(128)) >= 2**128
    assert passwords.password().isalnum()
