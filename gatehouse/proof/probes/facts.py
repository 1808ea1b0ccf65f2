"""What the gateway itself tells: the output of programs, and every private key that lies on it."""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
import re
import stat
import subprocess
from collections.abc import Iterator

from gatehouse.proof.probes.reach import Probe, Result, patience

# A key in the programs' own trees came with a package and is everybody's; the others are no files on a disk.
SKIPPED = (
    "/proc",
    "/sys",
    "/dev",
    "/usr/share",
    "/usr/lib",
    "/usr/bin",
    "/usr/sbin",
    "/usr/include",
    "/var/lib/dpkg",
    "/var/cache",
)
LARGEST = 100_000  # bytes of a file that may hold a key

# DER: SEQUENCE, its length, and as its first element the version, 0 or 1, of PKCS #8, PKCS #1 or SEC 1 …
_DER = re.compile(rb"\x30(?:[\x00-\x7f]|\x81.|\x82..)\x02\x01[\x00\x01][\x02\x04\x30]", re.DOTALL)
# How private keys in files begin: what is searched for. None is here.
PRIVATE_KEY = re.compile(rb"-----BEGIN ([A-Z0-9 ]*PRIVATE KEY)-----|(AGE-SECRET-KEY-1)")


def run(probe: Probe) -> Result:
    """Runs the program `argv`, in English, for at most `timeout` seconds; what it printed, up to 200,000 characters."""
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C.UTF-8",
        "SYSTEMD_COLORS": "0",
        "SYSTEMD_PAGER": "",
    }
    try:
        done = subprocess.run(
            probe["argv"],
            capture_output=True,
            timeout=patience(probe, 30),
            env=environment,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"outcome": "incapable", "reason": str(error)}
    output = done.stdout[:200_000].decode("utf-8", "replace")
    said = done.stderr[:2_000].decode("utf-8", "replace")
    return {"outcome": "ran", "status": done.returncode, "output": output, "error": said}


def keys(probe: Probe) -> Result:
    """Finds every file below `root` with a private key: path, owner, group, mode, kind, SHA-256 of its public key.

    It may be in PEM or DER. The digest is of the DER SubjectPublicKeyInfo; None where openssl can't read the key
    (OpenSSH's own format).
    """
    found = []
    for path in _files(probe.get("root", "/")):
        try:
            with open(path, "rb") as file:
                content = file.read(LARGEST)
            if match := PRIVATE_KEY.search(content):
                kind, spki = (match[1] or match[2]).decode(), _spki(path, "PEM")
            elif _DER.match(content) and (digest := _spki(path, "DER")):
                kind, spki = "PRIVATE KEY (DER)", digest
            else:
                continue
            found.append({"path": path, **owned(path), "kind": kind, "spki": spki})
        except OSError:
            continue
    return {"outcome": "answered", "keys": sorted(found, key=lambda key: str(key["path"]))}


def owned(path: str) -> dict[str, str]:
    """Owner, group and octal mode of a file."""
    state = os.stat(path)
    try:
        owner, group = pwd.getpwuid(state.st_uid).pw_name, grp.getgrgid(state.st_gid).gr_name
    except KeyError:
        owner, group = str(state.st_uid), str(state.st_gid)
    return {"owner": owner, "group": group, "mode": f"{stat.S_IMODE(state.st_mode):04o}"}


def _files(root: str) -> Iterator[str]:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if os.path.join(folder, name) not in SKIPPED]
        for name in names:
            path = os.path.join(folder, name)
            try:
                state = os.lstat(path)
            except OSError:
                continue
            if stat.S_ISREG(state.st_mode) and 0 < state.st_size <= LARGEST:
                yield path


def _spki(path: str, form: str) -> str | None:
    done = subprocess.run(
        ["openssl", "pkey", "-inform", form, "-in", path, "-pubout", "-outform", "DER", "-passin", "pass:"],
        capture_output=True,
        timeout=10,
        check=False,
    )
    return hashlib.sha256(done.stdout).hexdigest() if done.returncode == 0 and done.stdout else None
