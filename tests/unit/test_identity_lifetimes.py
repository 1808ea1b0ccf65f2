"""How much of their life things have left, as compliance asks it."""

from __future__ import annotations

import datetime

import pytest

from gatehouse.identity.lifetimes import Lifetime, of_certificate, of_crl
from gatehouse.identity.pki import Pki, PkiError
from gatehouse.identity.store import SecretStore

NOW = datetime.datetime(2025, 6, 1, 12, 0, 0, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)


@pytest.mark.parametrize(
    ("days", "left", "days_left", "care"),
    [(-1, 1.0, 91, True), (0, 1.0, 90, False), (60, 1 / 3, 30, False), (61, 29 / 90, 29, True), (90, 0, 0, True)],
)
def test_the_fraction_left_goes_from_one_to_zero_and_below_a_third_it_needs_care(days, left, days_left, care):
    life, now = Lifetime("x", NOW, NOW + 90 * DAY), NOW + days * DAY
    assert life.left(now) == pytest.approx(left)
    assert (life.days_left(now), life.needs_care(now)) == (days_left, care)


def test_what_ended_has_nothing_left_and_what_never_lived_neither():
    assert Lifetime("x", NOW, NOW + DAY).left(NOW + 9 * DAY) == 0
    assert Lifetime("x", NOW, NOW + DAY).days_left(NOW + 9 * DAY) == -8
    assert Lifetime("x", NOW, NOW).left(NOW - DAY) == 0


def test_certificate_and_revocation_list_say_how_long_they_are_good():
    pki = Pki(SecretStore(), "home", "home.arpa", clock=lambda: NOW).ensure()
    leaf = pki.device("a1", days=90)
    assert of_certificate("a1", leaf.certificate_pem) == Lifetime("a1", leaf.not_before, leaf.not_after)
    life = of_crl("crl", pki.crl())
    assert life.end == NOW + 180 * DAY
    # a gateway left alone for 90 days, with a list that was nearly due for the next one: 30 days are left then
    assert life.left(NOW + (59 + 90) * DAY) > 0
    assert not life.needs_care(NOW + 119 * DAY)
    assert life.needs_care(NOW + 121 * DAY)


def test_of_several_lists_the_one_that_ends_first_counts():
    now = [NOW]
    pki = Pki(SecretStore(), "home", "home.arpa", clock=lambda: now[0]).ensure()
    pki.crl()
    now[0] += 30 * DAY
    pki.rollover("devices").prepare()
    assert of_crl("crl", pki.crl()).end == NOW + 180 * DAY


@pytest.mark.parametrize("junk", [b"", b"junk", b"-----BEGIN X509 CRL-----\nxx\n-----END X509 CRL-----\n"])
def test_what_is_none_is_refused_by_name(junk):
    for read in (of_certificate, of_crl):
        with pytest.raises(PkiError, match="the broker's: no "):
            read("the broker's", junk)


def test_a_site_lists_all_that_ends_one_day():
    pki = Pki(SecretStore(), "home", "home.arpa", clock=lambda: NOW).ensure()
    pki.server("broker")
    pki.rollover("devices").prepare()
    pki.crl()
    devices = pki.rollover("devices")
    old, new, services = devices.issuing, devices.coming, pki.rollover("services").issuing
    assert [(row.life.name, row.state, row.key) for row in pki.standings()] == [
        ("root CA", "issuing", "vault"),
        (f"services CA {services}", "issuing", "vault"),
        (f"devices CA {old}", "issuing", "vault"),
        (f"revocation list of devices CA {old}", "signed", ""),
        (f"devices CA {new}", "coming", "vault"),
        (f"revocation list of devices CA {new}", "signed", ""),
        ("server broker", "issued", ""),
    ]
    assert all(row.life.left(NOW) > 0.99 for row in pki.standings())
    devices.switch()
    assert [row.state for row in pki.standings() if row.life.name == f"devices CA {old}"] == ["former"]
