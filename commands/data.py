"""`data.*`: what devices have reported."""

from __future__ import annotations

from pathlib import Path

from invoke import Context, task

from commands import common
from commands.common import GATEWAY, SITE, told


@task(positional=["file"], help={**GATEWAY, "file": "where to; an earlier backup is replaced"})
@told
def backup(_: Context, file: str, site: str = "lab", gateway: str = "") -> None:
    """Write a gateway's database into one file, encrypted to those who can open the vault."""
    from deploy import data

    where = common.site(site)
    print(data.backup(where, data.one_gateway(where, gateway), Path(file)))


@task(
    positional=["file"],
    help={**GATEWAY, "file": "the backup", "yes": "replace what the gateway's database holds now"},
)
@told
def restore(_: Context, file: str, site: str, gateway: str = "", yes: bool = False) -> None:
    """Put a database back, on the gateway it came from or on a fresh one."""
    from deploy import data

    where = common.site(site)
    print(data.restore(where, data.one_gateway(where, gateway), Path(file), replace=yes))


@task(help={**SITE, "device": "whose data", "yes": "do not ask"})
@told
def erase(_: Context, device: str, site: str, yes: bool = False) -> None:
    """Delete everything that a device reported, and show that nothing of it is found any more."""
    from deploy import data

    where = common.site(site)
    if not (where.lab or yes):
        common.ask(f"Delete all data of {device} from {', '.join(where.gateways)}? It can't be undone.")
    for line in data.erase(where, device):
        print(line)
