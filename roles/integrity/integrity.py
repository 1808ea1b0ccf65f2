#!/usr/bin/python3
"""Runs on the gateway, every night: has AIDE look, and judges what it finds by who has brought it.

    integrity SETTINGS            looks; the status (a file in SETTINGS' folder) is replaced by what was found
    integrity --check SETTINGS    says whether these are settings

A difference is explained where a package brought the file, with the digest that it came with, or took it away; where
the kit put it there, which `drift` compares; and where it is a link to one of these. A mode, an owner or a privilege
that changes is explained by no package. Without findings the new database takes the place of the old one; with findings
it does not, so that they are found again until they are gone, or until the file `accept` in the folder holds the digest
of these very findings. The exit status is 0 where it could do its work, whatever it found; 1 where it could not.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote

MOST = 100  # findings that are named; the others are counted
READ_SEARCH = 1 << 2  # capabilities(7): CAP_DAC_READ_SEARCH
FAILED = 8  # aide(1), DIAGNOSTICS: below it a status says what differs
PRIVILEGES = ("perm", "uid", "gid", "acl", "capabilities", "ftype")
WORDS = {"perm": "mode", "uid": "owner", "gid": "group", "sha256": "content", "lname": "target", "ftype": "kind"}
# Where a link makes something run, or stand for something else.
LINKS = re.compile(r"/etc/(alternatives/|rc[0-9S]\.d/|systemd/(system|user)/|apparmor\.d/disable/)")
MERGED = ("/bin/", "/sbin/", "/lib/", "/lib32/", "/lib64/", "/libx32/")  # are in /usr


class Unable(Exception):
    """Why it can't do its work."""


