"""A machine with a checkout of the kit and a home directory, to run documented commands on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


def commands(document: str) -> list[str]:
    """The blocks of shell commands in a document below `docs/`."""
    return re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / document).read_text(), re.DOTALL)


@dataclass
class Machine:
    """A checkout of the kit, and a home directory, with nobody's site in them."""

    checkout: Path
    home: Path

    @classmethod
    def new(cls, where: Path) -> Machine:
        checkout, home = where / "checkout", where / "home"
        files = ["commands", "deploy", "gatehouse", "roles", "templates", "lab"]
        files += ["inventories/group_data/all.py", "tasks.py"]
        for name in (name for name in files if (ROOT / name).exists()):
            target = checkout / name
            target.parent.mkdir(parents=True, exist_ok=True)
            ignored = shutil.ignore_patterns("__pycache__")
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, target, **({"ignore": ignored} if copy is shutil.copytree else {}))
        # the start script has tests of its own; here it is the environment that runs the tests
        (checkout / "kit").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m invoke "$@"\n')
        (checkout / "kit").chmod(0o755)
        home.mkdir()
        return cls(checkout, home)

    def sh(self, script: str, **more: str) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG")}
        return subprocess.run(
            ["bash", "-e", "-u", "-c", script],
            cwd=self.checkout,
            env={**kept, "HOME": str(self.home), "PYTHONDONTWRITEBYTECODE": "1", **more},
            capture_output=True,
            text=True,
        )

    def did(self, script: str, **more: str) -> str:
        done = self.sh(script, **more)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    @property
    def vault(self) -> Path:
        return self.checkout / "inventories" / "vaults" / "home.age"

    @property
    def identity(self) -> Path:
        return self.home / ".config" / "gatehouse" / "home.age"


INIT = (
    "./kit init home --address 192.0.2.1 --lan eth2 --key 'ssh-ed25519"
    " AAAAC3NzaC1lZDI1NTE5AAAAIMgnUUWWjGnCw2oS+rTVXvWmRS0pkcvLFv8w6S3qo2JV a@b'"
)
