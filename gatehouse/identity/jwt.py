"""Issues the short-lived tokens that people and programs show to a gateway's read-only device API; see `api.tokens`.

They are signed on the operator's side; a gateway has the public keys only, so who breaks into it can't make one. No
list says which are revoked: their short life is the revocation, and a new key ends all of them at once.

    api/jwt/key           the private key, on P-256
    api/jwt/former-key    the one before it, until tokens of its have ended
"""

from __future__ import annotations

import datetime
import secrets
from hashlib import sha256

import jwt
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gatehouse.api.tokens import ALGORITHM, LONGEST_LIFE, TokenRefused, issuer_of
from gatehouse.identity.authority import key_to_pem, new_key, read_key
from gatehouse.identity.leaf import spki
from gatehouse.identity.store import SecretStore

LIFE = datetime.timedelta(hours=1)

_KEY, _FORMER = "api/jwt/key", "api/jwt/former-key"


def issue(
    vault: SecretStore,
    site: str,
    subject: str,
    audience: str,
    life: datetime.timedelta = LIFE,
    now: datetime.datetime | None = None,
) -> str:
    """Return a token of a site for `subject`, to be shown to `audience` alone (`audience_of`).

    The key is made when the vault has none. Raises `TokenRefused` for a life of more than 24 hours, or none.
    """
    if not datetime.timedelta(0) < life <= LONGEST_LIFE:
        raise TokenRefused(f"a token for {life}; ask for up to {LONGEST_LIFE.total_seconds() / 3600:.0f} hours")
    if not 0 < len(subject) <= 64 or not subject.isprintable():
        raise TokenRefused(f"a token for {subject[:64]!r}; name who it is for, in 1 to 64 printable characters")
    key = read_key(_KEY, vault.obtain(_KEY, lambda: key_to_pem(new_key()), "private-key"))
    moment = now or datetime.datetime.now(datetime.UTC)
    claims = {
        "iss": issuer_of(site),
        "sub": subject,
        "aud": audience,
        "iat": int(moment.timestamp()),
        "exp": int((moment + life).timestamp()),
        "jti": secrets.token_hex(16),
    }
    headers = {"kid": _identifier(spki(key.public_key()))}
    return jwt.encode(claims, key_to_pem(key).decode(), algorithm=ALGORITHM, headers=headers)


def public_keys(vault: SecretStore) -> dict[str, str]:
    """Return the public keys that tokens are checked with, PEM by identifier: what a gateway is given."""
    found = {}
    for name in (_KEY, _FORMER):
        if name in vault:
            public_key = read_key(name, vault.get(name)).public_key()
            pem = public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            found[_identifier(spki(public_key))] = pem.decode()
    return found


def ensured_public_keys(vault: SecretStore) -> dict[str, str]:
    """Return the public keys, and make the first key where there is none: for a gateway that serves the API."""
    vault.obtain(_KEY, lambda: key_to_pem(new_key()), "private-key")
    return public_keys(vault)


def rotate(vault: SecretStore, at_once: bool = False) -> None:
    """Replace the key; tokens of the former one are good until their end, or, `at_once`, not any more."""
    with vault.transaction():
        if at_once:
            vault.delete(_KEY)
            vault.delete(_FORMER)
        vault.rename(_KEY, _FORMER)
        vault.set(_KEY, key_to_pem(new_key()), "private-key")


def _identifier(public_key: bytes) -> str:
    return sha256(public_key).hexdigest()[:16]
