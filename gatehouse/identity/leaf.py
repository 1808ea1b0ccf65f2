"""Leaf certificates: what services and devices prove themselves with. At most 365 days, one use each (RFC 5280)."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gatehouse.identity.authority import Authority, PkiError, new_serial

LONGEST_LIFE = datetime.timedelta(days=365)

SERVER = ExtendedKeyUsageOID.SERVER_AUTH
CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH

LeafKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NO_CA = x509.BasicConstraints(ca=False, path_length=None)
_SIGNS_HANDSHAKES = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


@dataclass(frozen=True)
class Credential:
    """A certificate and, when that is here, its private key. Times are UTC, digests lower-case hex."""

    name: str
    serial: int
    not_before: datetime.datetime
    not_after: datetime.datetime
    fingerprint_sha256: str
    """Of the certificate, DER."""
    spki_sha256: str
    """Of the public key, DER SubjectPublicKeyInfo: what a device pins (RFC 7469 §2.4)."""
    certificate_pem: bytes = field(repr=False)
    chain_pem: bytes = field(repr=False)
    """What to present in a handshake: the certificate, and for a server its issuing authority."""
    key_pem: bytes | None = field(repr=False, default=None)
    """The private key, PKCS #8, or None when it never left the device."""

    @property
    def private_key_pem(self) -> bytes:
        """The private key, PEM PKCS #8. Raises `PkiError` when it never left the device."""
        if self.key_pem is None:
            raise PkiError(f"{self.name}: its private key never left the device, so there is none to write")
        return self.key_pem

    def due(self, now: datetime.datetime) -> bool:
        """Tell whether two thirds of its life are over: time for a new one."""
        return now >= self.not_before + (self.not_after - self.not_before) * 2 / 3


def issue(
    issuer: Authority,
    usage: x509.ObjectIdentifier,
    name: str,
    public_key: LeafKey,
    dns_names: Iterable[str],
    addresses: Iterable[Address],
    not_before: datetime.datetime,
    not_after: datetime.datetime,
    serial: int | None = None,
) -> x509.Certificate:
    """Return a leaf for one use, its common name `name`; its serial number is a new one unless it is given.

    Raises `PkiError` for a life over 365 days, or none.
    """
    life = not_after - not_before
    if not datetime.timedelta(0) < life <= LONGEST_LIFE:
        raise PkiError(f"{name}: a certificate for {life.days} days; ask for 1 to {LONGEST_LIFE.days}")
    return issuer.sign(
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer.certificate.subject)
        .public_key(public_key)
        .serial_number(serial or new_serial())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(_NO_CA, critical=True)
        .add_extension(_SIGNS_HANDSHAKES, critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([*map(x509.DNSName, dns_names), *map(x509.IPAddress, addresses)]),
            critical=False,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(issuer.key_identifier, critical=False)
    )


def credential(name: str, certificate: x509.Certificate, key_pem: bytes | None, issuer_pem: bytes = b"") -> Credential:
    """Return the credential of a certificate; `issuer_pem` follows it in what is presented."""
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    return Credential(
        name=name,
        serial=certificate.serial_number,
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        fingerprint_sha256=certificate.fingerprint(hashes.SHA256()).hex(),
        spki_sha256=sha256(spki(certificate.public_key())).hexdigest(),
        certificate_pem=pem,
        chain_pem=pem + issuer_pem,
        key_pem=key_pem,
    )


def spki(public_key: PublicKeyTypes) -> bytes:
    """Return a public key as DER SubjectPublicKeyInfo (RFC 5280 §4.1)."""
    return public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def strong_enough(name: str, public_key: object) -> LeafKey:
    """Return a key that a device may have: P-256, P-384, or RSA from 2048 bits. Raises `PkiError` for any other."""
    if isinstance(public_key, ec.EllipticCurvePublicKey):
        if isinstance(public_key.curve, ec.SECP256R1 | ec.SECP384R1):
            return public_key
        kind = f"an elliptic-curve key on {public_key.curve.name}"
    elif isinstance(public_key, rsa.RSAPublicKey):
        if public_key.key_size >= 2048 and public_key.public_numbers().e >= 65537:
            return public_key
        kind = f"an RSA key of {public_key.key_size} bits with the exponent {public_key.public_numbers().e}"
    else:
        kind = "a key of another kind"
    raise PkiError(f"{name}: {kind}; use P-256 (or P-384, or RSA from 2048 bits with the exponent 65537)")
