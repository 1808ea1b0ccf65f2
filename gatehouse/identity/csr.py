"""Certificate requests (PKCS #10, RFC 2986) of devices whose key never leaves them. Only the key is taken from one."""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID

from gatehouse.identity.authority import PkiError
from gatehouse.identity.leaf import CLIENT, LeafKey, spki, strong_enough

_LONGEST = 16 * 1024
_DER = (b"\x30\x81", b"\x30\x82")
"""How a SEQUENCE of 128 to 65,535 octets begins; what a text in it says must not make a PEM file of it."""
UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


def read_csr(data: bytes, name: str, dns_name: str) -> LeafKey:
    """Return the public key of a request (PEM or DER, up to 16 KiB) that device `name` made for itself.

    The request proves that its sender has the private key. It may ask for what the certificate will say anyway: the
    common name, the device's DNS name, the client use. Raises `PkiError` for anything else, saying what.
    """
    if len(data) > _LONGEST:
        raise PkiError(f"{name}: a certificate request of {len(data)} bytes; a real one is below {_LONGEST}")
    try:
        load = x509.load_der_x509_csr if data[:2] in _DER else x509.load_pem_x509_csr
        request = load(data)
        genuine = request.is_signature_valid
        subject = [(attribute.oid, str(attribute.value)) for attribute in request.subject]
        extensions = [extension.value for extension in request.extensions]
        public_key = request.public_key()
        # The signature is whole octets (RFC 2986 §4.2); what else the bits' count says, nobody has signed.
        if not request.public_bytes(serialization.Encoding.DER).endswith(b"\0" + request.signature):
            raise ValueError("unused bits")
    except UNREADABLE:
        raise PkiError(f"{name}: no certificate request that can be read; make it anew, with a key on P-256") from None
    if not genuine:
        raise PkiError(
            f"{name}: the request's signature does not fit its key, or is over MD5 or SHA-1; make it anew, with SHA-256"
        )
    if subject != [(NameOID.COMMON_NAME, name)]:
        raise PkiError(f"{name}: the request is for {_shown(request.subject)}; make it for CN={name} and nothing else")
    for value in extensions:
        if not _harmless(value, dns_name):
            what = value.oid._name
            raise PkiError(f"{name}: the request asks for {what} that it can't have; leave it out, the CA sets it")
    key = strong_enough(name, public_key)
    if spki(key) not in request.tbs_certrequest_bytes:
        # curves spelled out and compressed points are what few verifiers read, and where they have been fooled
        raise PkiError(
            f"{name}: the request spells its key out in an unusual way; use the curve by its name, points uncompressed"
        )
    return key


def _harmless(value: x509.ExtensionType, dns_name: str) -> bool:
    match value:
        case x509.SubjectAlternativeName():
            return list(value) == [x509.DNSName(dns_name)]
        case x509.BasicConstraints():
            return not value.ca
        case x509.KeyUsage():
            return not (value.key_cert_sign or value.crl_sign)
        case x509.ExtendedKeyUsage():
            return list(value) == [CLIENT]
        case _:
            return isinstance(value, x509.SubjectKeyIdentifier)


def _shown(subject: x509.Name) -> str:
    return ascii(subject.rfc4514_string()[:100]) if list(subject) else "nobody"
