"""What a lab keeps on the operator's machine: its SSH key, the gateways' pinned host keys, and a lock."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lab.errors import LabError

Log = Callable[[str], None]

HOME = Path(__file__).resolve().parent.parent / ".lab"


class State:
    """The state directory of one lab, 0700: `id_ed25519`, `id_ed25519.pub`, `known_hosts`."""

    def __init__(self, name: str, home: Path | None = None) -> None:
        self.home = home or HOME
        self.directory = self.home / name
        self.key = self.directory / "id_ed25519"
        self.known_hosts = self.directory / "known_hosts"

    def prepare(self) -> str:
        """Make the directory and, if there is none, a new key; returns the public key's line."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chmod(self.directory, 0o700)
        public = self.key.with_suffix(".pub")
        if not (self.key.exists() and public.exists()):
            self._new_key(public)
        return public.read_text().strip()

    def _new_key(self, public: Path) -> None:
        key = Ed25519PrivateKey.generate()
        private_text = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
        line = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        write(self.key, private_text, 0o600)
        write(public, line + b" lab\n", 0o644)

    def pin(self, lines: list[str]) -> None:
        """Write the known_hosts file: the host keys as read inside the gateways, so nothing is trusted on first use."""
        write(self.known_hosts, "".join(f"{line}\n" for line in lines).encode(), 0o600)

    def remove(self) -> None:
        """Remove the directory, and its parent when no other lab is left in it."""
        shutil.rmtree(self.directory, ignore_errors=True)
        with contextlib.suppress(OSError):  # There is another, or never was one, or the directory is elsewhere.
            self.home.rmdir()


def write(path: Path, data: bytes, mode: int) -> None:
    """Replace a file in one step; it never exists with other than `mode`."""
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.rename(path)


@contextmanager
def locked(name: str, log: Log, patience: float = 600) -> Iterator[None]:
    """Hold the machine-wide lock of a lab, so that two commands don't build and remove it at once.

    The lock is an abstract Unix socket: the kernel drops it with the process, so a killed run leaves nothing to clean.
    Raises LabError after `patience` seconds.
    """
    started, told = time.monotonic(), False
    with socket.socket(socket.AF_UNIX) as held:
        while True:
            try:
                held.bind(f"\0gatehouse-lab-{name}")
                break
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            if not told:
                log(f"lab: another command is at work on lab {name}, waiting for it")
                told = True
            if time.monotonic() - started > patience:
                raise LabError(f"lab {name}: another command has been at work on it for {patience:.0f} s (end it)")
            time.sleep(0.1)
        yield
