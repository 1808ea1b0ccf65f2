"""What OpenSSL's own command line says about the certificates: the judge that the broker and Python's ssl use."""

from __future__ import annotations

import datetime
import ipaddress
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from gatehouse.identity.authority import new_key
from gatehouse.identity.leaf import CLIENT, SERVER, issue
from gatehouse.identity.pki import Credential, Pki
from gatehouse.identity.store import SecretStore

PREFIXES = ("10.10.10.0/24", "fd00:10::/64")


@pytest.fixture
def pki() -> Pki:
    return Pki(SecretStore(), "home", "home.arpa", PREFIXES).ensure()


def verify(folder: Path, pki: Pki, leaf: bytes, purpose: str, *options: str, crl: bytes = b"") -> str:
    """Return what `openssl verify` finds wrong with a leaf, as strictly as it can; empty when it is good."""
    certificates = pki.authority_certificates()
    (folder / "root.pem").write_bytes(certificates["root"])
    (folder / "issuers.pem").write_bytes(certificates["services"] + certificates["devices"])
    (folder / "leaf.pem").write_bytes(leaf)
    if crl:
        (folder / "crl.pem").write_bytes(crl)
        options = (*options, "-crl_check", "-CRLfile", str(folder / "crl.pem"))
    done = subprocess.run(
        [
            *("openssl", "verify", "-x509_strict", "-check_ss_sig", "-policy_check", "-purpose", purpose),
            *("-CAfile", folder / "root.pem", "-untrusted", folder / "issuers.pem"),
            *options,
            folder / "leaf.pem",
        ],
        capture_output=True,
        text=True,
    )
    assert (done.returncode == 0) == done.stdout.endswith("leaf.pem: OK\n")
    return "" if done.returncode == 0 else done.stderr


def misissued(pki: Pki, role: str, usage: object, dns: list[str], addresses: list[str]) -> bytes:
    """Return a leaf that the authority signed past the checks of the library, as a thief of its key could."""
    now = datetime.datetime.now(datetime.UTC)
    certificate = issue(
        pki._authorities[role],
        usage,  # type: ignore[arg-type]
        "x",
        new_key().public_key(),
        dns,
        [ipaddress.ip_address(address) for address in addresses],
        now - datetime.timedelta(minutes=5),
        now + datetime.timedelta(days=1),
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


def test_openssl_accepts_server_and_device_for_their_own_use_only(pki, tmp_path):
    server = pki.server("broker", ["broker.home.arpa", "home.arpa"], ["10.10.10.1", "fd00:10::1"]).certificate_pem
    device = pki.device("kitchen-01").certificate_pem
    assert verify(tmp_path, pki, server, "sslserver") == ""
    assert verify(tmp_path, pki, server, "sslserver", "-verify_hostname", "broker.home.arpa") == ""
    assert verify(tmp_path, pki, server, "sslserver", "-verify_ip", "10.10.10.1") == ""
    assert verify(tmp_path, pki, server, "sslserver", "-verify_ip", "fd00:10::1") == ""
    assert verify(tmp_path, pki, device, "sslclient") == ""
    assert "hostname mismatch" in verify(tmp_path, pki, server, "sslserver", "-verify_hostname", "x.home.arpa")
    assert "certificate purpose" in verify(tmp_path, pki, server, "sslclient")
    assert "certificate purpose" in verify(tmp_path, pki, device, "sslserver")


def test_a_site_without_prefixes_names_its_servers_and_gives_them_no_address(tmp_path):
    pki = Pki(SecretStore(), "home", "home.arpa").ensure()
    assert verify(tmp_path, pki, pki.server("broker").certificate_pem, "sslserver") == ""
    for address in ("10.10.10.1", "fd00:10::1"):
        leaf = misissued(pki, "services", SERVER, ["broker.home.arpa"], [address])
        assert "excluded subtree violation" in verify(tmp_path, pki, leaf, "sslserver")


@pytest.mark.parametrize(
    ("role", "usage", "dns", "addresses"),
    [
        ("services", SERVER, ["broker.example.com"], []),
        ("services", SERVER, ["kitchen-01.devices.home.arpa"], []),
        ("services", SERVER, ["broker.home.arpa"], ["10.10.20.1"]),
        ("services", SERVER, ["broker.home.arpa"], ["fd00:11::1"]),
        ("devices", CLIENT, ["broker.home.arpa"], []),
        ("devices", CLIENT, ["x.devices.example.com"], []),
        ("devices", CLIENT, ["x.devices.home.arpa"], ["10.10.10.1"]),
    ],
)
def test_a_stolen_issuing_key_makes_nothing_outside_its_names(pki, tmp_path, role, usage, dns, addresses):
    purpose = "sslserver" if usage is SERVER else "sslclient"
    assert "subtree violation" in verify(tmp_path, pki, misissued(pki, role, usage, dns, addresses), purpose)
    inside = "x.home.arpa" if role == "services" else "x.devices.home.arpa"
    assert verify(tmp_path, pki, misissued(pki, role, usage, [inside], []), purpose) == ""


def test_a_stolen_issuing_key_makes_nothing_of_the_other_use(pki, tmp_path):
    # OpenSSL takes the extended key usage of an authority as a limit on what is below it
    server = misissued(pki, "devices", SERVER, ["x.devices.home.arpa"], [])
    client = misissued(pki, "services", CLIENT, ["x.home.arpa"], [])
    assert "certificate purpose" in verify(tmp_path, pki, server, "sslserver")
    assert "certificate purpose" in verify(tmp_path, pki, client, "sslclient")


def test_a_leaf_of_another_sites_pki_is_refused(pki, tmp_path):
    foreign: Credential = Pki(SecretStore(), "home", "home.arpa", PREFIXES).ensure().device("kitchen-01")
    assert "unable to get local issuer" in verify(tmp_path, pki, foreign.certificate_pem, "sslclient")
    assert verify(tmp_path, pki, pki.device("kitchen-01").certificate_pem, "sslclient") == ""


def test_openssl_reads_the_revocation_list(pki, tmp_path):
    lost, kept = pki.device("lost"), pki.device("kept")
    pki.revoke(lost.serial, "keyCompromise")
    crl = pki.crl()
    assert "certificate revoked" in verify(tmp_path, pki, lost.certificate_pem, "sslclient", crl=crl)
    assert verify(tmp_path, pki, kept.certificate_pem, "sslclient", "-extended_crl", crl=crl) == ""
    (tmp_path / "devices.pem").write_bytes(pki.authority_certificates()["devices"])
    text = subprocess.run(
        ["openssl", "crl", "-in", tmp_path / "crl.pem", "-noout", "-text", "-CAfile", tmp_path / "devices.pem"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "verify OK" in text.stdout + text.stderr
    assert f"{lost.serial:X}" in text.stdout.replace(":", "")
    assert "Key Compromise" in text.stdout


def test_expired_and_not_yet_valid_are_told_apart_from_valid(pki, tmp_path):
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    expired = pki.ephemeral_client("probe", not_before=now - 3 * day, not_after=now - day)
    early = pki.ephemeral_client("probe", not_before=now + day, not_after=now + 2 * day)
    assert "has expired" in verify(tmp_path, pki, expired.certificate_pem, "sslclient")
    assert "not yet valid" in verify(tmp_path, pki, early.certificate_pem, "sslclient")
    assert verify(tmp_path, pki, pki.ephemeral_client("probe").certificate_pem, "sslclient") == ""
