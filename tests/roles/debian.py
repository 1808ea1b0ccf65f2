"""Debian's packages on the machine that runs the tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from roles.apt import LOCK

POLICY = Path("/usr/sbin/policy-rc.d")
INSTALL = ["apt-get", "install", "-q", "-y", "--no-install-recommends", "-o", LOCK]


def install(package: str) -> str:
    """Installs a Debian package without starting its services; what apt said last, where it failed."""
    print(f"\ntests: installing Debian's {package} on this machine, without starting it", file=sys.__stderr__)
    created = not POLICY.exists()
    if created:
        POLICY.write_text("#!/bin/sh\nexit 101\n")
        POLICY.chmod(0o755)
    try:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        command = [*INSTALL, package]
        for each in (command, ["apt-get", "-q", "update"], command):
            done = subprocess.run(each, env=environment, capture_output=True, text=True)
            if done.returncode == 0 and each is command:
                return ""
    finally:
        if created:
            POLICY.unlink()
    return f"apt-get install {package}: {done.stdout[-300:]}{done.stderr[-300:]}"
