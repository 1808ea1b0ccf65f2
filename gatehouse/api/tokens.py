"""Checks the tokens that people and programs show to a gateway's read-only device API.

JSON Web Tokens (RFC 7519) with ES256, checked as RFC 8725 asks. It needs PyJWT alone, from 2.6 on: Debian 12 has that
(`python3-jwt`, `python3-cryptography`).

Whoever serves the API is given public keys, `identity.jwt.public_keys(vault)` at each deploy ({identifier: PEM}), the
site's name and the gateway's; the private key stays with the operator. Each request is asked about anew:

    claims = of_request(headers.get("Authorization"), keys, site, gateway)

It raises `TokenRefused` with a line that may be logged, and sent with status 401 and `WWW-Authenticate: Bearer`
(RFC 6750 §3); `claims.subject` is who asks. `./kit token.issue` makes the tokens.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jwt

from gatehouse.errors import GatehouseError

ALGORITHM = "ES256"
LONGEST_LIFE = datetime.timedelta(hours=24)
LEEWAY = datetime.timedelta(seconds=30)
"""How far the clocks of operator and gateway may be apart."""

_LONGEST = 2048
_CLAIMS = ["iss", "sub", "aud", "iat", "exp", "jti"]


class TokenRefused(GatehouseError):
    """A token that is not, or no more, good. Says why, and quotes nothing of it."""


@dataclass(frozen=True)
class Claims:
    """What a good token says: who it was given to, from when to when it counts (UTC), and its unique number."""

    subject: str
    issued: datetime.datetime
    expires: datetime.datetime
    identifier: str


def issuer_of(site: str) -> str:
    """Return who signs a site's tokens, as they say it."""
    return f"gatehouse:{site}"


def audience_of(site: str, gateway: str) -> str:
    """Return what a token says it is for: the device API of one gateway, and of no other."""
    return f"gatehouse:{site}:{gateway}:devices"


def of_request(authorization: str | None, keys: Mapping[str, str], site: str, gateway: str) -> Claims:
    """Return what the token in an HTTP `Authorization` header says (RFC 6750 §2.1). Raises `TokenRefused`."""
    scheme, _, token = (authorization or "").strip().partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise TokenRefused("token: none was sent (Authorization: Bearer TOKEN)")
    return check(token.strip(), keys, site, audience_of(site, gateway))


def check(token: str, keys: Mapping[str, str], site: str, audience: str) -> Claims:
    """Return what a token says, if one of the keys (PEM by identifier) signed it for this site and audience.

    Raises `TokenRefused` for any other, and for one whose time has not come or is over.
    """
    if len(token) > _LONGEST:
        raise TokenRefused("token: too long to be one")
    try:
        key = keys.get(str(jwt.get_unverified_header(token).get("kid")))
        if key is None:
            raise TokenRefused("token: signed with a key that is not, or no more, this site's")
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[ALGORITHM],  # never what the token itself says (RFC 8725 §3.1)
            audience=audience,
            issuer=issuer_of(site),
            leeway=LEEWAY.total_seconds(),
            options={"require": _CLAIMS},
        )
        issued, expires = (datetime.datetime.fromtimestamp(claims[name], datetime.UTC) for name in ("iat", "exp"))
        subject, identifier = claims["sub"], claims["jti"]
    except jwt.PyJWTError as error:
        raise TokenRefused(f"token: {_why(error)}") from None
    except (ValueError, TypeError, OverflowError, OSError):
        raise TokenRefused("token: not a well-formed one") from None
    if expires - issued > LONGEST_LIFE or not isinstance(subject, str) or not isinstance(identifier, str):
        raise TokenRefused("token: claims more than this site ever grants")
    return Claims(subject, issued, expires, identifier)


def _why(error: jwt.PyJWTError) -> str:
    match error:
        case jwt.ExpiredSignatureError():
            return "its time is over; get a new one"
        case jwt.ImmatureSignatureError():
            return "from the future; compare the clocks"
        case jwt.InvalidAudienceError() | jwt.InvalidIssuerError():
            return "made for another site or service"
        case jwt.InvalidSignatureError() | jwt.InvalidAlgorithmError():
            return "not signed by this site"
    return "not a well-formed one"
