"""Checkouts of the kit to run it from: this one, and copies of it that differ in a site, a role or a template."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from unittest import mock

from deploy.inventory import ROOT
from gatehouse.site import Site, load
from lab import default_name

COPIED = (
    "commands",
    "config.py",
    "deploy",
    "deploy.py",
    "gatehouse",
    "inventories",
    "lab",
    "roles",
    "tasks.py",
    "templates",
)
SITE_FILE = "inventories/group_data/lab.py"
ROLE_FILE = "roles/chrony/deploy.py"


@dataclass(frozen=True)
class Run:
    """How a command ended: exit status, standard output and standard error."""

    status: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """Both streams."""
        return self.out + self.err


@dataclass(frozen=True)
class Checkout:
    """A checkout in `root`. What is run in it imports from it, and uses this lab."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def lab(self) -> str:
        """The name of its lab."""
        return self.environment.get("GATEHOUSE_LAB") or default_name()

    @property
    def site(self) -> Site:
        """The lab's site as this checkout describes it, with the roles of the tests' own checkout."""
        with in_its_lab(self):
            return load("lab", self.root)

    def edit(self, path: str, *changes: tuple[str, str]) -> None:
        """Replace text in a file of a copy; what is to be replaced must be there."""
        assert self.root != ROOT, "only a copy may be edited"
        text = (self.root / path).read_text()
        for old, new in changes:
            assert old in text, f"{path}: {old!r} is not there"
            text = text.replace(old, new)
        (self.root / path).write_text(text)

    def pyinfra(self, *options: str, inventory: str = "inventories/lab", timeout: float = 240) -> Run:
        """`pyinfra OPTION… INVENTORY deploy.py`."""
        return self.run("pyinfra", *options, inventory, "deploy.py", timeout=timeout)

    def deploy(self, *options: str, timeout: float = 240) -> Run:
        """`pyinfra -y inventories/lab deploy.py`."""
        return self.pyinfra("-y", *options, timeout=timeout)

    def invoke(self, *arguments: str, timeout: float = 240) -> Run:
        """`invoke ARGUMENT…`, without a terminal."""
        return self.run("invoke", *arguments, timeout=timeout)

    def start(
        self, command: str, *arguments: str, output: IO[bytes] | int = subprocess.DEVNULL
    ) -> subprocess.Popen[bytes]:
        """Start a command of the environment as the leader of a session of its own, both streams into `output`."""
        return subprocess.Popen(
            self._argv(command, arguments),
            cwd=self.root,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def run(self, command: str, *arguments: str, timeout: float) -> Run:
        """A command of the environment, without a terminal."""
        done = subprocess.run(
            self._argv(command, arguments),
            cwd=self.root,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        return Run(done.returncode, done.stdout, done.stderr)

    @property
    def _environment(self) -> dict[str, str]:
        own = {"PYTHONPATH": str(self.root), "PYTHONDONTWRITEBYTECODE": "1", "PYINFRA_PROGRESS": "off"}
        return {**os.environ, **own, **self.environment}

    @staticmethod
    def _argv(command: str, arguments: tuple[str, ...]) -> list[str]:
        return [str(Path(sys.executable).with_name(command)), *arguments]


@contextlib.contextmanager
def in_its_lab(checkout: Checkout) -> Iterator[None]:
    """What the block does in this process, it does to the lab of that checkout."""
    with mock.patch.dict(os.environ, GATEHOUSE_LAB=checkout.lab):
        yield


def copied(to: Path, **environment: str) -> Checkout:
    """A copy of this checkout that shares its labs: keys, known hosts, vaults and containers."""
    to.mkdir()
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, to / name, ignore=shutil.ignore_patterns("__pycache__"), symlinks=True)
        else:
            shutil.copy(source, to / name)
    labs = ROOT / ".lab"
    labs.mkdir(exist_ok=True)
    (to / ".lab").symlink_to(labs)
    # What is deployed from a copy carries the same version as from here: it is the same commit.
    git = ROOT / ".git"
    if git.is_dir():
        (to / ".git").write_text(f"gitdir: {git}\n")
    elif git.is_file():
        shutil.copy(git, to / ".git")
    return Checkout(to, environment)
