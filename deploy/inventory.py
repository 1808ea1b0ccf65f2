"""The hosts of a site for pyinfra, and how each is reached: as hardened, or as a fresh machine."""

from __future__ import annotations

import hashlib
import socket
import sys
from pathlib import Path
from typing import Any

from paramiko import RejectPolicy, SSHClient, SSHException

from deploy import mends
from gatehouse.errors import GatehouseError
from gatehouse.site import Gateway, Site, load

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".state"
# In the environment of every command on a gateway, so that the next run finds those that a killed one left at work.
MARK = "GATEHOUSE_DEPLOY"


def hosts(name: str) -> list[tuple[str, dict[str, Any]]]:
    """The `(gateway, data)` pairs of a site: how to connect, and `site`. A site that is not valid ends pyinfra."""
    try:
        site = load(name, ROOT)
    except GatehouseError as error:
        sys.exit(str(error))
    _skip_group_data()
    mends.show(site, known_hosts(site))
    return [(gateway, {**connection(site, gateway), "site": site}) for gateway in site.gateways]


def _skip_group_data() -> None:
    """Keeps pyinfra from running the group data of every site again: a slip in one must not stop the others.

    Only where pyinfra's command line reads this inventory; it then finds each file compiled already, to nothing.
    """
    if "pyinfra_cli.util" in sys.modules:
        nothing = compile("", "group data", "exec")
        folder = (ROOT / "inventories" / "group_data").resolve()
        sys.modules["pyinfra_cli.util"].PYTHON_CODES.update({str(path): nothing for path in folder.glob("*.py")})


def known_hosts(site: Site) -> Path:
    """The host keys that the site trusts: the lab pins its own, a site's are committed beside its inventory."""
    return site.state / "known_hosts" if site.state else ROOT / "inventories" / "known_hosts" / site.name


def reports(site: Site) -> Path:
    """The folder with a folder of reports for each site: a lab beside the usual one keeps its reports to itself."""
    beside = site.state is not None and site.state.name != site.name
    return (site.state if beside and site.state else ROOT) / "reports"


def connection(site: Site, gateway: str) -> dict[str, Any]:
    """pyinfra's data for the SSH connection to a gateway.

    A machine that the kit has hardened answers to the site's administrator on the site's port; one that it hasn't yet,
    to the gateway's `contact`. What was seen to work last is remembered, so that a deploy needs no trial connections.
    """
    here = site.gateways[gateway]
    data: dict[str, Any] = {
        "ssh_hostname": here.address,
        "ssh_port": _answering(here, [site.ssh.port, *site.ssh.former_ports, here.contact.port]),
        "ssh_known_hosts_file": str(known_hosts(site)),
        "ssh_strict_host_key_checking": "yes",
        "_env": {MARK: "1"},
    }
    if here.contact.key:
        data |= {"ssh_key": here.contact.key, "ssh_look_for_keys": False, "ssh_allow_agent": False}
    # Also hardened from elsewhere, or by a deploy that was killed before it could note it: one login tells.
    noted = _noted(site, gateway)
    if noted != site.ssh.user and _logs_in(site.ssh.user, data):
        noted = site.ssh.user
    # A site that has just renamed its administrator is reached as the former one.
    data["ssh_user"] = noted or here.contact.user
    data["_sudo"] = data["ssh_user"] != "root"
    return data


def remember_hardened(site: Site, gateway: str) -> None:
    """Notes that the site's administrator gets in and nothing is about to undo that: the next run goes there first."""
    marker = _marker(site, gateway)
    marker.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    marker.write_text(_known_by(site))


def _noted(site: Site, gateway: str) -> str | None:
    """The administrator that was noted, for these host keys: a reinstalled gateway is a fresh one."""
    try:
        user, _, keys = _marker(site, gateway).read_text().partition(" ")
    except FileNotFoundError:
        return None
    return user if f"{site.ssh.user} {keys}" == _known_by(site) else None


def _known_by(site: Site) -> str:
    pinned = known_hosts(site)
    return f"{site.ssh.user} {hashlib.sha256(pinned.read_bytes()).hexdigest() if pinned.exists() else 'nothing pinned'}"


def state_of(site: Site) -> Path:
    """The folder of what this machine remembers of a site's gateways."""
    return site.state or STATE / site.name


def _marker(site: Site, gateway: str) -> Path:
    return state_of(site) / f"{gateway}.hardened"


def _logs_in(user: str, data: dict[str, Any]) -> bool:
    """Whether the user gets in with these connection data."""
    with SSHClient() as client:
        client.set_missing_host_key_policy(RejectPolicy())
        try:
            client.load_host_keys(data["ssh_known_hosts_file"])
            client.connect(
                data["ssh_hostname"],
                data["ssh_port"],
                user,
                key_filename=data.get("ssh_key"),
                look_for_keys=data.get("ssh_look_for_keys", True),
                allow_agent=data.get("ssh_allow_agent", True),
                timeout=5,
                banner_timeout=60,
                auth_timeout=60,
            )
        except (OSError, SSHException):
            return False
    return True


def _answering(gateway: Gateway, ports: list[int]) -> int:
    """The first of the ports that speaks SSH; the first of all if none does, for pyinfra to say so."""
    distinct = dict.fromkeys(ports)
    for port in distinct if len(distinct) > 1 else ():
        try:
            with socket.create_connection((gateway.address, port), timeout=5) as connection:
                connection.settimeout(5)
                if connection.recv(4) == b"SSH-":
                    return port
        except OSError:
            continue
    return ports[0]
