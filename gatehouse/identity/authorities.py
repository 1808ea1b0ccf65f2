"""The certification authorities of a site, in its vault: made once, kept up to date, rolled over, loaded to sign.

    pki/ROLE/…               the one that issues; ROLE is root, services or devices
    pki/ROLE/coming/…        the one that will: trusted already, so that every gateway knows it before it issues
    pki/ROLE/former/ID/…     those that issued before: trusted until no certificate of theirs is in use

In each place are the certificate, the key (see `keys`) and, of a devices authority, its revocation list.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass

from gatehouse.identity.authority import (
    Authority,
    Network,
    PkiError,
    Signer,
    device_names,
    new_issuer,
    new_root,
    read_certificate,
    service_names,
)
from gatehouse.identity.keys import Keys
from gatehouse.identity.leaf import CLIENT, SERVER
from gatehouse.identity.store import SecretStore
from gatehouse.identity.token import Token

ROLES = ("root", "services", "devices")
ISSUING = ("services", "devices")
"""Those that can be rolled over: a new root is a new identity for every device."""

_PARTS = ("certificate", "key", "token", "crl", "replaced")


@dataclass(frozen=True)
class Former:
    """An authority that issues no more, and since when (UTC)."""

    authority: Authority
    replaced: datetime.datetime


class Authorities:
    """The authorities in a vault. Only `gatehouse.identity` holds one: its authorities sign."""

    def __init__(
        self,
        vault: SecretStore,
        site_name: str,
        domain: str,
        prefixes: tuple[Network, ...],
        tokens: Mapping[str, Token],
    ) -> None:
        self._vault = vault
        self._site_name = site_name
        self._domain = domain
        self._device_names = device_names(domain)
        self._service_names = service_names(domain, prefixes)
        self._loaded: dict[str, tuple[bytes, Authority]] = {}
        self.keys = Keys(vault, site_name, tokens)

    def ensure(self, now: datetime.datetime) -> None:
        """Make what is missing, and the services authority's certificate anew when the site's prefixes have changed."""
        if self._complete():
            return
        for role in ROLES:
            self.keys.reserve(role, f"pki/{role}")
        with self._vault.transaction():
            if not self._complete():
                self._make(now)

    def __getitem__(self, role: str) -> Authority:
        """Return the authority that issues, ready to sign. Raises `PkiError` when the vault has none or another key."""
        return self._at(role, f"pki/{role}")

    # roll-over

    def coming(self, role: str) -> Authority | None:
        """Return the authority that will issue next, None when none is in preparation."""
        where = f"pki/{role}/coming"
        return self._at(role, where) if self._is_there(where) else None

    def former(self, role: str) -> dict[str, Former]:
        """Return the authorities that issued before and are still trusted, by identifier, the latest first."""
        start = f"pki/{role}/former/"
        found = {}
        for name in self._vault.names(start):
            identifier, _, part = name.removeprefix(start).partition("/")
            if part == "certificate":
                found[identifier] = Former(self._at(role, start + identifier), self._replaced(start + identifier))
        return dict(sorted(found.items(), key=lambda item: item[1].replaced, reverse=True))

    def places(self, role: str) -> dict[str, Authority]:
        """Return all authorities of a role that are trusted now, by their place in the vault, the issuing one first."""
        coming = self.coming(role)
        return {
            f"pki/{role}": self[role],
            **({f"pki/{role}/coming": coming} if coming else {}),
            **{f"pki/{role}/former/{key}": former.authority for key, former in self.former(role).items()},
        }

    def prepare(self, role: str, now: datetime.datetime) -> Authority:
        """Make the authority that will issue next, unless there is one; return it."""
        where = f"pki/{role}/coming"
        if not self._is_there(where):
            self.keys.reserve(role, where)
            with self._vault.transaction():
                if not self._is_there(where):
                    self._keep(where, self._issuer(role, self.keys.make(role, where), now))
        return self._at(role, where)

    def switch(self, role: str, now: datetime.datetime) -> bool:
        """Let the coming authority issue, and keep the one that did as a former one; False when none is coming."""
        with self._vault.transaction():
            if not self._is_there(f"pki/{role}/coming"):
                return False
            former = f"pki/{role}/former/{self[role].identifier}"
            self._move(f"pki/{role}", former)
            self._vault.set(f"{former}/replaced", now.isoformat(), "record")
            self._move(f"pki/{role}/coming", f"pki/{role}")
        return True

    def drop(self, role: str, identifier: str) -> None:
        """Forget a former authority and its key, in its token first; one that is not there is no error."""
        where = f"pki/{role}/former/{identifier}"
        self.keys.destroy(role, where)
        with self._vault.transaction():
            for part in _PARTS:
                self._vault.delete(f"{where}/{part}")

    # the vault

    def _at(self, role: str, where: str) -> Authority:
        if not self._is_there(where):
            raise PkiError(f"site {self._site_name}: its vault holds no {role} CA; `./kit init` makes a vault with one")
        pem = self._vault.get(f"{where}/certificate")
        if where in self._loaded and self._loaded[where][0] == pem:
            return self._loaded[where][1]
        certificate = read_certificate(f"{where}/certificate", pem)
        authority = Authority(certificate, self.keys.of(role, where, certificate))
        self._loaded[where] = (pem, authority)
        return authority

    def _is_there(self, where: str) -> bool:
        return self.keys.has(where) and f"{where}/certificate" in self._vault

    def _complete(self) -> bool:
        if not all(self._is_there(f"pki/{role}") for role in ROLES):
            return False
        if self["devices"].name_constraints != self._device_names:
            raise PkiError(
                f"site {self._site_name}: its devices were enrolled in another domain than {self._domain!r};"
                " set that domain again, or start over with a new vault"
            )
        return self["services"].name_constraints == self._service_names

    def _make(self, now: datetime.datetime) -> None:
        if not self._is_there("pki/root"):
            self._keep("pki/root", new_root(self._site_name, self.keys.make("root", "pki/root"), now))
        if not self._is_there("pki/devices"):
            self._keep("pki/devices", self._issuer("devices", self.keys.make("devices", "pki/devices"), now))
        # with the key that it has, it stays the same authority to whoever trusts the root
        self._keep("pki/services", self._issuer("services", self.keys.make("services", "pki/services"), now))

    def _issuer(self, role: str, key: Signer, now: datetime.datetime) -> Authority:
        # The names of the services authority are not critical: servers send it to devices, and mbedTLS, which knows no
        # name constraints, refuses it with critical ones.
        use, names = (CLIENT, self._device_names) if role == "devices" else (SERVER, self._service_names)
        return new_issuer(self["root"], role, self._site_name, key, use, names, critical=role == "devices", now=now)

    def _keep(self, where: str, authority: Authority) -> None:
        self._vault.set(f"{where}/certificate", authority.certificate_pem, "certificate")

    def _move(self, old: str, new: str) -> None:
        for part in _PARTS:
            self._vault.rename(f"{old}/{part}", f"{new}/{part}")

    def _replaced(self, where: str) -> datetime.datetime:
        try:
            return datetime.datetime.fromisoformat(self._vault.get_text(f"{where}/replaced"))
        except ValueError:
            raise PkiError(f"{where}/replaced: no moment; restore the vault from its backup") from None
