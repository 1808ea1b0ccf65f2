"""A site's backup, and the way back from one: with it and the identity alone, on any machine."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path

from deploy import vaults
from deploy.inventory import ROOT, known_hosts
from gatehouse.errors import GatehouseError
from gatehouse.identity import Vault, read_identities
from gatehouse.identity.backup import Backup, pack, unpack
from gatehouse.identity.files import write_private
from gatehouse.site import Site, load

VAULT = "vault.age"


class BackupError(GatehouseError):
    """A backup that can't be made or put back; nothing was changed."""


def files_of(name: str, root: Path = ROOT) -> dict[str, Path]:
    """The files that make a site, by their name in its backup: what `init` wrote, and what came since."""
    inventories = root / "inventories"
    return {
        "inventory": inventories / name,
        "group_data.py": inventories / "group_data" / f"{name}.py",
        "devices.toml": inventories / "devices" / f"{name}.toml",
        "known_hosts": inventories / "known_hosts" / name,
    }


def make(site: Site, file: Path) -> Backup:
    """Writes the backup of a site over an earlier one of the same site, and reads it back. Raises `BackupError`."""
    identities = read_identities([vaults.identity_path(site)])
    vault = vaults.open_vault(site)
    if file.exists():
        earlier = _read(file, identities)
        if earlier.site != site.name:
            raise BackupError(f"{file}: is a backup of site '{earlier.site}' (choose another file)")
    paths = {**files_of(site.name), "devices.toml": vaults.registry_path(site)}
    paths |= {"known_hosts": known_hosts(site), VAULT: vaults.vault_path(site)}
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    try:
        made = Backup(site.name, now, {name: path.read_bytes() for name, path in paths.items() if path.is_file()})
        write_private(file, pack(made, vault.recipients))
    except OSError as error:
        raise BackupError(f"{error.filename or file}: {error.strerror} (no backup was made)") from None
    if _read(file, identities) != made:
        raise BackupError(f"{file}: reads back as something else than was written (choose another medium)")
    return made


def restore(name: str, file: Path, replace: bool = False, root: Path = ROOT) -> Iterator[str]:
    """Puts a site's files back, says of each what became of it. Raises `BackupError`, `VaultError`.

    Only the vault is ever replaced, when that is agreed to, and the one that was there is kept beside it. The other
    files are written where they are missing: a checkout that has them has newer ones.
    """
    site = load(name, root) if (root / "inventories" / name).is_file() else None
    path, identity = (
        (vaults.vault_path(site), vaults.identity_path(site))
        if site
        else (vaults.vault_of(name), vaults.identity_of(name))
    )
    backup = _read(file, read_identities([identity]))
    if backup.site != name:
        raise BackupError(f"{file}: is a backup of site '{backup.site}' (restore it with --site {backup.site})")
    if VAULT not in backup.files:
        raise BackupError(f"{file}: holds no vault (take another copy of it)")
    if not replace and path.exists() and path.read_bytes() != backup.files[VAULT]:
        raise BackupError(f"{path}: there is another vault already (--yes replaces it, and keeps it beside)")
    for part, target in files_of(name, root).items():
        if part not in backup.files:
            continue
        if target.exists():
            same = target.read_bytes() == backup.files[part]
            yield f"{_shown(target, root)}: {'there already' if same else 'left as it is here, the backup has another'}"
            continue
        _write(target, backup.files[part])
        yield f"{_shown(target, root)}: restored"
    vault = Vault.restore(path, backup.files[VAULT], [identity], overwrite=replace)
    yield f"{_shown(path, root)}: restored as of {backup.made:%Y-%m-%d %H:%M} UTC, {len(vault.names())} entries"
    yield from _revoke_again(load(name, root))


def _revoke_again(site: Site) -> Iterator[str]:
    """What was revoked after the backup was made stays revoked: the registry knows."""
    serials = [int(serial, 16) for device in site.devices if device.status == "revoked" for serial in device.serials]
    if not serials:
        return
    pki = vaults.open_pki(site)
    if missing := [serial for serial in serials if serial not in pki.revoked()]:
        pki.revoke_all(missing)
        yield f"{len(missing)} certificates of devices that the registry has as revoked: revoked again"


def _read(file: Path, secret_keys: list[str]) -> Backup:
    try:
        return unpack(str(file), file.read_bytes(), secret_keys)
    except OSError as error:
        raise BackupError(f"{file}: {error.strerror} (name the backup's file)") from None


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_private(path, content, 0o644)
    except OSError as error:
        raise BackupError(f"{path}: {error.strerror} (free some space, or mend owner and mode)") from None


def _shown(path: Path, root: Path) -> str:
    return str(path.relative_to(root) if path.is_relative_to(root) else path)
