"""Renewal over the device's own channel: a request goes up under its topics, the certificate comes down as a command.

    devices/NAME/identity/request                 up, retained, QoS 1: what `compose` makes; empty when it is settled
    devices/NAME/identity/serial                  up, retained, QoS 1: the serial number of the certificate that the
                                                  device has made its own, lower-case hexadecimal, after each connect
    devices/NAME/commands/identity/certificate    down, retained, QoS 1: the new certificate, and what follows it in a
                                                  chain, PEM; empty when it is settled

Retained, because both sides come and go: the authority is offline until an operator is there, a device may sleep.

A request is a text of two or three PEM blocks: `CERTIFICATE REQUEST` (RFC 7468 §7), for a new key or the one in use;
`CERTIFICATE`, the one in use; and, for a new key, `GATEHOUSE ENDORSEMENT`: the signature of the key in use (DER
`ECDSA-Sig-Value`, or RSASSA-PKCS1-v1_5) with SHA-256 over the octets `gatehouse renewal`, a zero, and the request in
DER. So a broker, or who has broken into the gateway, can't put a key of its own in a device's place.

    registry's serials    the device is          what is good
    (a,)                  settled                a
    (b, a)                answered               both: it moves when it can
    (b,)                  settled: it reported b; a is revoked as superseded

What a device does, so that it may lose power at any moment: it stores the new key before it asks, and asks again with
the same one after a restart; takes a certificate only when it fits that key; stores it, connects with it, and only when
that went well makes both its own, in one write; then reports the serial number and empties the request. Until then it
falls back on the old ones. The operator's side, likewise, writes the registry before it sends a certificate, and
revokes the old one before the registry forgets it. Each step done twice changes nothing.
"""

from __future__ import annotations

import base64
import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID

from gatehouse.errors import GatehouseError
from gatehouse.identity.csr import UNREADABLE, read_csr
from gatehouse.identity.leaf import Credential, LeafKey, spki
from gatehouse.identity.names import check_label
from gatehouse.identity.pki import Pki
from gatehouse.site import Device

REQUESTS = "devices/+/identity/request"
SERIALS = "devices/+/identity/serial"

MOST_AT_ONCE = 32
"""Certificates of one device that are good at a time: one that asks again and again without moving is stopped there.

A device that loses its new key, and an operator's run that is killed before it sends, cost one each: mishaps have room.
"""

_TOPIC = re.compile(r"devices/([^/+#]+)/identity/(request|serial)")
_LONGEST = 16 * 1024
_BLOCK = re.compile(rb"-----BEGIN ([A-Z ]+)-----\r?\n(.*?)-----END \1-----", re.DOTALL)
_CSR, _CERTIFICATE, _ENDORSEMENT = "CERTIFICATE REQUEST", "CERTIFICATE", "GATEHOUSE ENDORSEMENT"
_ENDORSED = b"gatehouse renewal\0"


class RenewalError(GatehouseError):
    """A request or report of a device that is refused; nothing was changed."""


@dataclass(frozen=True)
class Request:
    """What a device asks for: a certificate for a key; `csr` is DER, `current` the serial number of the one in use."""

    name: str
    key: LeafKey
    csr: bytes
    current: int


@dataclass(frozen=True)
class Answer:
    """What to send to a device (`chain_pem`, retained), once the registry has the `facts`; none when it has them."""

    name: str
    chain_pem: bytes
    facts: Mapping[str, object] | None = None


@dataclass(frozen=True)
class Retirement:
    """What follows when a device has moved: first revoke the serial numbers, then write the registry's."""

    revoke: tuple[int, ...]
    serials: tuple[str, ...]


def request_topic(name: str) -> str:
    """Return where a device publishes its request."""
    return f"devices/{name}/identity/request"


def serial_topic(name: str) -> str:
    """Return where a device publishes the serial number of its certificate."""
    return f"devices/{name}/identity/serial"


def certificate_topic(name: str) -> str:
    """Return where a device gets its certificate."""
    return f"devices/{name}/commands/identity/certificate"


def publisher(topic: str) -> str:
    """Return the name of the device that alone can have published there. Raises `RenewalError`, `NameRefused`."""
    found = _TOPIC.fullmatch(topic)
    if found is None:
        raise RenewalError(f"topic {ascii(topic[:80])}: none where a device asks or reports; leave it out")
    return check_label(found[1])


def compose(csr: bytes, certificate_pem: bytes, endorsement: bytes = b"") -> bytes:
    """Return a request as a device publishes it: from its CSR (DER), the certificate in use, and for a new key the
    signature of `endorsed(csr)`."""
    blocks = [_armoured(_CSR, csr), certificate_pem]
    return b"".join([*blocks, _armoured(_ENDORSEMENT, endorsement)] if endorsement else blocks)


def endorsed(csr: bytes) -> bytes:
    """Return what the key in use signs to vouch for a request (DER) with a new key."""
    return _ENDORSED + csr


def read_request(topic: str, payload: bytes, pki: Pki, now: datetime.datetime) -> Request:
    """Return the request that a device published, once it is sure that this device made it. Raises `RenewalError`,
    `PkiError`."""
    name = publisher(topic)
    blocks = _blocks(name, payload)
    certificate = _certificate(blocks[_CERTIFICATE])
    if certificate is None or not pki.is_of_a_device(certificate) or _common_name(certificate) != name:
        raise RenewalError(f"{name}: the certificate that it shows is no device's of this site, or another's; enrol it")
    if certificate.not_valid_after_utc <= now:
        raise RenewalError(
            f"{name}: its certificate ended on {certificate.not_valid_after_utc:%Y-%m-%d}, so it can't connect to fetch"
            " a new one; enrol it again"
        )
    key = read_csr(blocks[_CSR], name, pki.device_dns_name(name))
    current = certificate.public_key()
    if spki(key) != spki(current) and not _signed(current, blocks.get(_ENDORSEMENT, b""), endorsed(blocks[_CSR])):
        raise RenewalError(
            f"{name}: the key that it has in use does not vouch for the new one; did that device make the request?"
        )
    return Request(name, key, blocks[_CSR], certificate.serial_number)


