"""Installs, configures and activates the HTTPS front."""

from __future__ import annotations

import shlex
from collections.abc import Generator

from pyinfra import host
from pyinfra.api import StringCommand, deploy, operation

from gatehouse.site.pages import hosts
from roles import lifecycle
from roles.differences import differs
from roles.nginx import RELOAD, USER, files, service
from roles.nginx.facts import Enabled, Unreadable
from roles.target import Target

# The log is in the journal: nothing to rotate.
NIGHT_JOB = "/etc/logrotate.d/nginx"


@deploy("HTTPS front")
def apply(target: Target) -> None:
    """Install, configure, activate."""
    install()
    configure(target)
    activate(target)


def install() -> None:
    """Debian's nginx; its own configuration, with a welcome page for everybody, is replaced before anything starts."""
    lifecycle.packages(*service.packages, name="Install nginx")
    lifecycle.absent(NIGHT_JOB, name="Leave the front's log to the journal")


def configure(target: Target) -> None:
    """The whole set at once, accepted by nginx itself before any of it is replaced."""
    public = [f"{page.name}.conf" for page in hosts(target.site, target.name) if page.public]
    forgotten(public, name="Forget public names that are gone")
    lifecycle.files(
        lifecycle.Directory("/etc/gatehouse"),
        *files.configuration(target),
        *files.certificate_files(target),
        name="Configure the HTTPS front",
        check=files.CHECK,
    )
    readable(name="Let the front read its keys")


@operation()
def forgotten(public: list[str]) -> Generator[StringCommand, None, None]:
    """A name that the site no longer has is no longer served; its certificate ends by itself."""
    if gone := sorted(set(host.get_fact(Enabled, folder=files.ENABLED)) - set(public)):
        for name in gone:
            differs(host.connector_data, "file", f"{files.ENABLED}/{name}", "serves a name that the site has not")
        yield StringCommand("rm -f -- " + shlex.join(f"{files.ENABLED}/{name}" for name in gone))


@operation()
def readable() -> Generator[StringCommand, None, None]:
    """As what renews certificates puts them down; otherwise the front could not start, and nothing could renew them."""
    if paths := host.get_fact(Unreadable, folder=files.CERTIFICATES, group=USER):
        for path in paths:
            differs(host.connector_data, "file", path, f"not of the group {USER} alone to read")
        yield StringCommand(f"chgrp -- {USER} {shlex.join(paths)} && chmod -- 0640 {shlex.join(paths)}")


def activate(target: Target) -> None:
    """A reload: connections go on with what they began with. Then each name must show the certificate on the disk."""
    lifecycle.running(
        files.UNIT,
        loads=files.loads(target),
        reload=RELOAD,
        prove=files.PROVE,
        name="Run the HTTPS front",
    )
