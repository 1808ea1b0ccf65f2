"""Notes what the kit has put on a gateway, and has AIDE look where it must."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host
from pyinfra.api import StringCommand, operation

from roles import lifecycle
from roles.differences import differs
from roles.integrity import files
from roles.integrity.facts import Undecided


@operation()
def declared(*later: str) -> Generator[StringCommand, None, None]:
    """Writes down the paths of all that the operations before this one put in place, and of what comes `later`."""
    paths = host.connector_data.get(lifecycle.DECLARED, set()) | set(files.EDITED) | set(later)
    yield from lifecycle.files._inner(files.declared(paths))


@operation()
def looked() -> Generator[StringCommand, None, None]:
    """Makes the database where there is none, and looks anew where rules were changed or something had been found.

    What had been found may be mended by this very deploy. What is still there stays found, and the deploy goes on: it
    is for somebody to decide.
    """
    why = host.get_fact(Undecided)
    for each in why:
        differs(host.connector_data, "unit", files.UNIT, each)
    if why:
        # Without a database the status is of one that is gone: a deploy makes it anew.
        yield StringCommand(f"[ -s {files.DATABASE} ] || rm -f {files.STATUS}; systemctl start {files.UNIT}")
