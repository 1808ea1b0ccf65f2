"""Where the authorities' private keys are: in the vault, or in a hardware token that the vault names.

WHERE/key      PEM, of a kind that is never handed out
WHERE/token    in its place: {"token": the token's label, "label": the key's label in it}
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from gatehouse.identity.authority import PkiError, Signer, key_to_pem, new_key, read_key
from gatehouse.identity.store import CA_KEY, SecretStore
from gatehouse.identity.token import Token, TokenSigner


class Keys:
    """The keys of a site's authorities. New ones are made in the token of their role (`tokens`), if it has one."""

    def __init__(self, vault: SecretStore, site_name: str, tokens: Mapping[str, Token]) -> None:
        self._vault = vault
        self._site_name = site_name
        self._tokens = tokens

    def has(self, where: str) -> bool:
        """Tell whether a place has a key."""
        return f"{where}/key" in self._vault or f"{where}/token" in self._vault

    def reserve(self, role: str, where: str) -> None:
        """Note, and save at once, which key of the token a place will have: a run that dies leaves no unknown key."""
        if role in self._tokens and not self.has(where):
            token = self._tokens[role]
            label = f"{token.key_label or f'{self._site_name}-{role}'}-{secrets.token_hex(4)}"
            record = {"token": token.label, "label": label}
            self._vault.obtain(f"{where}/token", lambda: json.dumps(record), "record")

    def make(self, role: str, where: str) -> Signer:
        """Return the key of a place, made when there is none yet."""
        if f"{where}/token" in self._vault:
            token, name, label = self._record(role, where)
            if token is None:
                raise PkiError(f"{where}: its key is to be in the token '{name}'; name that under `authority`")
            return TokenSigner(token, name, label, token.obtain_key(label))
        if f"{where}/key" not in self._vault:
            self._vault.set(f"{where}/key", key_to_pem(new_key()), CA_KEY)
        return read_key(f"{where}/key", self._vault.get_authority_key(f"{where}/key"))

    def of(self, role: str, where: str, certificate: x509.Certificate) -> Signer:
        """Return the key of an authority that has its certificate. Raises `PkiError` when they don't fit."""
        public_key = certificate.public_key()
        if f"{where}/token" in self._vault and isinstance(public_key, ec.EllipticCurvePublicKey):
            return self.signer(role, where, public_key)
        key = read_key(f"{where}/key", self._vault.get_authority_key(f"{where}/key"))
        if public_key != key.public_key():
            raise PkiError(f"{where}: key and certificate don't belong together; restore the vault from its backup")
        return key

    def signer(self, role: str, where: str, public_key: ec.EllipticCurvePublicKey) -> Signer:
        """Return the key of a place whose public half is known. Raises `PkiError` when they don't fit."""
        if f"{where}/token" in self._vault:
            token, name, label = self._record(role, where)
            return TokenSigner(token, name, label, public_key)
        key = read_key(f"{where}/key", self._vault.get_authority_key(f"{where}/key"))
        if public_key != key.public_key():
            raise PkiError(f"{where}: its two halves don't belong together; restore the vault from its backup")
        return key

    def shown(self, where: str) -> str:
        """Say where a key is: `vault`, or `token NAME`."""
        return f"token {self._fields(where)[0]}" if f"{where}/token" in self._vault else "vault"

    def destroy(self, role: str, where: str) -> None:
        """Destroy a key that is in a token; the vault's is deleted by whoever deletes its place."""
        if f"{where}/token" in self._vault:
            token, name, label = self._record(role, where)
            if token is None:
                raise PkiError(f"{where}: its key is in the token '{name}'; name that under `authority` to destroy it")
            token.destroy_key(label)

    def _record(self, role: str, where: str) -> tuple[Token | None, str, str]:
        name, label = self._fields(where)
        token = self._tokens.get(role)
        return (token if token is not None and token.label == name else None), name, label

    def _fields(self, where: str) -> tuple[str, str]:
        try:
            fields = json.loads(self._vault.get(f"{where}/token"))
            return str(fields["token"]), str(fields["label"])
        except (ValueError, LookupError, TypeError):
            raise PkiError(f"{where}/token: names no key in a token; restore the vault from its backup") from None
