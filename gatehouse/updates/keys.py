"""The two keys that firmware is signed with, and that every device trusts: in the vault, or in a hardware token.

    firmware/keys/N/key, or /token      never handed out (`gatehouse.identity.keys`)
    firmware/keys/N/public              PEM
    firmware/trusted                    [N, M]: N signs, M is kept for the day when N has to go

A release carries the pair that devices trust once they have installed it. So a key is replaced by the next release of
each model: it is signed by a key that devices know already, and names the one that they don't.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gatehouse.errors import GatehouseError
from gatehouse.identity.authority import Signer
from gatehouse.identity.keys import Keys
from gatehouse.identity.store import SecretStore
from gatehouse.identity.token import Token
from gatehouse.updates.manifest import key_identifier, raw_key

ROLE = "firmware"
_TRUSTED = "firmware/trusted"


class KeysError(GatehouseError):
    """There are no keys to sign with, or they can't be replaced now."""


@dataclass(frozen=True)
class Known:
    """A key's number, its public half as X and Y, and where the private one is: `vault`, or `token NAME`."""

    number: int
    key: bytes
    place: str

    @property
    def identifier(self) -> str:
        """What manifests name it by, in hexadecimal."""
        return key_identifier(self.key).hex()


class FirmwareKeys:
    """The signing keys of one site. New ones are made in the site's token for firmware, if `tokens` has one."""

    def __init__(self, vault: SecretStore, site_name: str, tokens: Mapping[str, Token] | None = None) -> None:
        self._vault = vault
        self._keys = Keys(vault, site_name, tokens or {})

    def ensure(self) -> tuple[Known, Known]:
        """Make the pair if there is none. Raises `PkiError` for a token, `VaultError` for the vault."""
        if _TRUSTED not in self._vault:
            for number in (1, 2):
                self._reserve(number)
            with self._vault.transaction():
                if _TRUSTED not in self._vault:
                    for number in (1, 2):
                        self._make(number)
                    self._vault.set(_TRUSTED, json.dumps([1, 2]), "record")
        return self.pair()

    def pair(self) -> tuple[Known, Known]:
        """The key that signs, and the backup. Raises `KeysError` when there are none."""
        first, second = _numbers(self._vault)
        return self._known(first), self._known(second)

    def replace(self, which: Literal["current", "backup"]) -> tuple[Known, Known]:
        """Make a new backup key: for the one there is, or for the current one, whose place the backup takes.

        What is replaced is destroyed. Every model needs a release afterwards. Raises `KeysError`, `PkiError`.
        """
        first, second = _numbers(self._vault)
        gone = first if which == "current" else second
        number = max(first, second) + 1
        self._reserve(number)
        with self._vault.transaction():
            self._make(number)
            self._vault.set(_TRUSTED, json.dumps([first if which == "backup" else second, number]), "record")
        # only now: until then the key that goes is the one that devices are told of
        self._keys.destroy(ROLE, _where(gone))
        with self._vault.transaction():
            for name in self._vault.names(f"{_where(gone)}/"):
                self._vault.delete(name)
        return self.pair()

    def signer(self) -> Signer:
        """The key that signs. Raises `KeysError`, `VaultError`, and `PkiError` for a token that is not there."""
        first, _ = _numbers(self._vault)
        return self._keys.signer(ROLE, _where(first), _public(self._vault, first))

    def _reserve(self, number: int) -> None:
        self._keys.reserve(ROLE, _where(number))

    def _make(self, number: int) -> None:
        public = self._keys.make(ROLE, _where(number)).public_key()
        pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        self._vault.set(f"{_where(number)}/public", pem, "record")

    def _known(self, number: int) -> Known:
        return Known(number, raw_key(_public(self._vault, number)), self._keys.shown(_where(number)))


def trusted_keys(vault: SecretStore) -> tuple[bytes, ...]:
    """The pair that devices are given, X and Y of each; empty when the site has none yet. Raises `KeysError`."""
    if _TRUSTED not in vault:
        return ()
    return tuple(raw_key(_public(vault, number)) for number in _numbers(vault))


def _where(number: int) -> str:
    return f"firmware/keys/{number}"


def _numbers(vault: SecretStore) -> tuple[int, int]:
    if _TRUSTED not in vault:
        raise KeysError(f"{vault.where}: no keys for firmware (`./kit firmware.keys` makes them)")
    try:
        first, second = json.loads(vault.get(_TRUSTED))
        return int(first), int(second)
    except (ValueError, TypeError):
        raise KeysError(f"{vault.where}: {_TRUSTED} names no two keys; restore the vault from its backup") from None


def _public(vault: SecretStore, number: int) -> ec.EllipticCurvePublicKey:
    where = f"{_where(number)}/public"
    with contextlib.suppress(ValueError):
        key = serialization.load_pem_public_key(vault.get(where))
        if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
            return key
    raise KeysError(f"{vault.where}: {where} is no key on P-256; restore the vault from its backup")
