"""Gives the kernel its rules."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable

from pyinfra import host, logger
from pyinfra.api import StringCommand, operation

from roles.auditd.facts import Audits, Loaded
from roles.auditd.rules import LOCKED, declared
from roles.differences import differs
from roles.lifecycle import File

Step = Callable[[], Iterable[StringCommand]]


@operation()
def audited(step: Step, otherwise: Step | None = None) -> Generator[StringCommand, None, None]:
    """Does the one where the kernel is the machine's own and records, the other where not."""
    if host.get_fact(Audits):
        yield from step()
    elif otherwise is not None:
        yield from otherwise()


def locked(file: File) -> Generator[StringCommand, None, None]:
    """Has the kernel take the rules of a file, which end with the lock.

    Where it has others locked, nothing can be done before the next start: they are on the disk by then, and it says so.
    """
    loaded = host.get_fact(Loaded)
    lacks = loaded.lacks(declared(file.content.decode()))
    if not lacks:
        return
    if loaded.locked:
        logger.warning(
            f"{host.print_prefix}the kernel's audit rules are locked, and not those of this deploy, which hold from the"
            f" gateway's next start on ({lacks[0]})"
        )
        return
    for each in lacks:
        differs(host.connector_data, "audit", "rules of the kernel", each)
    yield StringCommand(
        f"augenrules --load >/dev/null && auditctl -s | grep -qx 'enabled {LOCKED}'"
        " || { echo 'gatehouse: the kernel did not take all audit rules (auditctl -l lists what it has)' >&2; exit 1; }"
    )