def answer(pki: Pki, request: Request, device: Device, waiting: bytes = b"") -> Answer | None:
    """Return what to send, None when the device has it and there is nothing to do.

    `device` is the registry's entry, `waiting` what is retained on the device's certificate topic: an answer that fits
    is given again, so a request that comes twice costs no second certificate. Raises `RenewalError`, `PkiError`.
    """
    if device.status != "active":
        raise RenewalError(f"{device.name}: is {device.status}; a device renews when it is active")
    current = f"{request.current:x}"
    digest = sha256(spki(request.key)).hexdigest()
    if current not in device.serials:
        if device.spki_sha256 == digest:
            return None  # a request that it had no time to take back
        raise RenewalError(f"{device.name}: asks with a certificate that the registry does not know; enrol it again")
    if request.current in pki.revoked():
        raise RenewalError(f"{device.name}: asks with a revoked certificate; enrol it again if it is to come back")
    newer = device.serials[: device.serials.index(current)]
    certificate = _certificate(waiting) if waiting else None
    if (
        certificate is not None
        and f"{certificate.serial_number:x}" in newer
        and pki.is_of_a_device(certificate)
        and spki(certificate.public_key()) == spki(request.key)
    ):
        return Answer(device.name, waiting)
    if len(device.serials) >= MOST_AT_ONCE:
        raise RenewalError(
            f"{device.name}: has {len(device.serials)} certificates and moves to none of them; look at the device, then"
            " enrol it again"
        )
    issued = pki.device(device.name, csr=request.csr)
    return Answer(device.name, issued.chain_pem, facts_of(issued, device.serials))


def facts_of(issued: Credential, older: tuple[str, ...] = ()) -> dict[str, object]:
    """Return what the registry notes of a new certificate, beside the older ones."""
    return {
        "serials": [f"{issued.serial:x}", *older],
        "not_before": issued.not_before,
        "not_after": issued.not_after,
        "spki_sha256": issued.spki_sha256,
    }


def read_serial(topic: str, payload: bytes) -> tuple[str, int]:
    """Return which device reports, and the serial number of the certificate that it has made its own.

    Raises `RenewalError`.
    """
    name = publisher(topic)
    if not re.fullmatch(rb"[1-9a-f][0-9a-f]{0,39}", payload):
        raise RenewalError(f"{name}: reports {ascii(payload[:40])}, which is no serial number; look at its firmware")
    return name, int(payload, 16)


def moved(device: Device, serial: int) -> Retirement:
    """Return what follows from a device's report: the certificates older than the reported one retire.

    Newer ones stay, the device may still move to them. Raises `RenewalError` when the certificate is not the device's.
    """
    reported = f"{serial:x}"
    if reported not in device.serials:
        raise RenewalError(f"{device.name}: reports a certificate that the registry does not know; look at the device")
    kept = device.serials.index(reported) + 1
    return Retirement(tuple(int(old, 16) for old in device.serials[kept:]), device.serials[:kept])


def is_due(device: Device, now: datetime.datetime) -> bool:
    """Tell whether two thirds of the life of a device's newest certificate are over: time for the next one."""
    begin, end = device.not_before, device.not_after
    return begin is not None and end is not None and now >= begin + (end - begin) * 2 / 3


def has_arrived(device: Device, waiting: bytes, reported: int | None) -> bool:
    """Tell whether what waits for a device (`chain_pem`) may go: it has made that its own, or may not use it."""
    certificate = _certificate(waiting)
    if certificate is None or device.status == "revoked":
        return True
    return certificate.serial_number == reported or f"{certificate.serial_number:x}" not in device.serials


def _blocks(name: str, payload: bytes) -> dict[str, bytes]:
    """The blocks of a request: each label once, what is in them decoded, but the certificate as it stands."""
    blocks: dict[str, bytes] = {}
    if len(payload) <= _LONGEST:
        for found in _BLOCK.finditer(payload):
            label = found[1].decode()
            if label in blocks or label not in (_CSR, _CERTIFICATE, _ENDORSEMENT):
                raise RenewalError(f"{name}: its request has the block {label!r} twice, or none should be; look at it")
            try:
                content = base64.b64decode(found[2].translate(None, b"\r\n"), validate=True)
            except ValueError:
                raise RenewalError(
                    f"{name}: the block {label!r} of its request is damaged; it shall ask again"
                ) from None
            blocks[label] = found[0] if label == _CERTIFICATE else content
    if _CSR not in blocks or _CERTIFICATE not in blocks:
        raise RenewalError(f"{name}: no request for a renewal that can be read; it holds a request and a certificate")
    return blocks


def _certificate(pem: bytes) -> x509.Certificate | None:
    try:
        return x509.load_pem_x509_certificate(pem)
    except UNREADABLE:
        return None


def _common_name(certificate: x509.Certificate) -> object:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return names[0].value if len(names) == 1 else None


def _signed(key: object, signature: bytes, data: bytes) -> bool:
    try:
        match key:
            case ec.EllipticCurvePublicKey():
                key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
            case rsa.RSAPublicKey():
                key.verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
            case _:
                return False
    except InvalidSignature:
        return False
    return True


def _armoured(label: str, data: bytes) -> bytes:
    text = base64.b64encode(data)
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return b"\n".join([f"-----BEGIN {label}-----".encode(), *lines, f"-----END {label}-----".encode(), b""])
