"""Puts the key that signs DNS updates for the public CA's challenges into a site's vault."""

from __future__ import annotations

import base64
import binascii

from deploy import vaults
from gatehouse.errors import GatehouseError
from gatehouse.site import Site

NAME = "acme/tsig"
SHORTEST = 16  # bytes


class AcmeKeyError(GatehouseError):
    """No key of use."""


def keep(site: Site, given: str) -> str:
    """Keeps a TSIG key (base64, RFC 8945 §5) and says what comes then. Raises `AcmeKeyError`, `VaultError`."""
    text = given.strip().strip('"')
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise AcmeKeyError("standard input: no key in base64 (give what stands in quotes behind `secret`)") from None
    if len(key) < SHORTEST:
        raise AcmeKeyError(f"standard input: {len(key)} bytes are no key (make one with `tsig-keygen`)")
    if site.acme is None or site.acme.dns is None:
        raise AcmeKeyError(f"{site.name}: its challenges do not go over DNS (say so first: acme={{'dns': …}})")
    with vaults.open_vault(site).transaction() as vault:
        vault.set(NAME, text, "tsig-key")
    return f"{site.name}: the key for DNS updates is in the vault. Next: ./kit harden --site {site.name}"
