"""What makes the running tunnel the declared one, and what takes it away."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host
from pyinfra.api import StringCommand, operation

from gatehouse.site.remote import INTERFACE
from roles import lifecycle
from roles.differences import differs
from roles.facts import FileStates
from roles.wireguard import files, service
from roles.wireguard.facts import AsDeclared, InKernel

IN_USERSPACE = "wireguard-go"


@operation()
def installed() -> Generator[StringCommand, None, None]:
    """wg, and what does the kernel's work where the kernel can't: in containers."""
    extra = () if host.get_fact(InKernel) else (IN_USERSPACE,)
    yield from lifecycle.packages._inner(*service.packages, *extra)


@operation()
def as_declared() -> Generator[StringCommand, None, None]:
    """Makes the tunnel anew, where it is not what its file says: somebody let in a peer, or took one away."""
    if not host.get_fact(AsDeclared):
        differs(host.connector_data, "tunnel", INTERFACE, "has other keys or peers than its file")
        yield StringCommand(f"systemctl restart {files.UNIT} && {files.PROGRAM} same")


@operation()
def withdrawn() -> Generator[StringCommand, None, None]:
    """Takes down a tunnel that the site has no peers for."""
    left = host.get_fact(FileStates, paths=list(files.LOADS))
    for path in left:
        differs(host.connector_data, "file", path, "there, though nobody may come through a tunnel")
    if left:
        yield StringCommand(files.WITHDRAW)
