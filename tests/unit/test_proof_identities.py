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
from tests.compliance.identities import exposure, misuse

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
