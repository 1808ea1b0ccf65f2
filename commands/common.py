"""What the commands share: the site that is meant, a question before a change, errors as their lines."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable
from typing import IO, Any

from deploy.inventory import ROOT
from gatehouse.errors import GatehouseError
from gatehouse.site import Site, load

SITE = {"site": "the site, as its inventory is named (default: lab)"}
GATEWAY = {**SITE, "gateway": "the gateway (not needed where there is one)"}


def told(body: Callable[..., Any]) -> Callable[..., Any]:
    """Turns an error for the operator into its lines on standard error, and exit status 1.

    `TASK --help` explains the task also where invoke takes that for the name or the file that the task wants.
    """

    @functools.wraps(body)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        for asked in {"-h", "--help"} & {value for value in kwargs.values() if isinstance(value, str)}:
            task = sys.argv[sys.argv.index(asked) - 1]
            sys.exit(subprocess.run([sys.executable, "-m", "invoke", "--help", task], cwd=ROOT, check=False).returncode)
        try:
            return body(*args, **kwargs)
        except GatehouseError as error:
            sys.exit(str(error))

    return wrapper


def site(name: str) -> Site:
    """The site of that name, of this checkout; raises `GatehouseError` where it is none."""
    return load(name, ROOT)


def pytest(*arguments: str) -> int:
    """Runs pytest in this checkout; returns its exit status."""
    return subprocess.run(_pytest(*arguments), cwd=ROOT, check=False).returncode


def start_pytest(*arguments: str, said: IO[bytes]) -> subprocess.Popen[bytes]:
    """Starts pytest in this checkout; what it says goes to a file. SIGINT ends it, however this program was started."""
    command = ["env", "--default-signal=INT", *_pytest(*arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=said, stderr=said)


def _pytest(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pytest", *arguments]


def ask(question: str) -> None:
    """Goes on if the answer is yes; ends the command with nothing changed if it is no, or if nobody is there to ask."""
    if not sys.stdin.isatty():
        sys.exit("no terminal to ask on: nothing was changed (add --yes)")
    if input(f"{question} [y/N] ").strip().lower() not in ("y", "yes"):
        sys.exit("nothing was changed")
