"""The Debian packages that the operator's machine needs beside Python, installed only when missing, each announced."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable

from gatehouse.errors import GatehouseError
from roles.apt import LOCK

# command, or path of a file: package that has it
TOOLS = {
    "ssh": "openssh-client",
    "openssl": "openssl",
    "nft": "nftables",
    "ip": "iproute2",
    "shellcheck": "shellcheck",
}

# What the library for devices is built and tested with.
COMPILER = {
    "gcc": "gcc",
    "/usr/include/stdlib.h": "libc6-dev",
    "make": "make",
    "/usr/include/mbedtls/ssl.h": "libmbedtls-dev",
}


class ToolError(GatehouseError):
    """A tool that is missing and can't be installed."""


def ensure(log: Callable[[str], None], tools: dict[str, str] | None = None) -> None:
    """Installs what is missing of `tools` ({command: package}). Raises `ToolError`."""
    wanted = TOOLS if tools is None else tools
    missing = sorted({package for name, package in wanted.items() if not _is_here(name)})
    if not missing:
        return
    if os.geteuid() != 0:
        raise ToolError(f"missing Debian packages: run 'apt-get install {' '.join(missing)}' as root")
    log(f"kit: installing the Debian packages {', '.join(missing)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    # A mirror has bad moments, and somebody else may be installing.
    apt = ["apt-get", "-q", "-o", "Acquire::Retries=3", "-o", LOCK]
    for command in (["update"], ["install", "-y", "--no-install-recommends", *missing]):
        done = subprocess.run([*apt, *command], env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.startswith("E:")] or ["apt-get failed"]
            raise ToolError(f"can't install {', '.join(missing)}: {said[-1]} (is the package mirror reachable?)")


def _is_here(name: str) -> bool:
    return os.path.exists(name) if name.startswith("/") else shutil.which(name, path=_path()) is not None


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
