"""The site's PKI: a root and two issuing authorities in the vault, and the certificates of services and devices.

    vault                                   never in the vault
    pki/root/{key,certificate}              the devices' keys, unless kept as a device's bundle
    pki/services/{key,certificate}          ephemeral clients of proofs
    pki/devices/{key,certificate,revoked,crl}   and during a roll-over those of `authorities`
    server/NAME/{key,certificate}
    client/NAME/{key,certificate}           the kit's own clients at the broker

The authorities' keys sign here, on the operator's side. What this module returns, and what `SecretStore.get` gives to a
deploy, is a leaf's key or public: neither has an accessor for an authority's.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from gatehouse.identity import revocation
from gatehouse.identity.authorities import ISSUING, ROLES, Authorities
from gatehouse.identity.authority import (
    BACKDATE,
    Authority,
    Network,
    PkiError,
    key_to_pem,
    new_key,
    read_certificate,
    read_key,
)
from gatehouse.identity.crls import Crls
from gatehouse.identity.csr import UNREADABLE, read_csr
from gatehouse.identity.leaf import (
    CLIENT,
    LONGEST_LIFE,
    SERVER,
    Address,
    Credential,
    LeafKey,
    credential,
    issue,
    strong_enough,
)
from gatehouse.identity.lifetimes import Lifetime, of_certificate, of_crl
from gatehouse.identity.names import KIT_PREFIX, check_device_name, check_label
from gatehouse.identity.rollover import Rollover
from gatehouse.identity.store import SecretStore
from gatehouse.identity.token import Token

__all__ = ["Credential", "Pki", "PkiError"]

_DOMAIN = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
_LONGEST_DOMAIN = 253 - len("devices.") - 64  # so that the longest device name fits before it (RFC 1035 §2.3.4)


def _utc_now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


@dataclass(frozen=True)
class Standing:
    """How long something is good (`life`), its state, and for an authority where its key is."""

    state: str
    life: Lifetime
    key: str


class Pki:
    """The PKI of one site, over its vault.

    `domain` is the site's (`home.example`): services are named below it, devices below `devices.DOMAIN`. `prefixes` are
    the addresses that services may have. `reserved` are names that no device may have, such as the services' own.
    `clock` tells the time, UTC. `tokens` says, by role, in which hardware token a new authority's key is made. Raises
    `PkiError`.
    """

    def __init__(
        self,
        vault: SecretStore,
        site_name: str,
        domain: str,
        prefixes: Iterable[str | Network] = (),
        reserved: Iterable[str] = (),
        clock: Callable[[], datetime.datetime] = _utc_now,
        tokens: Mapping[str, Token] | None = None,
    ) -> None:
        if not 0 < len(site_name) <= 40 or not site_name.isprintable():
            raise PkiError(f"site {site_name[:40]!r}: no name for a PKI; use 1 to 40 printable characters")
        if not _DOMAIN.fullmatch(domain) or len(domain) > _LONGEST_DOMAIN:
            raise PkiError(
                f"site {site_name}: {domain[:80]!r} is no domain; give one in lower case, such as 'home.arpa'"
            )
        self._vault = vault
        self._site_name = site_name
        self._domain = domain
        try:
            self._prefixes = tuple(ipaddress.ip_network(prefix) for prefix in prefixes)
        except ValueError as error:
            raise PkiError(f"site {site_name}: {error}; correct the prefix") from None
        self._reserved = frozenset(reserved)
        self._clock = clock
        self._authorities = Authorities(vault, site_name, domain, self._prefixes, tokens or {})
        self._crls = Crls(vault, self._authorities)

    def __repr__(self) -> str:
        return f"<Pki of {self._site_name} ({self._domain})>"

    @property
    def vault(self) -> SecretStore:
        """The vault that the PKI is in, for secrets that are no certificates."""
        return self._vault

    # authorities

    def ensure(self) -> Pki:
        """Make what the vault lacks of the three authorities, once; a later call changes nothing. Returns itself.

        When the site's prefixes have changed, the services authority gets a new certificate for its old key: devices
        trust the root and don't notice. Raises `PkiError` when the vault's PKI is of another domain.
        """
        self._authorities.ensure(self._clock())
        return self

    @property
    def trust_anchor(self) -> bytes:
        """What a device trusts: the root certificate, PEM."""
        return self._authorities["root"].certificate_pem

    def trust_chain_for_devices(self) -> bytes:
        """Return what a broker trusts to recognise devices (its `cafile`): devices authorities, then the root, PEM.

        During a roll-over there are several: the one that issues, the one that will, those that did.
        """
        trusted = self._authorities.places("devices").values()
        return b"".join(authority.certificate_pem for authority in trusted) + self.trust_anchor

    def authority_certificates(self) -> dict[str, bytes]:
        """Return the certificates of the authorities, PEM, by role: root, services, devices."""
        return {role: self._authorities[role].certificate_pem for role in ROLES}

    def rollover(self, role: str) -> Rollover:
        """Return what replaces the issuing authority of a role, `devices` or `services`. Raises `PkiError`."""
        return Rollover(self._authorities, self._vault, role, self._clock)

    def standings(self) -> list[Standing]:
        """Return all that ends one day: authorities, revocation lists, the servers' certificates."""
        found = [Standing("issuing", *self._kept("root CA", "pki/root"))]
        for role in ISSUING:
            for where, authority in self._authorities.places(role).items():
                state, name = where.split("/")[2:3], f"{role} CA {authority.identifier}"
                found.append(Standing(state[0] if state else "issuing", *self._kept(name, where)))
                if f"{where}/crl" in self._vault:
                    crl = of_crl(f"revocation list of {name}", self._vault.get(f"{where}/crl"))
                    found.append(Standing("signed", crl, ""))
        leaves = [name for kind in ("server/", "client/") for name in self._vault.names(kind)]
        for where in (name for name in leaves if name.endswith("/certificate")):
            life = of_certificate(" ".join(where.split("/")[:2]), self._vault.get(where))
            found.append(Standing("issued", life, ""))
        return found

    def _kept(self, name: str, where: str) -> tuple[Lifetime, str]:
        return of_certificate(name, self._vault.get(f"{where}/certificate")), self._authorities.keys.shown(where)

    def is_of_a_device(self, certificate: x509.Certificate) -> bool:
        """Tell whether a devices authority that is trusted now has issued a certificate, revoked or not."""
        return any(_was_issued_by(certificate, issuer) for issuer in self._authorities.places("devices").values())

    # leaves

    def device_dns_name(self, name: str) -> str:
        """Return the DNS name in a device's certificate."""
        return f"{name}.devices.{self._domain}"

    def server(
        self, name: str, dns_names: Iterable[str] = (), addresses: Iterable[str | Address] = (), days: int = 365
    ) -> Credential:
        """Return the certificate of a service, `NAME.DOMAIN` when no DNS name is given.

        It is kept in the vault and returned again until two thirds of its life are over or its names change. The new
        one has the same key: devices that pinned it stay connected.
        """
        dns = sorted(set(dns_names)) or [f"{name}.{self._domain}"]
        wanted = self._check_service_names(name, dns, addresses)
        stored = self._stored_server(name, dns, wanted)
        if stored is not None:
            return stored
        with self._vault.transaction():
            stored = self._stored_server(name, dns, wanted)  # another writer may have been first
            if stored is not None:
                return stored
            issuer = self._authorities["services"]
            key_pem = self._vault.obtain(f"server/{name}/key", lambda: key_to_pem(new_key()), "private-key")
            public_key = read_key(f"server/{name}/key", key_pem).public_key()
            certificate = issue(issuer, SERVER, name, public_key, dns, wanted, *self._life(issuer, days))
            made = credential(name, certificate, key_pem, issuer.certificate_pem)
            self._vault.set(f"server/{name}/certificate", made.certificate_pem, "certificate")
            return made

    def device(
        self, name: str, days: int = 365, public_key: LeafKey | None = None, csr: bytes | None = None
    ) -> Credential:
        """Issue a certificate to a device: for its public key, for the key of its request, or else for a new key.

        A new one each time, kept nowhere: whoever asks keeps the credential, and its serial number for `revoke`.
        Raises `NameRefused` and `PkiError`.
        """
        check_device_name(name, self._reserved)
        key_pem = None
        if csr is not None:
            public_key = read_csr(csr, name, self.device_dns_name(name))
        elif public_key is not None:
            strong_enough(name, public_key)
        else:
            key = new_key()
            public_key, key_pem = key.public_key(), key_to_pem(key)
        return self._client(name, public_key, key_pem, *self._life(self._authorities["devices"], days))

    def client(self, name: str, days: int = 365) -> Credential:
        """Return the certificate of one of the kit's own clients, whose name starts with `KIT_PREFIX`.

        It is kept in the vault and returned again until two thirds of its life are over, or another authority issues.
        """
        if not check_label(name).startswith(KIT_PREFIX):
            raise PkiError(f"client {name}: the kit's own clients have names that start with {KIT_PREFIX!r}")
        stored = self._stored_client(name)
        if stored is not None:
            return stored
        with self._vault.transaction():
            stored = self._stored_client(name)  # another writer may have been first
            if stored is not None:
                return stored
            key_pem = self._vault.obtain(f"client/{name}/key", lambda: key_to_pem(new_key()), "private-key")
            public_key = read_key(f"client/{name}/key", key_pem).public_key()
            made = self._client(name, public_key, key_pem, *self._life(self._authorities["devices"], days))
            self._vault.set(f"client/{name}/certificate", made.certificate_pem, "certificate")
            return made

    def ephemeral_client(
        self,
        name: str,
        lifetime: datetime.timedelta = datetime.timedelta(minutes=10),
        not_before: datetime.datetime | None = None,
        not_after: datetime.datetime | None = None,
    ) -> Credential:
        """Issue a short-lived client certificate for a proof, kept nowhere.

        Any name of the right form will do, reserved or not: that `admin` gets nothing by its name is one of the proofs.
        With `not_before` and `not_after` (UTC) in the past it is a certificate that has expired. One of a foreign CA
        comes from another Pki over a `SecretStore` in memory.
        """
        check_label(name)
        begin = not_before or self._clock() - BACKDATE
        end = not_after or (not_before or self._clock()) + lifetime
        key = new_key()
        return self._client(name, key.public_key(), key_to_pem(key), begin, end)

    def ephemeral_server(self, name: str, lifetime: datetime.timedelta = datetime.timedelta(minutes=10)) -> Credential:
        """Issue a short-lived certificate of a service `NAME.DOMAIN` for a proof, kept nowhere.

        That a broker does not take it for a client's is one of the proofs.
        """
        issuer, key = self._authorities["services"], new_key()
        dns = [f"{check_label(name)}.{self._domain}"]
        begin, end = self._clock() - BACKDATE, self._clock() + lifetime
        certificate = issue(issuer, SERVER, name, key.public_key(), dns, [], begin, end)
        return credential(name, certificate, key_to_pem(key), issuer.certificate_pem)

    # revocation

    def revoke(self, serial: int, reason: str = "unspecified", when: datetime.datetime | None = None) -> None:
        """Revoke a device's certificate by serial number; the next `crl` names it. First date and reason stay."""
        self.revoke_all([serial], reason, when)

    def revoke_all(
        self, serials: Iterable[int], reason: str = "unspecified", when: datetime.datetime | None = None
    ) -> None:
        """Revoke many at once, for one reason (`revocation.REASONS`). Raises `PkiError`, and revokes none then."""
        self._crls.revoke(serials, reason, when or self._clock())

    def revoked(self) -> dict[int, revocation.Revocation]:
        """Return every revocation ever made, by serial number."""
        return self._crls.revoked()

    def crl(self, now: datetime.datetime | None = None) -> bytes:
        """Return the revocation lists of the trusted devices authorities, PEM: one, or several during a roll-over.

        The same as before until what a list must say has changed or a third of its 180 days are over; the next one has
        the next number.
        """
        return b"".join(self._crls.current(now or self._clock()))

    def twin(self, name: str, serial: int) -> Credential:
        """Issue a short-lived certificate with the serial number of a revoked one, for a proof, kept nowhere.

        A broker refuses it if, and only if, it has loaded a list that names the revoked one, whose key only the device
        has. Raises `PkiError` unless that serial number is revoked: no other is ever given twice.
        """
        if serial not in self.revoked():
            raise PkiError(f"{name}: serial {serial:x} is not revoked; revoke it first")
        begin, end = self._clock() - BACKDATE, self._clock() + datetime.timedelta(minutes=10)
        key = new_key()
        return self._client(check_label(name), key.public_key(), key_to_pem(key), begin, end, serial)

    def _stored_server(self, name: str, dns: list[str], addresses: list[Address]) -> Credential | None:
        where, issuer = f"server/{name}", self._authorities["services"]
        if f"{where}/certificate" not in self._vault or f"{where}/key" not in self._vault:
            return None
        certificate = read_certificate(f"{where}/certificate", self._vault.get(f"{where}/certificate"))
        key_pem = self._vault.get(f"{where}/key")
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        stored = credential(name, certificate, key_pem, issuer.certificate_pem)
        fits = (
            names.get_values_for_type(x509.DNSName) == dns
            and names.get_values_for_type(x509.IPAddress) == addresses
            and certificate.public_key() == read_key(f"{where}/key", key_pem).public_key()
            and _was_issued_by(certificate, issuer)
            and not stored.due(self._clock())
        )
        return stored if fits else None

    def _stored_client(self, name: str) -> Credential | None:
        where = f"client/{name}"
        if f"{where}/certificate" not in self._vault or f"{where}/key" not in self._vault:
            return None
        certificate = read_certificate(f"{where}/certificate", self._vault.get(f"{where}/certificate"))
        key_pem = self._vault.get(f"{where}/key")
        stored = credential(name, certificate, key_pem)
        fits = (
            certificate.public_key() == read_key(f"{where}/key", key_pem).public_key()
            and _was_issued_by(certificate, self._authorities["devices"])
            and not stored.due(self._clock())
        )
        return stored if fits else None

    def _check_service_names(self, name: str, dns: list[str], addresses: Iterable[str | Address]) -> list[Address]:
        # the authority's name constraints would have every client refuse them; say so here instead
        if not 0 < len(name) <= 64:
            raise PkiError(f"server {name[:64]!r}: a certificate's name has 1 to 64 characters; choose a shorter one")
        shut = f"devices.{self._domain}"
        for dns_name in dns:
            below = dns_name == self._domain or dns_name.endswith(f".{self._domain}")
            if not _DOMAIN.fullmatch(dns_name) or not below or dns_name == shut or dns_name.endswith(f".{shut}"):
                raise PkiError(
                    f"server {name}: {dns_name!r} is no service's name; use one below {self._domain!r}, no device's"
                )
        try:
            parsed = {ipaddress.ip_address(address) for address in addresses}
        except ValueError as error:
            raise PkiError(f"server {name}: {error}; correct the address") from None
        for address in parsed:
            if not any(address in prefix for prefix in self._prefixes):
                raise PkiError(
                    f"server {name}: {address} is in none of the site's prefixes; add its segment to the site"
                )
        return sorted(parsed, key=lambda address: (address.version, address))

    def _life(self, issuer: Authority, days: int) -> tuple[datetime.datetime, datetime.datetime]:
        if not 1 <= days <= LONGEST_LIFE.days:
            raise PkiError(f"a certificate for {days} days; ask for 1 to {LONGEST_LIFE.days}")
        now = self._clock()
        if not issuer.not_before <= now < issuer.not_after:
            raise PkiError(
                f"site {self._site_name}: its CA is good from {issuer.not_before:%Y-%m-%d} to"
                f" {issuer.not_after:%Y-%m-%d} and here it is {now:%Y-%m-%d}; check the clock, or roll the CA over"
            )
        begin = now - BACKDATE
        return begin, min(begin + datetime.timedelta(days=days), issuer.not_after)  # none outlives who vouches for it

    def _client(
        self,
        name: str,
        public_key: LeafKey,
        key_pem: bytes | None,
        begin: datetime.datetime,
        end: datetime.datetime,
        serial: int | None = None,
    ) -> Credential:
        dns = [self.device_dns_name(name)]
        certificate = issue(self._authorities["devices"], CLIENT, name, public_key, dns, [], begin, end, serial)
        return credential(name, certificate, key_pem)


def _was_issued_by(certificate: x509.Certificate, issuer: Authority) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer.certificate)
    except (*UNREADABLE, InvalidSignature):
        return False
    return True
