"""Which state of the kit a gateway was deployed from: written there by `base`, compared by the compliance suite."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

from gatehouse import __version__

ROOT = Path(__file__).resolve().parent.parent.parent
FILE = "/usr/lib/gatehouse/VERSION"
# What makes a gateway. Inventories are left out: a deploy itself may write the vault that lies there.
MAKES_A_GATEWAY = ("deploy.py", "deploy", "roles", "templates", "gatehouse")


@cache
def of_checkout(root: Path = ROOT) -> str:
    """The content of VERSION for a checkout: three lines `version`, `commit` (`unknown` outside git) and `modified`."""
    lines = (_git(root, "status", "--porcelain=v2", "--branch", "--", *MAKES_A_GATEWAY) or "").splitlines()
    about = dict(line.removeprefix("# ").split(" ", 1) for line in lines if line.startswith("# "))
    commit = about.get("branch.oid", "unknown")
    modified = ("no" if len(about) == len(lines) else "yes") if lines else "unknown"
    return f"version {__version__}\ncommit {commit}\nmodified {modified}\n"


def _git(root: Path, *arguments: str) -> str | None:
    """What git prints, or None where there is no git or no repository that this user may read."""
    command = ["git", "-C", str(root), "--no-optional-locks", *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
