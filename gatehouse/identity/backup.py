"""A site's backup: one age file around a tar, so that `age --decrypt … | tar x` alone can rescue it.

The tar holds plain files in a folder named like the site. Whoever can open the vault can open the backup, nobody else.
"""

from __future__ import annotations

import datetime
import io
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from gatehouse.identity import age
from gatehouse.identity.store import VaultError


@dataclass(frozen=True)
class Backup:
    """What a backup holds: the site's name, when it was made (UTC), and files by their name in it."""

    site: str
    made: datetime.datetime
    files: Mapping[str, bytes] = field(repr=False)


def pack(backup: Backup, recipients: Sequence[str]) -> bytes:
    """Return a backup as one age file for the recipients (`age1…`)."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in sorted(backup.files.items()):
            member = tarfile.TarInfo(f"{backup.site}/{name}")
            member.size, member.mode, member.mtime = len(content), 0o600, int(backup.made.timestamp())
            tar.addfile(member, io.BytesIO(content))
    return age.encrypt(plain.getvalue(), recipients)


def unpack(where: str, sealed: bytes, secret_keys: Sequence[str]) -> Backup:
    """Return the backup that `pack` made; `where` is for its error, `VaultError`."""
    try:
        plain = age.decrypt(sealed, secret_keys)
    except age.WrongIdentity:
        mine = ", ".join(str(age.recipient_of(key)) for key in secret_keys)
        raise VaultError(f"{where}: this identity can't open it ({mine}); use one that could open the vault") from None
    except age.Damaged:
        raise VaultError(f"{where}: damaged, or no backup of a site; take another copy of it") from None
    try:
        with tarfile.open(fileobj=io.BytesIO(plain), mode="r:") as tar:
            members = tar.getmembers()
            files = {PurePosixPath(member.name): _content(tar, member) for member in members}
            made = datetime.datetime.fromtimestamp(max(member.mtime for member in members), datetime.UTC)
    except (tarfile.TarError, ValueError, OverflowError, OSError):
        raise VaultError(f"{where}: opened, but holds no backup of a site; take another copy of it") from None
    sites = {path.parts[0] for path in files if len(path.parts) == 2}
    if len(sites) != 1 or any(len(path.parts) != 2 for path in files):
        raise VaultError(f"{where}: opened, but holds no backup of one site; take another copy of it")
    return Backup(sites.pop(), made, {path.name: content for path, content in files.items()})


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member) if member.isreg() else None
    if file is None:
        raise ValueError("no plain file")
    return file.read()