class Known:
    """Who has brought a file: packages, by what dpkg keeps below `root`, and the kit, by its list."""

    def __init__(self, declared: Path, dpkg: Path = Path("/var/lib/dpkg"), ucf: Path = Path("/var/lib/ucf")) -> None:
        self._dpkg, self._ucf = dpkg, ucf
        self._declared = set(json.loads(declared.read_text()))
        self._above = {str(parent) for path in self._declared for parent in Path(path).parents}

    def declares(self, path: str) -> bool:
        """Whether the kit puts it there, or something beneath it."""
        return path in self._declared or path in self._above

    def ships(self, path: str) -> bool:
        """Whether an installed package has a file of that name."""
        return path in self._shipped

    def has(self, path: str) -> bool:
        """Whether it is somebody's."""
        return self.ships(path) or self.declares(path)

    def digests(self, path: str) -> set[str]:
        """The MD5 sums that a package, or ucf for it, noted of a file: dpkg has no others."""
        return self._digests.get(path, set())

    @cached_property
    def _shipped(self) -> set[str]:
        lists = sorted((self._dpkg / "info").glob("*.list"))
        return {merged(line) for each in lists for line in each.read_text(errors="surrogateescape").splitlines()}

    @cached_property
    def _digests(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for digest, path in self._noted():
            found.setdefault(merged(path), set()).add(digest)
        return found

    def _noted(self) -> Iterator[tuple[str, str]]:
        for each in sorted((self._dpkg / "info").glob("*.md5sums")):
            for line in each.read_text(errors="surrogateescape").splitlines():
                digest, _, path = line.partition("  ")
                yield digest, f"/{path}"
        # Files of settings: ` /etc/x MD5`, perhaps with a word behind.
        for line in (self._dpkg / "status").read_text(errors="surrogateescape").splitlines():
            if line.startswith(" /") and len(row := line.split()) > 1:
                yield row[1], row[0]
        hashes = self._ucf / "hashfile"
        for line in hashes.read_text(errors="surrogateescape").splitlines() if hashes.exists() else ():
            digest, _, path = line.partition("  ")
            yield digest, path


def merged(path: str) -> str:
    """Packages may still say /bin for what lies in /usr/bin."""
    return f"/usr{path}" if path.startswith(MERGED) else path


def stands_out(path: str, status: os.stat_result) -> str:
    """What no package explains of a file that is new: privileges that it gives, or that others may write it."""
    if stat.S_ISLNK(status.st_mode):
        return ""
    if stat.S_ISREG(status.st_mode) and status.st_mode & (stat.S_ISUID | stat.S_ISGID):
        return "runs as its owner or group"
    if stat.S_ISREG(status.st_mode) and "security.capability" in os.listxattr(path):
        return "runs with capabilities"
    if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
        return "everybody may write it"
    return ""


def content_of_nobody(path: str, status: os.stat_result, known: Known) -> str:
    """Why nobody has brought what is there; empty where somebody has."""
    if known.declares(path):
        return ""
    if stat.S_ISLNK(status.st_mode):
        target = os.path.realpath(path)
        fits = known.ships(path) or LINKS.match(path) or os.readlink(path).startswith("/etc/alternatives/")
        return "" if fits and known.has(target) else f"a link of nobody to {os.readlink(path)}"
    if stat.S_ISDIR(status.st_mode):
        return "" if known.ships(path) else "a folder of nobody"
    if not stat.S_ISREG(status.st_mode):
        return "neither a file nor a folder"
    digests = known.digests(path)
    with open(path, "rb") as file:
        same = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() in digests
    if same:
        return ""
    return "not as its package brought it" if digests or known.ships(path) else "a file of nobody"


def of_nobody(path: str, known: Known) -> bool:
    """Whether nobody has brought what is there."""
    try:
        return bool(content_of_nobody(path, os.lstat(path), known))
    except OSError:
        return True


def judged(report: dict[str, Any], known: Known, strangers: set[str]) -> Iterator[dict[str, str]]:
    """The findings among AIDE's differences, in their order; `strangers` were nobody's and yet accepted before."""
    for path in sorted(report.get("added") or {}):
        try:
            status = os.lstat(path)
            how = "" if known.declares(path) else stands_out(path, status)
            how = how or content_of_nobody(path, status, known)
        except OSError as error:
            how = f"can't be read: {error.strerror}"
        if how:
            yield {"path": path, "what": "new", "how": how}
    for path in sorted(report.get("changed") or {}):
        details = (report.get("details") or {}).get(path, {})
        if how := changed(path, details, known):
            yield {"path": path, "what": "changed", "how": how}
    for path in sorted(report.get("removed") or {}):
        if known.ships(path) or path in strangers:
            how = "its package is still installed" if known.ships(path) else "was of nobody, and accepted"
            yield {"path": path, "what": "gone", "how": how}


def changed(path: str, details: dict[str, Any], known: Known) -> str:
    """What of a change nobody explains."""
    if known.declares(path):
        return ""
    if privileges := [name for name in PRIVILEGES if name in details]:
        return ", ".join(told(name, details[name]) for name in privileges)
    try:
        return content_of_nobody(path, os.lstat(path), known)
    except OSError as error:
        return f"can't be read: {error.strerror}"


def told(name: str, values: Any) -> str:
    """`mode -rwxr-xr-x, now -rwsr-xr-x`."""
    word = WORDS.get(name, name)
    if not isinstance(values, dict) or not all(isinstance(values.get(key), str) for key in ("old", "new")):
        return word
    return f"{word} {values['old']}, now {values['new']}"


def aide(rules: Path, action: str) -> dict[str, Any]:
    """Runs AIDE; its report. Raises `Unable`."""
    done = subprocess.run(
        ["aide", f"--config={rules}", f"--{action}"], capture_output=True, check=False, stdin=subprocess.DEVNULL
    )
    if done.returncode >= FAILED or done.returncode < 0:
        said = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit status {done.returncode}"]
        raise Unable(f"aide --{action}: {said[0][:200]}")
    try:
        return dict(json.loads(done.stdout.decode(errors="surrogateescape")))
    except ValueError as error:
        raise Unable(f"aide --{action}: no report ({error})") from None


def entries(database: Path) -> Iterator[str]:
    """The paths in a database (aide.conf(5), `gzip_dbout=no`)."""
    with database.open(errors="surrogateescape") as lines:
        for line in lines:
            if line.startswith("/"):
                yield unquote(line.split(" ", 1)[0], errors="surrogateescape")


def write(path: Path, text: str) -> None:
    """Replaces a file in one step."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(text)
    beside.chmod(0o640)
    beside.replace(path)


def digest_of(findings: list[dict[str, str]]) -> str:
    """What stands for exactly these findings."""
    return hashlib.sha256(json.dumps(findings, sort_keys=True).encode()).hexdigest()


class Folder:
    """The database, the rules that it was made by, who was nobody's when it was made, and the status."""

    def __init__(self, folder: Path, rules: Path) -> None:
        self.database, self.new = folder / "aide.db", folder / "aide.db.new"
        self.rules, self.own_rules = rules, folder / "aide.conf"
        self.strangers, self.status, self.wish = folder / "strangers.json", folder / "status.json", folder / "accept"
        self.lock = folder / "lock"

    def look(self, known: Known) -> dict[str, Any]:
        """Looks, and keeps the new database where nothing is left to be said. Raises `Unable`."""
        begun = time.monotonic()
        findings: list[dict[str, str]] = []
        accepted = 0
        self.new.unlink(missing_ok=True)
        if self.database.exists():
            report = aide(self.own_rules, "update")
            findings = list(judged(report, known, set(json.loads(self.strangers.read_text()))))
            wish = self.wish.read_text().strip() if self.wish.exists() else ""
            if findings and wish == digest_of(findings):
                accepted, findings = len(findings), []
        elif self.status.exists():
            raise Unable(f"{self.database} is gone (find out why; ./kit harden makes another)")
        self.wish.unlink(missing_ok=True)
        if findings:
            self.new.unlink(missing_ok=True)
        elif not self.database.exists() or self.rules.read_bytes() != self.own_rules.read_bytes():
            # What was found by the former rules is settled: from here on by these.
            write(self.own_rules, self.rules.read_text())
            aide(self.own_rules, "init")
        if not findings:
            self._keep(known)
        return {
            "when": time.time(),
            "seconds": round(time.monotonic() - begun, 1),
            "files": sum(1 for _ in entries(self.database)),
            "strangers": len(json.loads(self.strangers.read_text())),
            "rules": hashlib.sha256(self.rules.read_bytes()).hexdigest(),
            "accepted": accepted,
            "count": len(findings),
            "digest": digest_of(findings),
            "findings": findings[:MOST],
        }

    def _keep(self, known: Known) -> None:
        self.new.chmod(0o600)
        strangers = [path for path in entries(self.new) if not known.has(path) and of_nobody(path, known)]
        write(self.strangers, json.dumps(strangers) + "\n")
        self.new.replace(self.database)


def reads_everything(status: str) -> bool:
    """Whether the process of a proc(5) status may read what others may not: AIDE passes over what it can't read."""
    (effective,) = re.findall(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return bool(int(effective, 16) & READ_SEARCH)


def printable(text: str) -> str:
    """A name in a line of the log, whatever somebody has put into it."""
    return text.encode("unicode_escape", "surrogateescape").decode("ascii", "replace")


def main(arguments: list[str]) -> int:
    """Exit status: 0, 1 where it could not do its work, 2 for a wrong call."""
    only_check = arguments[:1] == ["--check"]
    if len(arguments) != 1 + only_check:
        print("usage: integrity [--check] SETTINGS", file=sys.stderr)
        return 2
    try:
        settings = {key: Path(value) for key, value in json.loads(Path(arguments[-1]).read_text()).items()}
        folder, declared = Folder(settings["folder"], settings["rules"]), settings["declared"]
        if only_check:
            return 0
        if not reads_everything(Path("/proc/self/status").read_text()):
            raise Unable("may not read every file, so it would miss changes (CAP_DAC_READ_SEARCH)")
        with folder.lock.open("w") as lock:
            # A second start waits for the first.
            fcntl.flock(lock, fcntl.LOCK_EX)
            found = folder.look(Known(declared))
            write(folder.status, json.dumps(found, indent=1) + "\n")
    except (Unable, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = str(error) if isinstance(error, Unable) else f"{type(error).__name__}: {error}"
        print(f"gatehouse-integrity: {why}", file=sys.stderr)
        return 1
    for each in found["findings"]:
        # sd-daemon(3): a warning
        print(f"<4>gatehouse-integrity: {each['what']}: {printable(each['path'])}: {printable(each['how'])}")
    if found["accepted"]:
        print(f"<5>gatehouse-integrity: accepted {found['accepted']} findings: what is there now is what shall be")
    print(f"gatehouse-integrity: {found['files']} files, {found['count']} findings, {found['seconds']} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
