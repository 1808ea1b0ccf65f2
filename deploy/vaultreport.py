"""What the operator is told about a vault: what is in it, how old, who can open it, and what has to be replaced."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from gatehouse.errors import GatehouseError
from gatehouse.identity import Vault

# How a secret that a leaver has seen is replaced, by the beginning of its name; the first that fits counts.
_REPLACED_BY = (
    ("pki/root/key", "a new root: every device gets a new identity (docs/pki.md)"),
    ("pki/devices", "./kit ca.rollover --role devices, then ./kit renew"),
    ("pki/services", "./kit ca.rollover --role services, then harden"),
    ("firmware/keys/", "./kit firmware.keys --replace current (or backup), then a release of every model"),
    ("api/jwt/", "./kit token.rotate --at-once, then harden"),
    ("report/key", "nothing yet: keep the leaver from reports/, and go by a digest you noted (docs/proof.md)"),
    ("broker/psk/", "nobody's: the compliance suite's own"),
    ("broker/programs/", "./kit rotate --only broker/programs/NAME/password"),
    ("bootloader/", "./kit rotate --only bootloader/GATEWAY/password"),
    ("devices/", "./kit rotate --only 'devices/NAME/*'"),
    ("", "./kit rotate, or when it is next made (docs/rotation.md)"),
)


class ShowError(GatehouseError):
    """A secret that can't be shown here."""


def table(vault: Vault, now: datetime | None = None) -> Iterator[str]:
    """Names, kinds and ages, and who can open it: no value."""
    moment = now or datetime.now(UTC)
    yield f"{vault.where}: generation {vault.generation}"
    yield from (f"can open it: {vault.people.shown(key)}" for key in vault.recipients)
    names, exposed = vault.names(), vault.exposed()
    width = max(map(len, names), default=0)
    for name in names:
        entry = vault.about(name)
        days = (moment - datetime.fromisoformat(entry.created)).days
        seen = f"  seen by {_who(vault, name)}, who left" if name in exposed else ""
        yield f"{name:{width}}  {entry.kind:11}  {days:5} days{seen}"


def secret(vault: Vault, name: str, terminal: bool) -> bytes:
    """One value, as it is; a line end after text on a terminal. Raises `VaultError`, `ShowError`."""
    value = vault.get(name)
    if not terminal:
        return value
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise ShowError(f"{name}: is binary (send it into a file or a pipe)") from None
    return (text if text.endswith("\n") else text + "\n").encode()


def to_replace(vault: Vault) -> Iterator[str]:
    """What someone who left has seen and can still use: each secret, and how it is replaced."""
    exposed = vault.exposed()
    if not exposed:
        yield "nothing in it has been seen by anyone who left"
        return
    yield f"{len(exposed)} secrets were seen by someone who left and stay known to them until each is replaced:"
    for name in exposed:
        how = next(how for start, how in _REPLACED_BY if name.startswith(start))
        yield f"  {name} (seen by {_who(vault, name)}): {how}"
    yield "backups and copies of the vault made before still open for them: make a new backup, destroy the old ones"


def _who(vault: Vault, name: str) -> str:
    return ", ".join(leaver.name or leaver.recipient for leaver in vault.exposed()[name])
