"""Requests for certificates from devices that keep their key: only the key is taken from one, and only a strong one.

Real ones come from the openssl command line as well, which makes what the library would not even write.
"""

from __future__ import annotations

import datetime
import ipaddress
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from gatehouse.identity.csr import read_csr
from gatehouse.identity.leaf import CLIENT, SERVER
from gatehouse.identity.pki import Pki, PkiError
from gatehouse.identity.store import SecretStore

NAME, DNS = "pump-02", "pump-02.devices.home.arpa"
PKI = Pki(SecretStore(), "home", "home.arpa", ["10.0.0.0/8"], reserved=["mosquitto"]).ensure()

STRONG = {
    "P-256": ec.generate_private_key(ec.SECP256R1()),
    "P-384": ec.generate_private_key(ec.SECP384R1()),
    "RSA 2048": rsa.generate_private_key(65537, 2048),
}
WEAK = {
    "P-521": ec.generate_private_key(ec.SECP521R1()),
    "secp256k1": ec.generate_private_key(ec.SECP256K1()),
    "RSA 1024": rsa.generate_private_key(65537, 1024),  # noqa: S505 - what must be refused
    "RSA exponent 3": rsa.generate_private_key(3, 2048),
}


def refusal(csr: bytes) -> str:
    with pytest.raises(PkiError) as caught:
        PKI.device(NAME, csr=csr)
    message = str(caught.value)
    assert message.startswith(f"{NAME}: ") and message.isprintable() and len(message) < 300
    return message


# what a good request gets


