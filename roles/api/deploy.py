"""Installs, configures and activates the device API."""

from __future__ import annotations

from pyinfra.api import deploy

from roles import lifecycle
from roles.api import files, service
from roles.target import Target


@deploy("Device API")
def apply(target: Target) -> None:
    """Install, configure, activate."""
    install()
    configure(target)
    activate(target)


def install() -> None:
    """Debian's Python with what checks tokens, and a user of the API's own."""
    lifecycle.packages(*service.packages, name="Install what checks tokens")
    lifecycle.accounts(service.user, name="Make the API's user")


def configure(target: Target) -> None:
    """The program, the public keys of the site's tokens, and what it tells."""
    lifecycle.files(
        lifecycle.Directory("/etc/gatehouse"),
        lifecycle.Directory(files.FOLDER, group=service.user, mode=0o750),
        *(
            lifecycle.Directory(path)
            for path in (files.LIBRARY, f"{files.LIBRARY}/gatehouse", f"{files.LIBRARY}/gatehouse/api")
        ),
        *files.library(),
        *files.configuration(target),
        files.devices(target),
        lifecycle.stamped(files.UNIT, files.loads(), reloads=False),
        name="Configure the device API",
    )


def activate(target: Target) -> None:
    """A restart; it must then turn away who shows no token."""
    port = target.site.listener(service.name, "http").port
    ask = (
        "import http.client as h, sys, time\n"
        "for _ in range(50):\n"
        f"    c = h.HTTPConnection('{files.ADDRESS}', {port}, timeout=5)\n"
        "    try:\n"
        "        c.request('GET', '/api/devices'); sys.exit(c.getresponse().status != 401)\n"
        "    except OSError: time.sleep(0.2)\n"
        "sys.exit(1)\n"
    )
    lifecycle.running(files.UNIT, loads=files.loads(), prove=f'python3 -I -c "{ask}"', name="Run the device API")
