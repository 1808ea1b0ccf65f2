"""The beginning of a deploy on one gateway: a fast connection, the lock, and what the roles are given."""

from __future__ import annotations

import getpass
import shlex
import socket
from datetime import UTC, datetime

from pyinfra import host
from pyinfra.api.exceptions import PyinfraError


from deploy.inventory import remember_hardened
from gatehouse.errors import GatehouseError
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from gatehouse.identity import Pki
from gatehouse.site import Site
from roles.target import Target

LOCK = "/run/gatehouse-deploy.lock"
SYSTEMS = ("debian 12", "debian 13")
FREE_MEGABYTES = 100


class DeployError(PyinfraError):
    """A gateway that can't be deployed to now; pyinfra prints it as one line."""


def begin() -> Target:
    """Prepares the connection to the current host, takes its deploy lock, and returns what the roles are given."""
    site: Site = host.data.site
    _without_delay()
    _take_lock()
    if host.data.ssh_user == site.ssh.user:
        remember_hardened(site, host.name)
    return Target(site, host.name, lambda: _open_pki(site))


def _open_pki(site: Site) -> Pki:
    from deploy import vaults

    try:
        return vaults.open_pki(site)
    except GatehouseError as error:
        raise DeployError(str(error)) from None


def _without_delay() -> None:
    """Nagle's algorithm and delayed acknowledgements together cost 40 ms a command."""
    transport = host.connector.client.get_transport()
    transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _take_lock() -> None:
    """Holds a lock on the gateway for as long as this connection lives: killed runs leave none behind.

    The same round trip says whether the kit can work there at all.
    """
    holder = f"{getpass.getuser()} on {socket.gethostname()} since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
    script = (
        '. /etc/os-release; echo "$ID $VERSION_ID"; df --output=avail -m / | tail -1;'
        f" exec 9>>{LOCK}; flock -n 9 || {{ cat {LOCK}; exit 75; }};"
        f" printf '%s\n' {shlex.quote(holder)} >{LOCK}; echo taken; cat >/dev/null"
    )
    sudo = "sudo -n " if host.data.get("_sudo") else ""
    channel = host.connector.client.get_transport().open_session()
    channel.exec_command(f"{sudo}sh -c {shlex.quote(script)}")
    answers = channel.makefile("r")
    system, free, lock = (answers.readline().strip() for _ in range(3))
    if lock == "taken":
        _refuse_unsuitable(system, int(free))
        host.connector_data["gatehouse_lock"] = channel
        return
    status = channel.recv_exit_status()
    if status == 75:
        raise DeployError(f"{host.name}: another deploy is running: {lock} (wait for it to end, or end it there)")
    wrong = channel.makefile_stderr("r").read().decode().strip().splitlines() or [f"exit status {status}"]
    raise DeployError(f"{host.name}: can't act as root: {wrong[-1]} (log in as root, or as a user with sudo NOPASSWD)")


def _refuse_unsuitable(system: str, free_megabytes: int) -> None:
    if system not in SYSTEMS:
        wanted = " or ".join(s.replace("debian", "Debian") for s in SYSTEMS)
        raise DeployError(f"{host.name}: runs '{system}', not {wanted} (install one of them, or name another host)")
    if free_megabytes < FREE_MEGABYTES:
        raise DeployError(f"{host.name}: {free_megabytes} MB free on /, {FREE_MEGABYTES} are needed (free some space)")
