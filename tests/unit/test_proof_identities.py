"""How the checks of identities judge what they look at: certificates, and files on the operator's side."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gatehouse.identity import Pki, SecretStore
from gatehouse.identity.lifetimes import Lifetime
from tests.compliance.identities import LoadedList, care_of_authority, care_of_list, exposure, misuse

DNS = "pump-02.devices.home.arpa"


def certificate(days: int = 90, ca: bool = False, use: str = "CLIENT_AUTH", name: str = "pump-02", dns: str = DNS):
    """One that signed itself: who signed it is asked elsewhere."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder(subject, subject, key.public_key(), 1, now, now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([getattr(ExtendedKeyUsageOID, use)]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(dns)]), critical=False)
        .sign(key, hashes.SHA256())
    )


def test_a_certificate_as_the_kit_issues_it_is_a_devices() -> None:
    issued = Pki(SecretStore(), "home", "home.arpa").ensure().device("pump-02")
    assert misuse("pump-02", x509.load_pem_x509_certificate(issued.certificate_pem), DNS) == ""
    assert misuse("pump-02", certificate(), DNS) == ""


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"days": 366}, "lives 366 days"),
        ({"ca": True}, "is a CA's"),
        ({"use": "SERVER_AUTH"}, "is for serverAuth"),
        ({"name": "pump-03"}, "is CN=pump-03's"),
        ({"dns": "broker.home.arpa"}, "is for the names broker.home.arpa"),
    ],
)
def test_a_certificate_that_is_more_than_a_devices_is_told(changes: dict[str, object], said: str) -> None:
    assert misuse("pump-02", certificate(**changes), DNS) == said  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mode", "forbidden", "is_exposed"),
    [(0o600, 0o077, False), (0o640, 0o077, True), (0o604, 0o077, True), (0o644, 0o022, False), (0o664, 0o022, True)],
)
def test_a_file_is_exposed_by_what_its_mode_lets_others_do(
    tmp_path: Path, mode: int, forbidden: int, is_exposed: bool
) -> None:
    path = tmp_path / "key.pem"
    path.touch()
    path.chmod(mode)
    assert bool(exposure(path, forbidden)) == is_exposed
    assert f"{mode:04o}" in exposure(path, forbidden) or not is_exposed


def test_a_link_is_told_since_what_it_leads_to_is_not_looked_at(tmp_path: Path) -> None:
    (tmp_path / "key.pem").symlink_to(tmp_path / "elsewhere")
    assert "is a link" in exposure(tmp_path / "key.pem")


NOW = datetime.datetime.now(datetime.UTC)


def a_list(left: float, is_what_runs: bool = True) -> LoadedList:
    """One of 180 days that has that part of its life left."""
    whole = datetime.timedelta(days=180)
    return LoadedList("crl.pem", "7", Lifetime("list", NOW - whole * (1 - left), NOW + whole * left), is_what_runs)


def test_a_revocation_list_is_warned_of_below_a_third_of_its_life_and_fails_when_it_is_over() -> None:
    assert care_of_list(a_list(0.34), NOW) == ""
    assert care_of_list(a_list(0.32), NOW) == "the list of revoked devices has 57 days left: harden this gateway"
    with pytest.raises(AssertionError, match="no device can connect"):
        care_of_list(a_list(-0.01), NOW)
    with pytest.raises(AssertionError, match="not what the broker has read"):
        care_of_list(a_list(0.34, is_what_runs=False), NOW)


def care_after(years: float) -> list[str]:
    """What there is to say of a site's authorities so long after they were made."""
    store = SecretStore()
    Pki(store, "home", "home.arpa", clock=lambda: NOW - datetime.timedelta(days=365 * years)).ensure()
    standings = Pki(store, "home", "home.arpa").standings()
    return [care for each in standings if " CA" in each.life.name if (care := care_of_authority(each, NOW))]


def test_an_authority_is_warned_of_below_a_third_of_its_life_and_fails_when_it_is_over() -> None:
    assert care_after(3) == []
    assert [care.endswith("days: roll it over") for care in care_after(4)] == [True, True]
    with pytest.raises(AssertionError, match=r"services CA .*: good from"):
        care_after(5.1)
