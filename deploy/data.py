"""What devices reported: a backup of a gateway's database, the way back from one, and the erasure of a device's data.

A backup travels from the gateway through this machine's memory into the file, encrypted to the vault's recipients on
the way: it is in the clear on neither this disk nor the wire.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy import backupnotes, vaults
from deploy.remote import Remote, RemoteError, connected
from gatehouse.errors import GatehouseError
from gatehouse.identity import age, read_identities
from gatehouse.identity.files import sync_directory
from gatehouse.site import Site
from roles.grafana import files as grafana
from roles.influxdb.deploy import STEWARD
from roles.target import Target

_DEVICE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_RUN = f"[ -e {STEWARD}/__main__.py ] || {{ echo 'there is no database on it (deploy it first)' >&2; exit 1; }};"
_RUN += f" exec python3 -B {STEWARD}"


class DataError(GatehouseError):
    """A database that can't be backed up, restored or erased from; says what became of it."""


@dataclass
class _Counted:
    """A stream of bytes that is counted, and summed up (SHA-256), as it passes."""

    stream: Any
    size: int = 0

    def __post_init__(self) -> None:
        self.digest = hashlib.sha256()

    def _passed(self, data: bytes) -> bytes:
        self.size += len(data)
        self.digest.update(data)
        return data

    def read(self, size: int = -1) -> bytes:
        """Some of what the stream holds."""
        return self._passed(self.stream.read(size))

    def write(self, data: bytes) -> int:
        """Hands on what is written, to nobody where there is no stream."""
        self._passed(bytes(data))
        if self.stream is not None:
            self.stream(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""


def one_gateway(site: Site, name: str) -> str:
    """The gateway that is meant: the only one where none is named. Raises `DataError`."""
    if not name and len(site.gateways) == 1:
        return next(iter(site.gateways))
    if name not in site.gateways:
        asked = f"no gateway '{name}'" if name else "several gateways"
        raise DataError(f"{site.name}: {asked} (name one with --gateway: {', '.join(site.gateways)})")
    return name


def backup(site: Site, gateway: str, file: Path) -> str:
    """Writes a gateway's database into a file, over an earlier backup, and reads it back; it is noted for the proof.

    Raises `DataError`, `BackupNoteError`.
    """
    identities = read_identities([vaults.identity_path(site)])
    recipients = vaults.open_vault(site).recipients
    if file.exists() and not _is_backup(file):
        raise DataError(f"{file}: is there already and is no backup (choose another file)")
    beside = file.with_name(f".{file.name}.new")
    try:
        beside.unlink(missing_ok=True)
        with (
            connected(site, gateway) as remote,
            open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out,
            remote.reading(f"{_RUN} backup") as stream,
        ):
            sent, kept = _Counted(stream), _Counted(out.write)
            age.encrypt_stream(sent, kept, recipients)
            out.flush()
            os.fsync(out.fileno())
        back = _Counted(None)
        with beside.open("rb") as written:
            age.decrypt_stream(written, back, identities)
        if back.digest.digest() != sent.digest.digest():
            raise DataError(f"{file}: reads back as something else than was written (choose another medium)")
        os.replace(beside, file)
        sync_directory(file.parent)
    except OSError as error:
        raise DataError(f"{error.filename or file}: {error.strerror} (no backup was made)") from None
    except (age.Damaged, age.WrongIdentity):
        raise DataError(f"{file}: can't be read back (choose another medium; no backup was made)") from None
    finally:
        beside.unlink(missing_ok=True)
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    backupnotes.write(site, gateway, backupnotes.Note(now, str(file.resolve()), kept.size, kept.digest.hexdigest()))
    return f"{file}: the database of {gateway}, {sent.size / 1e6:.1f} MB; opens with an identity that opens the vault"


def _is_backup(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(len(age.HEADER)) == age.HEADER


def restore(site: Site, gateway: str, file: Path, replace: bool) -> str:
    """Puts a database back on a gateway, whole or not at all. Raises `DataError`.

    `replace` agrees to lose what is stored there now. The file is read once before anything is touched.
    """
    identities = read_identities([vaults.identity_path(site)])
    try:
        with file.open("rb") as stream:
            whole = _Counted(None)
            age.decrypt_stream(stream, whole, identities)
        with connected(site, gateway) as remote:
            stored = remote.run(f"{_RUN} devices").split()
            if stored and not replace:
                raise DataError(
                    f"{gateway}: its database holds {len(stored)} devices' data (--yes replaces it by the backup's)"
                )
            with file.open("rb") as stream, remote.writing(f"{_RUN} restore") as (send, answer):
                age.decrypt_stream(stream, _Counted(send), identities)
                found = answer().split()
            # With InfluxDB 2 every consumer has another token now, and Grafana reads its own when it starts.
            pki = vaults.open_pki(site)
            try:
                remote.run(*grafana.follow(Target(site, gateway, lambda: pki)))
            except RemoteError as error:
                raise DataError(f"{error}: the database is restored, the dashboards are not started (harden)") from None
    except OSError as error:
        raise DataError(f"{error.filename or file}: {error.strerror or error} (nothing was restored)") from None
    except age.WrongIdentity:
        raise DataError(f"{file}: this site's identity does not open it (name the site that it is of)") from None
    except age.Damaged:
        raise DataError(f"{file}: is no backup, or damaged (take another copy; nothing was restored)") from None
    made = datetime.datetime.fromtimestamp(file.stat().st_mtime, datetime.UTC)
    return f"{gateway}: database restored from {file.name} of {made:%Y-%m-%d %H:%M} UTC, {len(found)} devices"


def erase(site: Site, device: str) -> Iterator[str]:
    """Deletes what a device reported from the database of every gateway, and asks for it again. Raises `DataError`."""
    if not _DEVICE.fullmatch(device):
        raise DataError(f"{device[:64]!r}: is no device's name (a to z, 0 to 9 and '-')")
    for gateway in site.gateways:
        with connected(site, gateway) as remote:
            before, after = _erased(remote, device)
        if after:
            raise DataError(f"{gateway}: {after} points of {device} are still found (is it sending? revoke it first)")
        yield f"{gateway}: {before} points of {device} deleted; a query finds none any more"
    if any(known.name == device and known.status == "active" for known in site.devices):
        yield f"{device} is active: what it sends from now on is stored (`revoke` it, or take it away)"
    yield "Backups made before hold the data still: make a new one, and destroy those."


def _erased(remote: Remote, device: str) -> tuple[int, int]:
    words = remote.run(f"{_RUN} erase {device}").split()
    try:
        before, after = map(int, words)
    except ValueError:
        raise RemoteError(f"{remote.gateway}: its database said {' '.join(words)[:80]!r}") from None
    return before, after
