"""Downloaded feeds of vulnerabilities, judged before anybody is told what they say.

A feed that can't be read, or that names no vulnerability at all, would make everything look well.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from gatehouse.proof.vulnerabilities import FeedError

LARGEST = 512 * 1024 * 1024  # bytes, unpacked: Debian's feed has about 30 million
Entries = Mapping[str, Sequence[Mapping[str, Any]]]


def judge_debian(data: bytes) -> None:
    """A feed of Debian's security tracker, as debsecan downloads it: zlib, `VERSION 1`. Raises `FeedError`."""
    unpacking = zlib.decompressobj()
    try:
        text = unpacking.decompress(data, LARGEST)
        unpacked = unpacking.eof
        lines = text.decode().splitlines()
    except (zlib.error, UnicodeDecodeError):
        unpacked, lines = False, []
    if not unpacked or lines[:1] != ["VERSION 1"]:
        raise FeedError("is no feed of Debian's security tracker, or not all of one (download it again)")
    if len(lines) < 2 or not lines[1]:
        raise FeedError("names no vulnerability at all (download it again)")


def osv_entries(data: bytes) -> Entries:
    """The vulnerabilities of an archive such as OSV publishes for PyPI (`all.zip`), by package. Raises `FeedError`."""
    found: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > LARGEST:
                raise FeedError("is larger than such an archive gets (download it again)")
            for entry in archive.infolist():
                if not entry.filename.endswith(".json"):
                    continue
                vulnerability = json.loads(archive.read(entry))
                of_pypi = [each["package"] for each in vulnerability.get("affected", ()) if _of_pypi(each)]
                for package in of_pypi:
                    package["name"] = canonicalize_name(package["name"])  # pip-audit overlooks others' fixes
                for name in {package["name"] for package in of_pypi}:
                    found[name].append(vulnerability)
    except (zipfile.BadZipFile, zlib.error, ValueError, KeyError, TypeError, AttributeError, RuntimeError):
        raise FeedError("is no archive of OSV's entries for PyPI (download all.zip of PyPI again)") from None
    if not found:
        raise FeedError("names no vulnerability of PyPI's at all (download all.zip of PyPI again)")
    return found


def osv_answer(entries: Entries, question: Mapping[str, Any]) -> dict[str, Any]:
    """What OSV's `POST /v1/query` answers for a package and its version. Raises `KeyError`, `InvalidVersion`."""
    name, version = canonicalize_name(question["package"]["name"]), Version(question["version"])
    found = [v for v in entries.get(name, ()) if any(_affects(a, name, version) for a in v["affected"])]
    return {"vulns": found} if found else {}


def _of_pypi(affected: Mapping[str, Any]) -> bool:
    return bool(affected["package"]["ecosystem"] == "PyPI")


def _affects(affected: Mapping[str, Any], name: str, version: Version) -> bool:
    """Whether a version is listed, or in one of the ranges (OSV schema 1.7, "Evaluation")."""
    if not _of_pypi(affected) or affected["package"]["name"] != name:
        return False
    if any(_same(listed, version) for listed in affected.get("versions", ())):
        return True
    return any(_within(r["events"], version) for r in affected.get("ranges", ()) if r["type"] == "ECOSYSTEM")


def _same(listed: str, version: Version) -> bool:
    return _version(listed) == version


def _version(text: str) -> Version | None:
    try:
        return Version("0.dev0" if text == "0" else text)
    except InvalidVersion:
        return None


def _within(events: Sequence[Mapping[str, str]], version: Version) -> bool:
    """An end that is no version by PEP 440 ends nothing."""
    inside = False
    steps = [(_version(at), kind) for event in events for kind, at in event.items()]
    for at, kind in sorted((at, kind) for at, kind in steps if at is not None):
        if kind == "introduced" and version >= at:
            inside = True
        elif (kind == "fixed" and version >= at) or (kind == "last_affected" and version > at):
            inside = False
    return inside