@pytest.mark.parametrize("kind", STRONG)
def test_a_strong_key_is_certified_and_nothing_else_is_taken_from_the_request(kind):
    request = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    )
    request = request.add_extension(x509.SubjectAlternativeName([x509.DNSName(DNS)]), critical=True)
    request = request.add_attribute(x509.oid.AttributeOID.CHALLENGE_PASSWORD, b"challenge")
    made = PKI.device(NAME, csr=request.sign(STRONG[kind], hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    check_profile(made.certificate_pem, STRONG[kind].public_key())
    assert made.key_pem is None


def check_profile(pem: bytes, public_key: object) -> None:
    """Fail unless a certificate says what every device's says, for this key, and nothing more."""
    certificate = x509.load_pem_x509_certificate(pem)
    assert certificate.public_key() == public_key
    assert certificate.subject.rfc4514_string() == f"CN={NAME}"
    values = {type(extension.value): extension.value for extension in certificate.extensions}
    assert set(values) == {
        x509.BasicConstraints,
        x509.KeyUsage,
        x509.ExtendedKeyUsage,
        x509.SubjectAlternativeName,
        x509.SubjectKeyIdentifier,
        x509.AuthorityKeyIdentifier,
    }
    assert values[x509.BasicConstraints] == x509.BasicConstraints(ca=False, path_length=None)
    assert list(values[x509.SubjectAlternativeName]) == [x509.DNSName(DNS)]
    assert list(values[x509.ExtendedKeyUsage]) == [CLIENT]
    assert values[x509.SubjectKeyIdentifier] == x509.SubjectKeyIdentifier.from_public_key(public_key)  # type: ignore[arg-type]
    assert certificate.not_valid_after_utc - certificate.not_valid_before_utc <= datetime.timedelta(days=365)


# what the openssl command line makes

Openssl = Callable[..., bytes]


@pytest.fixture
def openssl(tmp_path: Path) -> Openssl:
    """`openssl("-newkey", "rsa:1024", extensions="…", subject="/CN=x")`: a request, PEM."""

    def make(*key: str, subject: str = f"/CN={NAME}", extensions: str = "", digest: str = "-sha256") -> bytes:
        config = tmp_path / "req.cnf"
        config.write_text(
            f"[req]\ndistinguished_name = dn\n{'req_extensions = ext' if extensions else ''}\n[dn]\n"
            f"[ext]\n{extensions}\n"
        )
        command = ["openssl", "req", "-new", "-batch", "-nodes", "-config", config, "-subj", subject, digest, *key]
        command += ["-keyout", tmp_path / "key.pem"]
        done = subprocess.run(command, capture_output=True, cwd=tmp_path, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    return make


P256 = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")


@pytest.mark.parametrize(
    "key",
    [
        P256,
        ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"),
        ("-newkey", "rsa:2048"),
        ("-newkey", "rsa:3072", "-sigopt", "rsa_padding_mode:pss"),
    ],
)
def test_a_request_made_by_openssl_is_good(openssl, key):
    assert PKI.device(NAME, csr=openssl(*key)).name == NAME


@pytest.mark.parametrize(
    ("key", "why"),
    [
        (("-newkey", "rsa:1024"), "an RSA key of 1024 bits"),
        (("-newkey", "rsa:2040"), "an RSA key of 2040 bits"),
        (("-newkey", "rsa:2048", "-pkeyopt", "rsa_keygen_pubexp:3"), "with the exponent 3"),
        (("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime192v1"), "P-256"),
        (("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp224r1"), "P-256"),
        (("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp521r1"), "secp521r1; use P-256"),
        (("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:brainpoolP256r1"), "brainpoolP256r1; use P-256"),
        (("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp256k1"), "secp256k1; use P-256"),
        ((*P256, "-pkeyopt", "ec_param_enc:explicit"), "use the curve by its name"),
        (("-newkey", "ed25519"), "a key of another kind; use P-256"),
    ],
)
def test_a_weak_or_unusual_key_is_refused(openssl, key, why):
    assert why in refusal(openssl(*key))
    assert PKI.device(NAME, csr=openssl(*P256)).name == NAME


@pytest.mark.parametrize(
    "subject",
    [
        "/CN=pump-03", "/CN=admin", "/CN=PUMP-02", "/CN=pump-02\\ ", "/O=home/CN=pump-02", "/CN=pump-02/O=home",
        "/CN=pump-02/CN=pump-02", "/CN=pump-02/CN=admin", "/CN=pump-02+O=home", "/CN=pump-02+CN=admin", "/O=pump-02",
        "/emailAddress=pump-02", "/CN=+", "/CN=#", "/CN=pump-02\\0admin",
    ],
)  # fmt: skip
def test_a_foreign_subject_is_refused(openssl, subject):
    message = refusal(openssl(*P256, "-multivalue-rdn", subject=subject))
    assert "make it for CN=pump-02 and nothing else" in message or "can be read" in message


@pytest.mark.parametrize(
    ("extensions", "what"),
    [
        ("subjectAltName = DNS:broker.home.arpa", "subjectAltName"),
        (f"subjectAltName = DNS:{DNS},DNS:broker.home.arpa", "subjectAltName"),
        (f"subjectAltName = DNS:{DNS},IP:10.10.10.1", "subjectAltName"),
        (f"subjectAltName = DNS:{DNS},DNS:{DNS}", "subjectAltName"),
        ("subjectAltName = IP:10.10.10.1", "subjectAltName"),
        ("subjectAltName = URI:urn:x,email:a@b.example", "subjectAltName"),
        ("subjectAltName = DNS:*.devices.home.arpa", "subjectAltName"),
        ("basicConstraints = CA:TRUE", "basicConstraints"),
        ("basicConstraints = critical,CA:TRUE,pathlen:0", "basicConstraints"),
        ("keyUsage = keyCertSign", "keyUsage"),
        ("keyUsage = critical,digitalSignature,cRLSign", "keyUsage"),
        ("extendedKeyUsage = serverAuth", "extendedKeyUsage"),
        ("extendedKeyUsage = clientAuth,serverAuth", "extendedKeyUsage"),
        ("extendedKeyUsage = anyExtendedKeyUsage", "extendedKeyUsage"),
        ("nameConstraints = permitted;DNS:home.arpa", "nameConstraints"),
        ("certificatePolicies = 1.2.3.4", "certificatePolicies"),
        ("1.2.3.4 = critical,ASN1:UTF8String:x", "asks for"),
        ("1.2.3.4 = ASN1:NULL", "asks for"),
        ("tlsfeature = status_request", "asks for"),
    ],
)
def test_a_request_that_asks_for_more_is_refused(openssl, extensions, what):
    message = refusal(openssl(*P256, extensions=extensions))
    assert what in message and "leave it out, the CA sets it" in message
    harmless = f"subjectAltName = DNS:{DNS}\nbasicConstraints = CA:FALSE\nextendedKeyUsage = clientAuth"
    assert PKI.device(NAME, csr=openssl(*P256, extensions=f"{harmless}\nkeyUsage = digitalSignature")).name == NAME


def test_a_request_signed_with_another_key_is_refused(openssl):
    good = x509.load_pem_x509_csr(openssl(*P256))
    other = x509.load_pem_x509_csr(openssl(*P256))
    raw = good.public_bytes(serialization.Encoding.DER)
    swapped = raw.replace(good.signature, other.signature)
    if len(good.signature) == len(other.signature):
        assert "signature does not fit its key" in refusal(swapped)
    # another public key in the place of the one that signed
    points = [
        csr.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
        for csr in (good, other)
    ]
    assert "signature does not fit its key" in refusal(raw.replace(*points))
    assert PKI.device(NAME, csr=raw).name == NAME


@pytest.mark.parametrize("digest", ["-md5", "-sha1"])
def test_a_signature_with_a_broken_digest_proves_nothing(openssl, digest):
    assert "signature" in refusal(openssl("-newkey", "rsa:2048", digest=digest))


def test_a_public_key_that_is_no_point_of_its_curve_is_refused(openssl):
    raw = openssl(*P256)
    der = x509.load_pem_x509_csr(raw).public_bytes(serialization.Encoding.DER)
    point = x509.load_pem_x509_csr(raw).public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )  # fmt: skip
    off = point[:-1] + bytes([point[-1] ^ 1])
    assert "can be read" in refusal(der.replace(point, off))


# any request at all

_SOME_NAMES = [
    x509.DNSName(DNS),
    x509.DNSName("broker.home.arpa"),
    x509.DNSName("*"),
    x509.IPAddress(ipaddress.ip_address("10.10.10.1")),
    x509.UniformResourceIdentifier("urn:x"),
    x509.RFC822Name("a@b.example"),
    x509.RegisteredID(ObjectIdentifier("1.2.3.4")),
]
_USES = [CLIENT, SERVER, ExtendedKeyUsageOID.CODE_SIGNING, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]
_ATTRIBUTES = [
    x509.NameAttribute(NameOID.COMMON_NAME, NAME),
    x509.NameAttribute(NameOID.COMMON_NAME, "admin"),
    x509.NameAttribute(NameOID.ORGANIZATION_NAME, NAME),
    x509.NameAttribute(NameOID.COMMON_NAME, "mosquitto"),
]
_FLAGS = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_cert_sign",
    "crl_sign",
)


@st.composite
def key_usage(draw: st.DrawFn) -> x509.KeyUsage:
    flags = {flag: draw(st.booleans()) for flag in _FLAGS}
    return x509.KeyUsage(**flags, key_agreement=False, encipher_only=False, decipher_only=False)


EXTENSIONS = st.lists(
    st.one_of(
        st.lists(st.sampled_from(_SOME_NAMES), min_size=1, max_size=3).map(x509.SubjectAlternativeName),
        st.builds(x509.BasicConstraints, ca=st.just(False), path_length=st.none()),
        st.builds(x509.BasicConstraints, ca=st.just(True), path_length=st.none() | st.integers(0, 3)),
        st.lists(st.sampled_from(_USES), min_size=1, max_size=2, unique=True).map(x509.ExtendedKeyUsage),
        key_usage(),
        st.builds(x509.SubjectKeyIdentifier, st.binary(min_size=1, max_size=30)),
        st.builds(x509.UnrecognizedExtension, st.just(ObjectIdentifier("1.2.3.4")), st.binary(max_size=8)),
        st.just(x509.OCSPNoCheck()),
    ),
    max_size=4,
    unique_by=lambda value: value.oid,
)


def harmless(value: x509.ExtensionType) -> bool:
    """The policy, said another way than the code says it."""
    allowed = {
        x509.SubjectAlternativeName: lambda: [*value] == [x509.DNSName(DNS)],  # type: ignore[misc]
        x509.BasicConstraints: lambda: not value.ca,  # type: ignore[attr-defined]
        x509.ExtendedKeyUsage: lambda: [*value] == [CLIENT],  # type: ignore[misc]
        x509.KeyUsage: lambda: not value.key_cert_sign and not value.crl_sign,  # type: ignore[attr-defined]
        x509.SubjectKeyIdentifier: lambda: True,
    }
    return type(value) in allowed and allowed[type(value)]()


@example([_ATTRIBUTES[0]], [x509.SubjectKeyIdentifier(b"-----BEGIN")], False, "P-256")
@given(
    subject=st.just([_ATTRIBUTES[0]]) | st.lists(st.sampled_from(_ATTRIBUTES), max_size=3),
    extensions=EXTENSIONS,
    critical=st.booleans(),
    key=st.sampled_from([*STRONG, *WEAK]),
)
@settings(max_examples=300, deadline=None)
def test_of_any_request_those_within_the_policy_are_certified_and_no_others(subject, extensions, critical, key):
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject))
    for value in extensions:
        builder = builder.add_extension(value, critical=critical)
    private_key = {**STRONG, **WEAK}[key]
    csr = builder.sign(private_key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    if subject == [_ATTRIBUTES[0]] and all(map(harmless, extensions)) and key in STRONG:
        check_profile(PKI.device(NAME, csr=csr).certificate_pem, private_key.public_key())
    else:
        refusal(csr)


GOOD = [
    x509.CertificateSigningRequestBuilder()
    .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)]))
    .add_extension(x509.SubjectAlternativeName([x509.DNSName(DNS)]), critical=False)
    .sign(key, hashes.SHA256())
    .public_bytes(encoding)
    for key in STRONG.values()
    for encoding in (serialization.Encoding.DER, serialization.Encoding.PEM)
]


