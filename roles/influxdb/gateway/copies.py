"""The whole database as one tar, and back. What goes over standard output and input is encrypted at the other end.

The unit stands still only while the small files are copied and the big ones get a second name: the engine replaces
those, and never writes into them. What is sent then, with the unit running again, is as it was at that moment.
"""

from __future__ import annotations

import gzip
import json
import os
import pwd
import secrets
import shutil
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path

from common import Settings, Trouble
from engines import engine
from private import STATE, UNIT

ABOUT, END = "gatehouse-backup.json", "gatehouse-end"
UNCHANGING = ".tsm"


def backup(settings: Settings) -> None:
    """Writes a tar: what made it, then everything below the database's folder."""
    _tidy()
    beside = STATE.with_name(f".{STATE.name}.{secrets.token_hex(4)}")
    try:
        subprocess.run(["systemctl", "stop", UNIT], check=True)
        try:
            shutil.copytree(STATE, beside, copy_function=_copy)
        finally:
            subprocess.run(["systemctl", "start", UNIT], check=True)
        beside.chmod(0o700)
        (beside / ABOUT).write_text(json.dumps({"engine": settings.engine, "database": settings.database}))
        # The engines make files longer than what is in them: the quickest compression takes care of that.
        with (
            gzip.GzipFile(fileobj=sys.stdout.buffer, mode="wb", compresslevel=1) as small,
            tarfile.open(fileobj=small, mode="w|", format=tarfile.PAX_FORMAT) as archive,
        ):
            archive.add(beside / ABOUT, ABOUT)
            for entry in sorted(beside.iterdir()):
                if entry.name != ABOUT:
                    archive.add(entry, entry.name)
            archive.addfile(tarfile.TarInfo(END))
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _tidy() -> None:
    """Takes away what a power cut left; a database that is not in its place may be one of them."""
    if STATE.exists():
        for left in STATE.parent.glob(f".{STATE.name}.*"):
            shutil.rmtree(left, ignore_errors=True)


def _copy(source: str, target: str) -> str:
    """A second name for what the engine never writes into, a copy of everything else."""
    if source.endswith(UNCHANGING):
        os.link(source, target)
    else:
        shutil.copyfile(source, target)
    return target


def restore(settings: Settings) -> None:
    """Puts a database back, whole or not at all; its accounts are then those of this gateway."""
    _tidy()
    beside, former = (STATE.with_name(f".{STATE.name}.{secrets.token_hex(4)}") for _ in range(2))
    try:
        beside.mkdir(mode=0o700)
        _unpack(settings, beside)
        subprocess.run(["systemctl", "stop", UNIT], check=True)
        try:
            if STATE.exists():
                STATE.rename(former)
            beside.rename(STATE)
            _start(settings)
        except BaseException:
            subprocess.run(["systemctl", "stop", UNIT], check=False)
            if former.exists():
                shutil.rmtree(STATE, ignore_errors=True)
                former.rename(STATE)
            subprocess.run(["systemctl", "start", UNIT], check=False)
            raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        shutil.rmtree(former, ignore_errors=True)
    print("\n".join(engine(settings).devices()))


def _start(settings: Settings) -> None:
    # a process of its own: it settles with the engine's files as they are now
    subprocess.run(["systemctl", "start", UNIT], check=True)
    done = subprocess.run([sys.executable, "-B", str(Path(__file__).parent), "settle"], check=False)
    if done.returncode:
        raise Trouble("the database did not come up on the backup; what was there before is back")


def _unpack(settings: Settings, folder: Path) -> None:
    """The tar's regular files and folders, owned by the database, nothing outside of the folder."""
    owner = pwd.getpwnam("influxdb")
    about: dict[str, str] = {}
    ended = False
    try:
        with tarfile.open(fileobj=sys.stdin.buffer, mode="r|gz") as archive:
            for member in archive:
                if ended := member.name == END:
                    break
                parts = Path(member.name).parts
                if member.name == ABOUT:
                    file = archive.extractfile(member)
                    about = json.loads(file.read(10_000)) if file else {}
                    if about.get("engine") != settings.engine:
                        raise Trouble(f"the backup is of {about.get('engine')}, this gateway runs {settings.engine}")
                    continue
                if not about or ".." in parts or member.name.startswith("/") or not (member.isdir() or member.isreg()):
                    raise Trouble("that is no backup of a database (give the file that `data.backup` wrote)")
                target = folder / member.name
                if member.isdir():
                    target.mkdir(mode=0o700)
                else:
                    content = archive.extractfile(member)
                    with target.open("xb") as out:
                        shutil.copyfileobj(content, out)  # type: ignore[arg-type]  # a regular file has content
                    target.chmod(0o600)
                os.chown(target, owner.pw_uid, owner.pw_gid)
    except (tarfile.TarError, zlib.error, ValueError, EOFError):
        raise Trouble("that is no whole backup of a database (give the file that `data.backup` wrote)") from None
    if not about or not ended:
        raise Trouble("that is no whole backup of a database (give the file that `data.backup` wrote)")
    os.chown(folder, owner.pw_uid, owner.pw_gid)
