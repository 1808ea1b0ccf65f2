"""Has GRUB ask who changes how a gateway starts."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host
from pyinfra.api import StringCommand, operation

from roles import lifecycle
from roles.bootloader import ARGUMENTS, MENU
from roles.bootloader.facts import Grub, Lacking
from roles.bootloader.files import CHECK, configuration, digest, making
from roles.differences import differs
from roles.target import Target


@operation()
def protected(target: Target) -> Generator[StringCommand, None, None]:
    """Writes what GRUB's menu is made from and makes it anew, where the machine is started by GRUB.

    The menu that GRUB has is compared, not what this run wrote: a run that died in between is mended by the next.
    """
    if not host.get_fact(Grub):
        return
    files = configuration(target)
    yield from lifecycle.files._inner(*files, check=CHECK)
    lacking = host.get_fact(Lacking, digest=digest(files[0]), arguments=list(ARGUMENTS))
    if lacking:
        differs(host.connector_data, "file", MENU, f"{', '.join(lacking)} not as declared")
        script, judge = making()
        yield StringCommand(script, _stdin=judge)
