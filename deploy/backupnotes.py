"""What this machine remembers of the last backup of each gateway's database, for the proof to judge; no secrets."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from deploy.inventory import state_of
from gatehouse.errors import GatehouseError
from gatehouse.identity.files import write_private
from gatehouse.site import Site


class BackupNoteError(GatehouseError):
    """A note that can't be written, or read."""


@dataclass(frozen=True)
class Note:
    """A backup that was made: when (UTC), into which file, and the file's size in bytes and SHA-256 (hex)."""

    made: datetime
    file: str
    size: int
    sha256: str

    def wrong(self, now: datetime, days: int) -> str:
        """Why this is no backup to rely on; empty where it is. A file that is not at hand is somewhere else."""
        age = now - self.made
        if age > timedelta(days=days):
            return f"the last backup is {age.days} days old, at most {days} (./kit data.backup)"
        path = Path(self.file)
        if path.is_file() and path.stat().st_size != self.size:
            return f"{path}: {path.stat().st_size} bytes, {self.size} were written (make another: ./kit data.backup)"
        return ""


def write(site: Site, gateway: str, note: Note) -> None:
    """Remembers it, and forgets the one before. Raises `BackupNoteError`."""
    path = _path(site, gateway)
    content = {**asdict(note), "made": note.made.isoformat(timespec="seconds")}
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(path, (json.dumps(content, indent=1) + "\n").encode())
    except OSError as error:
        raise BackupNoteError(
            f"{path}: {error.strerror} (the backup is made; make room here and make it again, or the proof misses it)"
        ) from None


def last(site: Site, gateway: str) -> Note | None:
    """The last one that was made from this machine; None for none. Raises `BackupNoteError`."""
    path = _path(site, gateway)
    try:
        found = json.loads(path.read_text())
        made = datetime.fromisoformat(found["made"])
        return Note(made.astimezone(UTC), str(found["file"]), int(found["size"]), str(found["sha256"]))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BackupNoteError(f"{path}: {error.strerror} (mend its owner and mode)") from None
    except (ValueError, KeyError, TypeError):
        raise BackupNoteError(
            f"{path}: is no note of a backup (remove it, and make a backup: ./kit data.backup)"
        ) from None


def _path(site: Site, gateway: str) -> Path:
    return state_of(site) / f"backup-{gateway}.json"
