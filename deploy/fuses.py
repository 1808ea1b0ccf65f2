"""The plan of an ESP32's fuses, and its rehearsal on simulated ones (`device/esp32/fuses.sh`, esptool)."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from deploy.environments import environment
from deploy.inventory import ROOT
from gatehouse.errors import GatehouseError

SCRIPT = ROOT / "device" / "esp32" / "fuses.sh"


class FuseError(GatehouseError):
    """A plan that there is not, or a rehearsal that failed."""


def tools(log: Callable[[str], None]) -> Path:
    """The folder with espsecure and espefuse."""
    return environment("esptool", log, built="esptool")


def plan(chip: str, profile: str) -> str:
    """What is burnt, in which order. Raises `FuseError`."""
    return _run("plan", chip, profile)


def rehearse(chip: str, profile: str, key: str, backup: str, log: Callable[[str], None]) -> str:
    """Burn everything on simulated fuses, for two keys (PEM, private or public), or for throw-away ones."""
    bin_ = tools(log)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        given = {"first.pem": key, "backup.pem": backup}
        keys = [Path(path) if path else _throw_away(bin_, place / name) for name, path in given.items()]
        digests = [place / "first.bin", place / "backup.bin"]
        for pem, digest in zip(keys, digests, strict=True):
            _espsecure(bin_, "digest-sbv2-public-key", "--keyfile", str(pem), "--output", str(digest))
        return _run("rehearse", chip, profile, *map(str, digests), str(place / "fuses"), path=bin_)


def _throw_away(bin_: Path, path: Path) -> Path:
    _espsecure(bin_, "generate-signing-key", "--version", "2", "--scheme", "rsa3072", str(path))
    return path


def _espsecure(bin_: Path, *arguments: str) -> None:
    done = subprocess.run([str(bin_ / "espsecure"), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise FuseError(f"espsecure {arguments[0]}: {last}")


def _run(*arguments: str, path: Path | None = None) -> str:
    environment_ = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}"} if path else None
    done = subprocess.run([str(SCRIPT), *arguments], env=environment_, capture_output=True, text=True, check=False)
    if done.returncode:
        raise FuseError((done.stderr.strip().splitlines() or ["fuses: failed"])[-1])
    return done.stdout.rstrip()
