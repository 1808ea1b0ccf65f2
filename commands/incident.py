"""`incident`: a device behaves oddly."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

from invoke import Context, task

from commands import common
from commands.common import SITE, told


@task(
    default=True,
    help={
        **SITE,
        "device": "the device that behaves oddly",
        "only-evidence": "collect, and leave the device as it is",
    },
)
@told
def start(_: Context, device: str, site: str = "lab", only_evidence: bool = False) -> None:
    """Suspected: cut a device off, keep the evidence in one encrypted archive, and say what comes next."""
    from deploy import incidents

    where = common.site(site)
    incidents.start(where, device, functools.partial(print, flush=True), only_evidence)
    print("", "Next (docs/playbooks.md, a rogue device):", *incidents.steps(where, device), sep="\n")


@task(
    name="open",
    positional=["file"],
    help={**SITE, "file": "what `incident` has written", "to": "a folder that is not there yet"},
)
@told
def open_evidence(_: Context, file: str, to: str, site: str = "lab") -> None:
    """Decrypt an incident's evidence into a new folder; exit status 1 if it is not what its manifest says."""
    from deploy import incidents

    found = incidents.unpack(common.site(site), Path(file), Path(to))
    print(f"{found.name}: {len(found.files)} files in {to}")
    sys.exit("\n".join(found.problems) if found.problems else 0)
