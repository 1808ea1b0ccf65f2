"""Python environments beside the kit's own, from lock files, for programs that share no packages with it."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from deploy.inventory import ROOT
from gatehouse.errors import GatehouseError


class EnvironmentRefused(GatehouseError):
    """An environment that can't be installed."""


def environment(name: str, log: Callable[[str], None], built: str = "") -> Path:
    """The folder with the programs of `.venv-NAME`, made as `requirements-NAME.lock` says if it is not there.

    `built` is a package that comes without a wheel: it is built by the setuptools of the lock file. Raises
    `EnvironmentRefused`.
    """
    place, lock = ROOT / f".venv-{name}", ROOT / f"requirements-{name}.lock"
    note = place / "lock.sha256"
    wanted = hashlib.sha256(lock.read_bytes()).hexdigest()
    if note.exists() and note.read_text() == wanted:
        return place / "bin"
    log(f"installing {name} into {place.name}")
    pip = [str(place / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input", "install"]
    pip += ["--quiet", "--no-deps", "--require-hashes"]
    with tempfile.TemporaryDirectory() as folder:
        wheels, source = Path(folder, "wheels.txt"), Path(folder, "source.txt")
        ready, to_build = _split(lock.read_text(), built)
        wheels.write_text(ready)
        source.write_text(to_build)
        commands = [
            [sys.executable, "-m", "venv", "--clear", str(place)],
            [*pip, "--only-binary", ":all:", "-r", str(wheels)],
        ]
        if built:
            commands.append([*pip, "--no-build-isolation", "--no-binary", built, "-r", str(source)])
        for command in commands:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                last = (done.stderr.strip().splitlines() or ["no output"])[-1]
                raise EnvironmentRefused(f"{lock.name}: can't be installed: {last} (is PyPI reachable?)")
    note.write_text(wanted)
    return place / "bin"


def _split(lock: str, built: str) -> tuple[str, str]:
    """The lock file without a package, and that package alone."""
    ready: list[str] = []
    to_build: list[str] = []
    into = ready
    for line in lock.splitlines(keepends=True):
        if not line.startswith((" ", "#", "\n")):
            into = to_build if built and line.startswith(f"{built}==") else ready
        into.append(line)
    return "".join(ready), "".join(to_build)
