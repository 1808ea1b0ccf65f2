"""An incident's evidence: one age file around a tar, with a manifest; readable with age, tar and sha256sum alone.

The tar holds plain files in a folder named like the incident. `SHA256SUMS` is what `sha256sum -c` reads,
`MANIFEST.json` says of each file besides how and when it was obtained. Whoever can open the vault can open it, nobody
else.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gatehouse.errors import GatehouseError
from gatehouse.identity.backup import Backup, pack, unpack

MANIFEST, SUMS, TIMELINE = "MANIFEST.json", "SHA256SUMS", "timeline.txt"
LARGEST_TIMELINE = 5000
"""Lines; the newest stay. The journal itself is in the archive."""
PLAYBOOK = "A rogue device"
_STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:[.,](\d{1,6}))?([+-]\d\d:?\d\d|Z)\s+(.*)")


class IncidentError(GatehouseError):
    """Evidence that can't be collected, kept or read."""


@dataclass(frozen=True)
class Piece:
    """One piece of evidence: its file's name, content, how it was obtained (a command), and when (UTC)."""

    name: str
    content: bytes = field(repr=False)
    how: str
    when: datetime.datetime


@dataclass(frozen=True)
class Opened:
    """What an archive holds: its name, its files, its manifest, and what of it is not as the manifest says."""

    name: str
    files: Mapping[str, bytes] = field(repr=False)
    manifest: dict[str, Any]
    problems: tuple[str, ...]


def sealed(
    name: str, about: Mapping[str, Any], pieces: Sequence[Piece], made: datetime.datetime, recipients: Sequence[str]
) -> bytes:
    """The archive, for the recipients (`age1…`). `about` is what the manifest begins with."""
    files = {piece.name: piece.content for piece in pieces}
    if len(files) != len(pieces) or files.keys() & {MANIFEST, SUMS}:
        raise IncidentError(f"{name}: two pieces of evidence of one name (report this)")
    listed = [
        {
            "file": piece.name,
            "sha256": _digest(piece.content),
            "bytes": len(piece.content),
            "how": piece.how,
            "when": piece.when.isoformat(timespec="milliseconds"),
        }
        for piece in pieces
    ]
    manifest = {**about, "made": made.isoformat(timespec="seconds"), "files": listed}
    files[MANIFEST] = (json.dumps(manifest, indent=1) + "\n").encode()
    files[SUMS] = "".join(f"{_digest(content)}  {each}\n" for each, content in sorted(files.items())).encode()
    return pack(Backup(name, made, files), recipients)


def opened(where: str, raw: bytes, secret_keys: Sequence[str]) -> Opened:
    """What `sealed` made, compared with its own manifest. Raises `IncidentError`, and `VaultError` for another file."""
    found = unpack(where, raw, secret_keys)
    try:
        manifest = json.loads(found.files[MANIFEST])
        rows = [line.split("  ", 1) for line in found.files[SUMS].decode().splitlines()]
        sums: dict[str, str] = {name: digest for digest, name in rows}
        listed: dict[str, str] = {each["file"]: each["sha256"] for each in manifest["files"]}
    except (KeyError, ValueError, TypeError):
        raise IncidentError(f"{where}: opened, but holds no evidence of an incident (name another file)") from None
    problems = []
    for name, content in sorted(found.files.items()):
        told = {sums.get(name), listed.get(name, sums.get(name))} if name != SUMS else {_digest(content)}
        if told != {_digest(content)}:
            problems.append(f"{name}: is not what the manifest says")
    problems += [f"{name}: missing" for name in sorted((sums.keys() | listed.keys()) - found.files.keys())]
    return Opened(found.site, found.files, manifest, tuple(problems))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def timeline(logs: Iterable[str], marks: Iterable[str], own: Iterable[tuple[datetime.datetime, str]]) -> list[str]:
    """What is known of a device, in the order of time (UTC): the log's lines that name it, and moments of our own.

    `logs` are lines that begin with a moment (ISO 8601 with an offset, as `journalctl -o short-iso-precise` writes it);
    `marks` the names and addresses that mean the device.
    """
    # A name or an address itself, and not a part of another one.
    pattern = re.compile("|".join(rf"(?<![\w.:-]){re.escape(mark)}(?![\w-])" for mark in marks if mark), re.IGNORECASE)
    found = list(own)
    for line in logs if pattern.pattern else ():
        parts = _STAMP.match(line)
        if parts and pattern.search(parts[4]):
            moment, fraction, offset, text = parts.groups()
            offset = "+00:00" if offset == "Z" else offset if ":" in offset else f"{offset[:3]}:{offset[3:]}"
            try:
                when = datetime.datetime.fromisoformat(f"{moment}.{(fraction or '0').ljust(6, '0')}{offset}")
            except ValueError:
                continue
            found.append((when.astimezone(datetime.UTC), text[:300]))
    found.sort(key=lambda entry: entry[0])
    return [f"{when.isoformat(timespec='milliseconds')}  {what}" for when, what in found[-LARGEST_TIMELINE:]]


def next_steps(playbooks: str, site: str, device: str) -> list[str]:
    """The playbook's commands for a rogue device, for this one; `playbooks` is docs/playbooks.md."""
    chapter = playbooks.partition(f"\n## {PLAYBOOK}\n")[2].partition("\n## ")[0]
    lines = [line for block in re.findall(r"```sh\n(.*?)```", chapter, re.DOTALL) for line in block.splitlines()]
    ours = [line for line in lines if " quarantine " not in line and " incident" not in line]
    return [re.sub(r"--site home\b", f"--site {site}", line.replace("kitchen-01", device)) for line in ours]
