"""The three certification authorities of a site, in its vault: made once, brought up to date, loaded to sign."""

from __future__ import annotations

import datetime

from cryptography.hazmat.primitives.asymmetric import ec

from gatehouse.identity.authority import (
    Authority,
    Network,
    PkiError,
    device_names,
    key_to_pem,
    new_issuer,
    new_key,
    new_root,
    read_certificate,
    read_key,
    service_names,
)
from gatehouse.identity.leaf import CLIENT, SERVER
from gatehouse.identity.store import CA_KEY, SecretStore

ROLES = ("root", "services", "devices")


class Authorities:
    """The authorities in a vault, by role. Only `gatehouse.identity` holds one: its authorities sign."""

    def __init__(self, vault: SecretStore, site_name: str, domain: str, prefixes: tuple[Network, ...]) -> None:
        self._vault = vault
        self._site_name = site_name
        self._domain = domain
        self._device_names = device_names(domain)
        self._service_names = service_names(domain, prefixes)
        self._loaded: dict[str, tuple[bytes, Authority]] = {}

    def ensure(self, now: datetime.datetime) -> None:
        """Make what is missing, and the services authority's certificate anew when the site's prefixes have changed."""
        if self._complete():
            return
        with self._vault.transaction():
            if not self._complete():
                self._make(now)

    def __getitem__(self, role: str) -> Authority:
        """Return an authority, ready to sign. Raises `PkiError` when the vault has none, or has another key."""
        where = f"pki/{role}"
        if not self._is_there(role):
            raise PkiError(f"site {self._site_name}: its vault holds no {role} CA; `./kit init` makes a vault with one")
        pem = self._vault.get(f"{where}/certificate")
        if role in self._loaded and self._loaded[role][0] == pem:
            return self._loaded[role][1]
        key = self._key(role)
        authority = Authority(read_certificate(f"{where}/certificate", pem), key)
        if authority.certificate.public_key() != key.public_key():
            raise PkiError(f"{where}: key and certificate don't belong together; restore the vault from its backup")
        self._loaded[role] = (pem, authority)
        return authority

    def _is_there(self, role: str) -> bool:
        return f"pki/{role}/key" in self._vault and f"pki/{role}/certificate" in self._vault

    def _complete(self) -> bool:
        if not all(map(self._is_there, ROLES)):
            return False
        if self["devices"].name_constraints != self._device_names:
            raise PkiError(
                f"site {self._site_name}: its devices were enrolled in another domain than {self._domain!r};"
                " set that domain again, or start over with a new vault"
            )
        return self["services"].name_constraints == self._service_names

    def _make(self, now: datetime.datetime) -> None:
        site = self._site_name
        if not self._is_there("root"):
            self._keep("root", new_root(site, self._key("root"), now))
        root = self["root"]
        if not self._is_there("devices"):
            names = self._device_names
            self._keep(
                "devices",
                new_issuer(root, "devices", site, self._key("devices"), CLIENT, names, critical=True, now=now),
            )
        # With the key that it has, it stays the same authority to whoever trusts the root. Its names are not critical:
        # servers send it to devices, and mbedTLS, which knows no name constraints, refuses it with critical ones.
        names = self._service_names
        self._keep(
            "services",
            new_issuer(root, "services", site, self._key("services"), SERVER, names, critical=False, now=now),
        )

    def _key(self, role: str) -> ec.EllipticCurvePrivateKey:
        name = f"pki/{role}/key"
        if name not in self._vault:
            self._vault.set(name, key_to_pem(new_key()), CA_KEY)
        return read_key(name, self._vault.get_authority_key(name))

    def _keep(self, role: str, authority: Authority) -> None:
        self._vault.set(f"pki/{role}/certificate", authority.certificate_pem, "certificate")
