"""How much of their life certificates and revocation lists have left, as a fraction: what compliance warns by.

Fractions, not days: lives get shorter, and a warning of 30 days before the end means nothing for one of 45.
"""

from __future__ import annotations

import contextlib
import datetime
from dataclasses import dataclass

from cryptography import x509

from gatehouse.identity.authority import PkiError

WARN_BELOW = 1 / 3
"""The fraction of a life below which whoever looks after it has to be told."""


@dataclass(frozen=True)
class Lifetime:
    """From when to when (UTC) something is good."""

    name: str
    begin: datetime.datetime
    end: datetime.datetime

    def left(self, now: datetime.datetime) -> float:
        """Return the fraction of its life that is left: 1.0 at the beginning, 0.0 from its end on."""
        whole = (self.end - self.begin).total_seconds()
        return min(1.0, max(0.0, (self.end - now).total_seconds() / whole)) if whole > 0 else 0.0

    def days_left(self, now: datetime.datetime) -> int:
        """Return the whole days until its end, negative when it is over."""
        return (self.end - now).days

    def needs_care(self, now: datetime.datetime) -> bool:
        """Tell whether less than a third of its life is left, or it has not begun."""
        return now < self.begin or self.left(now) < WARN_BELOW


def of_certificate(name: str, pem: bytes) -> Lifetime:
    """Return the life of the first certificate in PEM. Raises `PkiError`."""
    with contextlib.suppress(ValueError):
        certificate = x509.load_pem_x509_certificate(pem)
        return Lifetime(name, certificate.not_valid_before_utc, certificate.not_valid_after_utc)
    raise PkiError(f"{name}: no certificate in PEM; look at what is there")


def of_crl(name: str, pem: bytes) -> Lifetime:
    """Return the life of the list in PEM; of several, what they have in common. Raises `PkiError`."""
    mark = b"-----BEGIN X509 CRL-----"
    with contextlib.suppress(ValueError):
        lists = [x509.load_pem_x509_crl(mark + part) for part in pem.split(mark)[1:]]
        ends = [each.next_update_utc for each in lists if each.next_update_utc is not None]
        if lists and len(ends) == len(lists):
            return Lifetime(name, max(each.last_update_utc for each in lists), min(ends))
    raise PkiError(f"{name}: no revocation list in PEM with a nextUpdate; look at what is there")
