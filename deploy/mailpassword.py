"""Puts the password that alerts are mailed with into a site's vault."""

from __future__ import annotations

from deploy import vaults
from gatehouse.errors import GatehouseError
from gatehouse.site import Site
from roles.alerts import EMAIL_PASSWORD

LONGEST = 1000  # characters


class MailPasswordError(GatehouseError):
    """No password of use."""


def keep(site: Site, given: str) -> str:
    """Keeps it and says what comes then; it is never shown. Raises `MailPasswordError`, `VaultError`."""
    text = given.removesuffix("\n").removesuffix("\r")
    if not text or len(text) > LONGEST or not text.isprintable():
        raise MailPasswordError("standard input: is no password (give one line that can be printed)")
    if site.alerts is None or site.alerts.email is None:
        raise MailPasswordError(f"{site.name}: alerts are not mailed (say so first: alerts={{'email': …}})")
    with vaults.open_vault(site).transaction() as vault:
        vault.set(EMAIL_PASSWORD, text, "password")
    server = site.alerts.email.server
    return f"{site.name}: the password for {server} is in the vault. Next: ./kit harden --site {site.name}"
