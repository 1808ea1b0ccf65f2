"""Certification authorities of a site: an offline root, one issuing authority for services and one for devices.

Profiles follow RFC 5280 §4.2: an issuing authority can't make another one (`pathlen:0`), issues for one use only, and
for names below the site's domain only. The key is a `Signer`: the vault's by default, or a hardware token's.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NoReturn, Protocol

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gatehouse.errors import GatehouseError

ROOT_LIFE = datetime.timedelta(days=3652)
ISSUER_LIFE = datetime.timedelta(days=1826)
BACKDATE = datetime.timedelta(minutes=5)
"""How far before the moment of signing a validity begins, for gateways and devices whose clock is a little behind."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_CA_USAGE = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


class PkiError(GatehouseError):
    """A certificate can't be made, or the vault's PKI is not what the site says."""


class Signer(Protocol):
    """A private key on P-256, wherever it is: what an authority needs of one."""

    def public_key(self) -> ec.EllipticCurvePublicKey:
        """Return the public half."""

    def sign(self, data: bytes, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        """Return the signature of data, DER `ECDSA-Sig-Value` (RFC 3279 §2.2.3)."""


class _Elsewhere(ec.EllipticCurvePrivateKey):
    """A `Signer` in the shape that cryptography's builders ask for."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._signer.public_key()

    def sign(self, data: Any, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        return self._signer.sign(bytes(data), signature_algorithm)

    @property
    def curve(self) -> ec.EllipticCurve:
        return self.public_key().curve

    @property
    def key_size(self) -> int:
        return self.public_key().key_size

    def _stays(self, *_: Any, **__: Any) -> NoReturn:
        raise PkiError("the key of a certification authority signs where it is; it can't be read out or copied")

    exchange = private_numbers = private_bytes = __copy__ = __deepcopy__ = _stays


@dataclass(frozen=True)
class Authority:
    """A certification authority: its certificate, and the key that signs with it."""

    certificate: x509.Certificate
    key: Signer = field(repr=False)

    @cached_property
    def certificate_pem(self) -> bytes:
        """The certificate, PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @cached_property
    def public_key(self) -> ec.EllipticCurvePublicKey:
        """The public half of its key, from its certificate. Raises `PkiError` when that is not on P-256."""
        public_key = self.certificate.public_key()
        if isinstance(public_key, ec.EllipticCurvePublicKey):
            return public_key
        raise PkiError("the certificate of an authority is not for a key on P-256; restore the vault from its backup")

    @cached_property
    def identifier(self) -> str:
        """Eight hexadecimal digits that tell it from the others of its role; its name ends with them."""
        return identifier_of(self.public_key)

    @cached_property
    def key_identifier(self) -> x509.AuthorityKeyIdentifier:
        """What its certificates and CRLs name it by (RFC 5280 §4.2.1.1)."""
        own = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)

    @cached_property
    def name_constraints(self) -> x509.NameConstraints | None:
        """The names it may issue for, None when any."""
        try:
            return self.certificate.extensions.get_extension_for_class(x509.NameConstraints).value
        except x509.ExtensionNotFound:
            return None

    @cached_property
    def not_before(self) -> datetime.datetime:
        """When its certificate begins, UTC."""
        return self.certificate.not_valid_before_utc

    @cached_property
    def not_after(self) -> datetime.datetime:
        """When its certificate ends, UTC."""
        return self.certificate.not_valid_after_utc

    def sign(self, certificate: x509.CertificateBuilder) -> x509.Certificate:
        """Return the certificate, signed."""
        return certificate.sign(self._private_key, hashes.SHA256())

    def sign_crl(self, crl: x509.CertificateRevocationListBuilder) -> x509.CertificateRevocationList:
        """Return the revocation list, signed."""
        return crl.sign(self._private_key, hashes.SHA256())

    @cached_property
    def _private_key(self) -> ec.EllipticCurvePrivateKey:
        return _as_private_key(self.key)


def new_root(site_name: str, key: Signer, now: datetime.datetime) -> Authority:
    """Return a root authority of ten years, which may have issuing authorities below it and no deeper ones."""
    name = _name(site_name, "root", key)
    builder = _authority(name, name, key, now, now + ROOT_LIFE, path_length=1)
    return Authority(builder.sign(_as_private_key(key), hashes.SHA256()), key)


