"""Signed runs: a line a run in `chain.jsonl`, with the SHA-256 of each of its files and of the line before it.

Each line is signed with the site's Ed25519 key (RFC 8032) over all that stands in it. What it shows: nobody without the
key has changed, taken away or slipped in a run before the last line. That the last lines are all there, it can't show:
who noted the digest of the last line (`head`) can.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from gatehouse.errors import GatehouseError
from gatehouse.identity.files import locked, write_private
from gatehouse.proof import results

CHAIN = "chain.jsonl"
LARGEST = 64 * 2**20  # bytes of a chain: more than a hundred thousand runs
_PURPOSE = b"gatehouse report\n"
_FOLDER = re.compile(r"(\d{4}-\d\d-\d\dT\d{6}Z)(?:-(\d{1,2}))?")


class SealError(GatehouseError):
    """Reports that can't be signed or verified."""


@dataclass(frozen=True)
class Link:
    """A signed run: its folder's name, its files' SHA-256 by name, that of the line before it (empty in the first)."""

    number: int
    site: str
    run: str
    files: dict[str, str]
    previous: str
    signed: str
    """When, UTC, ISO 8601."""
    signature: str
    """Base64."""

    @property
    def line(self) -> bytes:
        """The link as it stands in the chain, without the line's end."""
        return _canonical(asdict(self))

    @property
    def digest(self) -> str:
        """SHA-256 of the line, hexadecimal: what the next one names."""
        return sha256(self.line).hexdigest()

    @property
    def message(self) -> bytes:
        """What the signature is over."""
        return _PURPOSE + _canonical({key: value for key, value in asdict(self).items() if key != "signature"})


@dataclass(frozen=True)
class Verified:
    """What was found: how many runs are signed and here, how many too old to be kept; what is wrong, a line each."""

    present: int
    forgotten: int
    head: str
    problems: tuple[str, ...]


def seal(base: Path, site: str, key: Ed25519PrivateKey, now: datetime | None = None) -> list[Link]:
    """Signs the whole runs below `base` (reports/SITE) that the chain doesn't have yet; returns their links.

    Nothing is written where the chain isn't whole or a run isn't the site's. Raises `SealError`, `ResultsError`.
    """
    moment = (now or datetime.now(UTC)).isoformat(timespec="seconds")
    if not base.is_dir():
        raise SealError(f"{base}: no reports (./kit verify makes one)")
    try:
        with locked(base / CHAIN):
            links, problems = _chain(base, site, key.public_key())
            if problems:
                raise SealError(f"{problems[0]} (nothing was signed)")
            new: list[Link] = []
            known = {link.run for link in links}
            for folder in _folders(base):
                if folder.name not in known and (folder / results.RESULTS).is_file():
                    last = (links + new)[-1:]
                    new.append(_link(folder, site, key, len(links) + len(new) + 1, last, moment))
            if new:
                write_private(base / CHAIN, b"".join(link.line + b"\n" for link in links + new))
    except OSError as error:
        raise SealError(f"{error.filename or base}: {error.strerror} (nothing was signed)") from None
    return new


def verify(base: Path, site: str, key: Ed25519PublicKey, head: str = "") -> Verified:
    """Compares the runs below `base` with the chain, and the chain with the key; with `head`, also that it is there.

    Raises `SealError` where there is no chain.
    """
    if not (base / CHAIN).exists():
        raise SealError(f"{base / CHAIN}: no signed report is here (./kit report.sign --site {site} signs them)")
    try:
        links, problems = _chain(base, site, key)
        whole = not problems
        if head and not any(link.digest == head for link in links):
            problems.append(f"{base / CHAIN}: {head[:64]!r} is no line of it: lines were cut off, or it is no digest")
        folders = {folder.name: folder for folder in _folders(base)}
        unsigned = [name for name in folders if name not in {link.run for link in links}]
        present = forgotten = 0
        for position, link in enumerate(links, 1):
            if link.run in folders:
                present += 1
                problems += _differences(folders[link.run], link)
            elif len(links) - position + len(unsigned) >= results.KEPT:
                forgotten += 1
            else:
                problems.append(f"{base / link.run}: is gone (the newest {results.KEPT} runs are kept)")
        if whole:  # of a chain that isn't, nobody knows what else was signed
            problems += [problem for name in unsigned for problem in _unsigned(folders[name], site)]
            problems += _latest(base / results.LATEST, links[-1].run, unsigned)
    except OSError as error:
        raise SealError(f"{error.filename or base}: {error.strerror} (mend its owner and mode)") from None
    return Verified(present, forgotten, links[-1].digest if links else "", tuple(problems))


