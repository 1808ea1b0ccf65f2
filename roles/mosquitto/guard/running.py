"""The broker that runs: made to read its files again, proven, and brought back to its former ones."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

from . import layout
from .asking import ask, prove_keyed, prove_listener
from .layout import PATIENCE, POLL, REREAD, UNIT, Refused, listeners, read


def reload() -> None:
    """Makes the broker read its files again; where it says that it could not, or a reload can't do it, restarts it."""
    if _only_reread_differ():
        mark = _journal("-n", "0", "--show-cursor").strip().rpartition("-- cursor: ")[2]
        try:
            subprocess.run(["systemctl", "reload", UNIT], check=True)
            _was_reread(mark)
            return
        except (Refused, OSError, subprocess.SubprocessError) as refused:
            print(f"gatehouse: {refused}: restarting it", file=sys.stderr)
    subprocess.run(["systemctl", "restart", UNIT], check=True)


def _only_reread_differ() -> bool:
    reread = {value for name, value in read(layout.CONFIGURATION) if name in REREAD}
    noted = layout.noted()
    others = {path: digest for path, digest in noted.items() if path not in reread}
    return len(others) < len(noted) and _unchanged(others)


def _unchanged(noted: dict[str, str]) -> bool:
    return bool(noted) and all(layout.digest(Path(path)) == digest for path, digest in noted.items())


def _was_reread(mark: str) -> None:
    """Refuses unless the broker says that it has read its files again, and of no error: the signal only asks it to."""
    until = time.monotonic() + PATIENCE
    while "Reloading config." not in (since := _journal("--after-cursor", mark)):
        if time.monotonic() > until:
            raise Refused("the broker did not read its files again")
        time.sleep(POLL)
    # It serves nobody while it reads: once it has answered, whatever it had to say is said.
    settings = read(layout.CONFIGURATION)
    place = next(place for place, kind in listeners(settings).items() if kind == "certificate")
    ask(place, Path(dict(settings)["cafile"]))
    until = time.monotonic() + PATIENCE
    while "onnection from" not in since.partition("Reloading config.")[2] and time.monotonic() < until:
        time.sleep(POLL)
        since = _journal("--after-cursor", mark)
    if errors := [line for line in since.splitlines() if line.startswith("Error")]:
        raise Refused(f"the broker could not read its files again: {errors[0]}")


def _journal(*arguments: str) -> str:
    command = ["journalctl", "-q", "-o", "cat", "-u", UNIT, "--no-pager", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def prove() -> None:
    """Refuses the running broker unless every listener has the new certificate and turns strangers away."""
    settings = read(layout.CONFIGURATION)
    files = dict(settings)
    older = files.get("tls_version") != "tlsv1.3"
    failed: list[Exception] = []

    def one(place: tuple[str, int], kind: str) -> None:
        try:
            if kind == "key":
                prove_keyed(place, Path(files["psk_file"]), older)
            else:
                prove_listener(place, kind == "certificate", Path(files["certfile"]), Path(files["cafile"]), older)
        except (Refused, OSError, subprocess.SubprocessError) as error:
            failed.append(error)

    # All at once: each waits for the broker, and for openssl, most of its time.
    asking = [threading.Thread(target=one, args=each) for each in listeners(settings).items()]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    if failed:
        raise failed[0]
    shutil.rmtree(layout.KEPT, ignore_errors=True)


def keep(root: Path) -> None:
    """Copies the set that runs, if it is what is on disk: proven once, it is what `restore` brings back.

    Owner and mode are those of the files below `root`, so that no right comes back that somebody has loosened.
    """
    noted = layout.noted()
    staged = {Path(path): root / path.lstrip("/") for path in noted}
    if all(layout.digest(file) in ("", noted[str(path)]) for path, file in staged.items()):
        return  # The broker goes on running on these: no proof follows that would drop a copy.
    if layout.KEPT.exists() or not _unchanged(noted):
        return
    beside = layout.KEPT.with_name(f".{layout.KEPT.name}.new")
    shutil.rmtree(beside, ignore_errors=True)
    layout.KEPT.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside.mkdir(mode=0o700)
    for path, file in staged.items():
        copy = beside / path.relative_to("/")
        copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _copy(path, copy, file if file.is_file() else path)
    beside.rename(layout.KEPT)


def _copy(source: Path, target: Path, like: Path) -> None:
    """Beside, with owner and mode as those of `like`, then renamed."""
    beside = target.with_name(f".{target.name}.gatehouse-new")
    beside.unlink(missing_ok=True)
    state = like.stat()
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(source.read_bytes())
        os.fchown(file.fileno(), state.st_uid, state.st_gid)
        os.fchmod(file.fileno(), state.st_mode & 0o7777)
        os.fsync(file.fileno())
    beside.rename(target)


def restore() -> None:
    """Brings back what was kept and restarts the broker on it. Refuses if nothing was, or it doesn't work either."""
    if not layout.KEPT.exists():
        raise Refused("there is no former set of files to go back to")
    for copy in layout.KEPT.rglob("*"):
        if copy.is_file():
            _copy(copy, Path("/") / copy.relative_to(layout.KEPT), copy)
    for command in ("daemon-reload",), ("restart", UNIT):
        subprocess.run(["systemctl", *command], check=True)
    prove()
    print("gatehouse: the broker runs on its former files again", file=sys.stderr)
