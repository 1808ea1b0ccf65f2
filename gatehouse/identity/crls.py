"""The revocations of a site in its vault, and the signed list of each devices authority that is trusted."""

from __future__ import annotations

import datetime
from collections.abc import Iterable

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from gatehouse.identity import revocation
from gatehouse.identity.authorities import Authorities
from gatehouse.identity.authority import Authority, PkiError
from gatehouse.identity.store import SecretStore

_REVOKED = "pki/devices/revoked"


class Crls:
    """What is revoked, and the lists that say so. A list names all of it, whichever authority issued it: serial numbers
    are random, so one that is not the authority's own is nobody's there."""

    def __init__(self, vault: SecretStore, authorities: Authorities) -> None:
        self._vault = vault
        self._authorities = authorities
        # Thousands of devices are asked for in a row, and of each whether it is revoked.
        self._read: tuple[bytes | None, dict[int, revocation.Revocation]] = (None, {})

    def revoke(self, serials: Iterable[int], reason: str, when: datetime.datetime) -> None:
        """Note revocations; of one that is noted already the first date and reason stay. Raises `PkiError`."""
        moment = when.astimezone(datetime.UTC).replace(microsecond=0)
        entries = {serial: revocation.Revocation(serial, moment, reason) for serial in serials}
        with self._vault.transaction():
            self._vault.set(_REVOKED, revocation.to_json({**entries, **self.revoked()}), "record")

    def revoked(self) -> dict[int, revocation.Revocation]:
        """Return every revocation ever made, by serial number."""
        if _REVOKED not in self._vault:
            return {}
        noted = self._vault.get(_REVOKED)
        if noted != self._read[0]:
            self._read = noted, revocation.from_json(noted)
        return dict(self._read[1])

    def current(self, now: datetime.datetime) -> list[bytes]:
        """Return the list of each trusted devices authority, PEM, the issuing one's first; signed where it must be."""
        places = self._authorities.places("devices")
        listed = revocation.listed(self.revoked(), now)
        found = [self._stored(where, issuer, listed, now) for where, issuer in places.items()]
        if None not in found:
            return [pem for pem in found if pem]
        with self._vault.transaction():
            listed = revocation.listed(self.revoked(), now)
            return [
                self._stored(where, issuer, listed, now) or self._sign(where, issuer, listed, now)
                for where, issuer in self._authorities.places("devices").items()
            ]

    def _stored(
        self, where: str, issuer: Authority, listed: revocation.Revocations, now: datetime.datetime
    ) -> bytes | None:
        crl = self._last(where)
        if crl is not None and revocation.still_current(crl, issuer, listed, now):
            return self._vault.get(f"{where}/crl")
        return None

    def _sign(self, where: str, issuer: Authority, listed: revocation.Revocations, now: datetime.datetime) -> bytes:
        last = self._last(where)
        number = 1 if last is None else revocation.crl_number(last) + 1
        crl = revocation.sign_crl(issuer, listed.values(), number, now)
        pem = crl.public_bytes(serialization.Encoding.PEM)
        self._vault.set(f"{where}/crl", pem, "crl")
        return pem

    def _last(self, where: str) -> x509.CertificateRevocationList | None:
        if f"{where}/crl" not in self._vault:
            return None
        try:
            return x509.load_pem_x509_crl(self._vault.get(f"{where}/crl"))
        except ValueError:
            raise PkiError(f"{where}/crl: no revocation list in PEM; restore the vault from its backup") from None