def _chain(base: Path, site: str, key: Ed25519PublicKey) -> tuple[list[Link], list[str]]:
    """The links up to the first that is wrong, and what is wrong with it."""
    path, links = base / CHAIN, list[Link]()
    if not path.exists():
        return links, []
    if path.is_symlink() or path.stat().st_size > LARGEST:
        return links, [f"{path}: is no chain of this kit's"]
    content = path.read_bytes()
    if not content:
        return links, [f"{path}: is empty"]
    for number, line in enumerate(content.removesuffix(b"\n").split(b"\n"), 1):
        link = _parsed(line)
        if link is None:
            return links, [f"{path}:{number}: is no whole line (cut off, or changed)"]
        if problem := _wrong(link, site, key, links):
            return links, [f"{path}:{number}: run {link.run[:40]!r}: {problem}"]
        links.append(link)
    return links, [] if content.endswith(b"\n") else [f"{path}: its last line is cut off"]


def _parsed(line: bytes) -> Link | None:
    try:
        fields = json.loads(line)
        link = Link(**fields)
        texts = (link.site, link.run, link.previous, link.signed, link.signature, *link.files, *link.files.values())
        good = type(link.number) is int and all(isinstance(text, str) for text in texts) and link.line == line
        return link if good else None
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None


def _wrong(link: Link, site: str, key: Ed25519PublicKey, before: Sequence[Link]) -> str | None:
    try:
        key.verify(base64.b64decode(link.signature, validate=True), link.message)
    except (InvalidSignature, binascii.Error):
        return "not signed by this site's key: it was changed, or is another site's"
    if link.site != site:
        return f"is of site {link.site!r}"
    if link.number != len(before) + 1 or link.previous != (before[-1].digest if before else ""):
        return "doesn't follow what stands before it: lines were taken away, put in or moved"
    if any(link.run == other.run for other in before):
        return "was signed before"
    return None


def _link(folder: Path, site: str, key: Ed25519PrivateKey, number: int, before: Sequence[Link], moment: str) -> Link:
    run = results.read(folder / results.RESULTS)
    if run.site != site:
        raise SealError(f"{folder / results.RESULTS}: is of site {run.site!r}, not {site!r} (nothing was signed)")
    previous = before[0].digest if before else ""
    files, strange = _digests(folder)
    if strange:
        raise SealError(f"{folder / strange[0]}: is no file of a report (take it away; nothing was signed)")
    bare = Link(number, site, folder.name, files, previous, moment, "")
    signature = base64.b64encode(key.sign(bare.message)).decode()
    return Link(number, site, folder.name, files, previous, moment, signature)


def _folders(base: Path) -> list[Path]:
    """The runs' folders, the oldest first: their names are times."""
    found: list[tuple[str, int, Path]] = []
    for path in base.iterdir():
        named = _FOLDER.fullmatch(path.name)
        if named and path.is_dir() and not path.is_symlink():
            found.append((named[1], int(named[2] or 1), path))
    return [path for _, _, path in sorted(found)]


def _digests(folder: Path) -> tuple[dict[str, str], list[str]]:
    """SHA-256 of each file by name, and the names of what is no plain file."""
    files: dict[str, str] = {}
    strange: list[str] = []
    for path in sorted(folder.iterdir()):
        if path.is_symlink() or not path.is_file():
            strange.append(path.name)
            continue
        with path.open("rb") as file:
            files[path.name] = file_digest(file, "sha256").hexdigest()
    return files, strange


def _differences(folder: Path, link: Link) -> list[str]:
    files, strange = _digests(folder)
    found = [f"{folder / name}: is gone" for name in link.files if name not in files and name not in strange]
    found += [f"{folder / name}: was added after the run was signed" for name in files if name not in link.files]
    found += [f"{folder / name}: is no file of a report" for name in strange]
    changed = (name for name, digest in files.items() if link.files.get(name, digest) != digest)
    return found + [f"{folder / name}: was changed after the run was signed" for name in changed]


def _unsigned(folder: Path, site: str) -> list[str]:
    if (folder / results.RESULTS).is_file():
        return [f"{folder}: is not signed (./kit report.sign --site {site})"]
    return [f"{folder}: is no whole run, and not signed (take it away)"] if any(folder.iterdir()) else []


def _latest(link: Path, run: str, unsigned: Sequence[str]) -> list[str]:
    """`latest` must lead to the last run, or an old success could be shown for a new failure."""
    leads = str(link.readlink()) if link.is_symlink() else "a copy" if link.exists() else "nothing"
    if leads == run or leads in unsigned:  # of the unsigned ones it is said that they are
        return []
    return [f"{link}: leads to {leads[:80]!r}, the last run that was signed is {run}"]


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
