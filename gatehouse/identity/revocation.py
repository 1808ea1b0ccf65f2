"""Revocation: which certificates are no longer good, and the signed list of them (RFC 5280 §5)."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cryptography import x509

from gatehouse.identity.authority import BACKDATE, Authority, PkiError
from gatehouse.identity.leaf import LONGEST_LIFE

CRL_LIFE = datetime.timedelta(days=180)
"""From signing to nextUpdate: a gateway that nobody visits for 90 days, after a third of it, still has a month left."""

REASONS = tuple(reason.value for reason in x509.ReasonFlags if reason is not x509.ReasonFlags.remove_from_crl)
"""The reasons of RFC 5280 §5.3.1 by name, such as `keyCompromise`, `superseded`, `cessationOfOperation`."""


@dataclass(frozen=True)
class Revocation:
    """A certificate's serial number, when it was revoked (UTC, whole seconds), and why (one of `REASONS`)."""

    serial: int
    when: datetime.datetime
    reason: str = "unspecified"

    def __post_init__(self) -> None:
        if not 0 < self.serial < 2**159:
            raise PkiError(f"serial {self.serial}: no serial number of a certificate; take it from the device registry")
        if self.reason not in REASONS:
            raise PkiError(f"reason {self.reason!r}: unknown; use one of {', '.join(REASONS)}")


Revocations = Mapping[int, Revocation]


def to_json(revocations: Revocations) -> bytes:
    """Return the revocations as the vault keeps them: JSON by serial number in hexadecimal."""
    document = {
        f"{serial:x}": {"when": revocations[serial].when.isoformat(), "reason": revocations[serial].reason}
        for serial in sorted(revocations)
    }
    return json.dumps(document, indent=1).encode()


def from_json(data: bytes) -> dict[int, Revocation]:
    """Return the revocations that `to_json` wrote. Raises `PkiError` when it did not."""
    try:
        entries = [
            Revocation(int(serial, 16), datetime.datetime.fromisoformat(fields["when"]), fields["reason"])
            for serial, fields in json.loads(data).items()
        ]
    except (ValueError, TypeError, LookupError, AttributeError):
        raise PkiError("pki/devices/revoked: no list of revocations; restore the vault from its backup") from None
    return {entry.serial: entry for entry in entries}


def listed(revocations: Revocations, now: datetime.datetime) -> dict[int, Revocation]:
    """Return those that a CRL of today must name: one whose certificate ended long ago is left out.

    No leaf lives longer than 365 days, and each stays for one CRL beyond its end (RFC 5280 §3.3).
    """
    return {serial: entry for serial, entry in revocations.items() if now < entry.when + LONGEST_LIFE + CRL_LIFE}


def sign_crl(
    issuer: Authority, revocations: Iterable[Revocation], number: int, now: datetime.datetime
) -> x509.CertificateRevocationList:
    """Return a CRL that is good from five minutes ago for 180 days from now."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(now - BACKDATE)
        .next_update(now + CRL_LIFE)
        .add_extension(issuer.key_identifier, critical=False)
        .add_extension(x509.CRLNumber(number), critical=False)
    )
    for entry in sorted(revocations, key=lambda entry: entry.serial):
        revoked = x509.RevokedCertificateBuilder().serial_number(entry.serial).revocation_date(entry.when)
        if entry.reason != "unspecified":  # RFC 5280 §5.3.1: leave the extension out rather than say so
            revoked = revoked.add_extension(x509.CRLReason(x509.ReasonFlags(entry.reason)), critical=False)
        builder = builder.add_revoked_certificate(revoked.build())
    return issuer.sign_crl(builder)


def still_current(
    crl: x509.CertificateRevocationList, issuer: Authority, revocations: Revocations, now: datetime.datetime
) -> bool:
    """Tell whether a CRL names just these, is the issuer's, and less than a third of its life is over."""
    begin, end = crl.last_update_utc, crl.next_update_utc
    return (
        end is not None
        and begin <= now < begin + (end - begin) / 3
        and crl.is_signature_valid(issuer.public_key)
        and {entry.serial_number: (entry.revocation_date_utc, _reason(entry)) for entry in crl}
        == {serial: (entry.when, entry.reason) for serial, entry in revocations.items()}
    )


def crl_number(crl: x509.CertificateRevocationList) -> int:
    """Return the number of a CRL; each that is signed has a higher one (RFC 5280 §5.2.3)."""
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def _reason(entry: x509.RevokedCertificate) -> str:
    try:
        return entry.extensions.get_extension_for_class(x509.CRLReason).value.reason.value
    except x509.ExtensionNotFound:
        return "unspecified"