def new_issuer(
    root: Authority,
    role: str,
    site_name: str,
    key: Signer,
    usage: x509.ObjectIdentifier,
    names: x509.NameConstraints,
    critical: bool,
    now: datetime.datetime,
) -> Authority:
    """Return an issuing authority of five years, or less where the root ends earlier, for one use and the names given.

    `critical` makes verifiers refuse it when they can't judge the names (RFC 5280 §4.2.1.10).
    """
    if root.not_after <= now:
        raise PkiError(
            f"site {site_name}: its root CA ended on {root.not_after:%Y-%m-%d}; every device needs a new identity"
        )
    name = _name(site_name, role, key)
    builder = (
        _authority(name, root.certificate.subject, key, now, min(now + ISSUER_LIFE, root.not_after), path_length=0)
        .add_extension(root.key_identifier, critical=False)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(names, critical=critical)
    )
    return Authority(root.sign(builder), key)


def service_names(domain: str, prefixes: Iterable[Network]) -> x509.NameConstraints:
    """Return what a services authority may issue for: the domain without its devices, and addresses of the prefixes.

    A family of addresses that has no prefix is shut out; a name type that no constraint mentions would be free.
    """
    allowed = sorted(set(prefixes), key=lambda prefix: (prefix.version, prefix))
    shut_out = [net for net in _EVERY_ADDRESS if net.version not in {prefix.version for prefix in allowed}]
    return x509.NameConstraints(
        permitted_subtrees=[x509.DNSName(domain), *map(x509.IPAddress, allowed)],
        excluded_subtrees=[x509.DNSName(f"devices.{domain}"), *map(x509.IPAddress, shut_out)],
    )


def device_names(domain: str) -> x509.NameConstraints:
    """Return what a devices authority may issue for: names below `devices.DOMAIN`, and no address."""
    return x509.NameConstraints(
        permitted_subtrees=[x509.DNSName(f"devices.{domain}")],
        excluded_subtrees=[x509.IPAddress(net) for net in _EVERY_ADDRESS],
    )


_EVERY_ADDRESS: tuple[Network, ...] = (ipaddress.IPv4Network("0.0.0.0/0"), ipaddress.IPv6Network("::/0"))


def _name(site_name: str, role: str, key: Signer) -> x509.Name:
    # a part of the key identifier keeps two authorities of one role apart while both are trusted
    identifier = identifier_of(key.public_key())
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, f"Gatehouse {site_name}"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"{site_name} {role} CA {identifier}"),
        ]
    )


def identifier_of(public_key: ec.EllipticCurvePublicKey) -> str:
    """Return the beginning of a public key's identifier (RFC 5280 §4.2.1.2), eight hexadecimal digits."""
    return x509.SubjectKeyIdentifier.from_public_key(public_key).digest[:4].hex()


def _authority(
    subject: x509.Name,
    issuer: x509.Name,
    key: Signer,
    now: datetime.datetime,
    not_after: datetime.datetime,
    path_length: int,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(new_serial())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(not_after)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_CA_USAGE, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def new_serial() -> int:
    """Return a serial number: 128 random bits, never zero (RFC 5280 §4.1.2.2)."""
    return secrets.randbelow(2**128 - 1) + 1


def _as_private_key(key: Signer) -> ec.EllipticCurvePrivateKey:
    return key if isinstance(key, ec.EllipticCurvePrivateKey) else _Elsewhere(key)


def new_key() -> ec.EllipticCurvePrivateKey:
    """Return a new private key on P-256."""
    return ec.generate_private_key(ec.SECP256R1())


def key_to_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key as PEM PKCS #8, not encrypted: the vault around it is."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def read_key(where: str, pem: bytes) -> ec.EllipticCurvePrivateKey:
    """Return the key that `key_to_pem` wrote. Raises `PkiError`."""
    key = None
    with contextlib.suppress(ValueError, TypeError, UnsupportedAlgorithm):
        key = serialization.load_pem_private_key(pem, None)
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    raise PkiError(f"{where}: no P-256 private key in PEM; restore the vault from its backup")


def read_certificate(where: str, pem: bytes) -> x509.Certificate:
    """Return the certificate in PEM. Raises `PkiError`."""
    with contextlib.suppress(ValueError):
        return x509.load_pem_x509_certificate(pem)
    raise PkiError(f"{where}: no certificate in PEM; restore the vault from its backup")
