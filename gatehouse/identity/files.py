"""Files that hold secrets: written whole or not at all, never readable by others, one writer at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from gatehouse.errors import GatehouseError


class Busy(GatehouseError):
    """Another process holds the lock."""


def stage(path: Path, data: bytes, mode: int = 0o600) -> Path:
    """Write data, synced to the disk, into a new file `.NAME.new` beside path and return that file's path.

    The caller holds the lock of path: what a killed writer left under that name is replaced. Raises OSError, and leaves
    nothing behind then.
    """
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    return beside


def sync_directory(directory: Path) -> None:
    """Make the renames done in a directory survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_private(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace path by data in one step: at no moment is it half written or open beyond mode. Raises OSError."""
    beside = stage(path, data, mode)
    try:
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


@contextlib.contextmanager
def locked(path: Path, patience: float = 60.0) -> Iterator[None]:
    """Hold the advisory lock of path (flock on `PATH.lock`, which stays) for the length of the block.

    The kernel drops the lock of a process that dies. Raises `Busy` after `patience` seconds, naming the holder.
    """
    lock = path.with_name(path.name + ".lock")
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + patience
        while True:
            # polled, not awaited: a blocking flock would stop every other greenlet of a deploy, the holder among them
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            if time.monotonic() >= deadline:
                raise Busy(f"{path}: process {holder} is changing it; wait for it to end, then run this again")
            time.sleep(0.02)
        with contextlib.suppress(OSError):  # the note is a courtesy; a full disk must not stop the work for it
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        yield
    finally:
        os.close(descriptor)