@given(data=st.data())
@settings(max_examples=400, deadline=None)
def test_a_request_that_was_tampered_with_anywhere_is_refused_or_says_the_same(data):
    good = data.draw(st.sampled_from(GOOD))
    at = data.draw(st.integers(0, len(good) - 1))
    bad = data.draw(
        st.sampled_from([good[:at], good[:at] + good[at + 1 :], good + good[:at]])
        | st.integers(1, 255).map(lambda change: good[:at] + bytes([good[at] ^ change]) + good[at + 1 :])
        | st.binary(min_size=1, max_size=8).map(lambda junk: good[:at] + junk + good[at:])
    )
    assume(bad != good)
    try:
        key = read_csr(bad, NAME, DNS)
    except PkiError as error:
        assert str(error).isprintable()
    else:  # only what is no part of what was signed: white space in PEM, text around it
        assert key in [private.public_key() for private in STRONG.values()]
        assert b"-----BEGIN" in bad


@pytest.mark.parametrize("key", [dsa.generate_private_key(2048), ed25519.Ed25519PrivateKey.generate()])
def test_keys_that_no_tls_device_here_has_are_refused(key):
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([_ATTRIBUTES[0]])).sign(key, digest)
    assert "a key of another kind" in refusal(request.public_bytes(serialization.Encoding.PEM))


def test_a_signature_that_is_not_whole_octets_is_refused():
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    signature = b"\xff"
    while signature[-1] & 1:  # a bit that is to count for nothing must be 0
        made = x509.CertificateSigningRequestBuilder().subject_name(name).sign(STRONG["P-256"], hashes.SHA256())
        signature = made.signature
    good = made.public_bytes(serialization.Encoding.DER)
    assert read_csr(good, NAME, DNS)
    count = len(good) - len(signature) - 1
    assert "no certificate request that can be read" in refusal(good[:count] + b"\x01" + good[count + 1 :])
