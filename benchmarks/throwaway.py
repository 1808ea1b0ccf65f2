"""A lab of the benchmarks' own: built fresh, on a network of its own, so that the operator's lab is not touched."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.measure import ROOT, progress

NAME = "benchmark"


def enter(module: str) -> None:
    """Starts the module again, with the same arguments, in a network namespace of its own; goes on if it is in there.

    Two labs have the same prefixes. The namespace ends with the process, and so does all that was plugged into it.
    """
    if os.environ.get("GATEHOUSE_LAB") == NAME:
        return
    from lab import engine

    # An engine that started in there would have no way out to Debian's packages, and end with the namespace.
    engine.connect(progress).close()
    environment = {**os.environ, "GATEHOUSE_LAB": NAME, "PYTHONPATH": str(ROOT)}
    # What pyinfra imports is compiled once, as for anybody who doesn't forbid it.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    script = 'ip link set lo up && exec "$@"'
    again = [sys.executable, "-m", module, *sys.argv[1:]]
    os.execvpe("unshare", ["unshare", "--net", "sh", "-c", script, "sh", *again], environment)  # noqa: S606


@contextmanager
def fresh() -> Iterator[str]:
    """A lab whose gateway has never been deployed to; its name. Removed afterwards."""
    import lab
    from deploy import vaults
    from gatehouse.site import load

    lab.down(NAME, log=progress)
    try:
        site = load("lab", ROOT)
        lab.up(lab.from_site(site, NAME), log=progress)
        vaults.prepare_lab(site)
        yield NAME
    finally:
        lab.down(NAME, log=progress)


def command(*arguments: str) -> list[str]:
    """pyinfra, as the operator calls it, of this environment."""
    return [str(Path(sys.executable).with_name("pyinfra")), *arguments]
