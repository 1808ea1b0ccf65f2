"""Issues the tokens that people and cloud services show to a gateway's device API, and replaces the key behind them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from deploy import vaults
from deploy.data import one_gateway
from gatehouse.api.tokens import LEEWAY, LONGEST_LIFE, TokenRefused, audience_of, check
from gatehouse.identity import jwt
from gatehouse.site import Site


@dataclass(frozen=True)
class Issued:
    """A token, and what to tell of it: that is no secret."""

    token: str
    about: str


def issue(site: Site, subject: str, gateway: str, hours: str, now: datetime | None = None) -> Issued:
    """A token for somebody, good at one gateway for some hours. Raises `TokenRefused`, `DataError`, `VaultError`."""
    gateway = one_gateway(site, gateway)
    try:
        life = timedelta(hours=float(hours))
    except (ValueError, OverflowError):
        raise TokenRefused(f"a token for {hours[:20]!r} hours; ask for up to 24") from None
    vault = vaults.open_vault(site)
    new = not jwt.public_keys(vault)
    token = jwt.issue(vault, site.name, subject, audience_of(site.name, gateway), life, now)
    claims = check(token, jwt.public_keys(vault), site.name, audience_of(site.name, gateway))
    first = f"; the key is new: ./kit harden --site {site.name} brings it to the gateways" if new else ""
    return Issued(token, f"{gateway}: for {claims.subject}, until {claims.expires:%Y-%m-%d %H:%M:%S} UTC{first}")


def rotate(site: Site, at_once: bool) -> str:
    """Replaces the key that signs tokens; with `at_once` those of the former one end now. Raises `VaultError`."""
    vault = vaults.open_vault(site)
    jwt.rotate(vault, at_once)
    until = datetime.now(UTC) + LONGEST_LIFE + LEEWAY
    former = "end" if at_once else f"are good until they end, {until:%Y-%m-%d %H:%M} UTC at the latest"
    return (
        f"{site.name}: a new key signs tokens; those of the former one {former}. Next: ./kit harden --site {site.name}"
    )
