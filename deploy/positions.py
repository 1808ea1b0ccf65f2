"""The way to positions in a gateway's segments: an SSH client's command line, and what the agent is told."""

from __future__ import annotations

import shlex
from typing import Any

from deploy.inventory import connection
from gatehouse.proof.channel import START, Agent
from gatehouse.site import Site

# Seconds to wait for another run of the suite or the audit on the same gateway.
PATIENCE = 120


def ssh(given: dict[str, Any], *options: str, user: str | None = None, identity: bool = True) -> list[str]:
    """An SSH client's command line, up to what is to be run there; `identity`: with the site's key."""
    command = ["ssh", "-p", str(given["ssh_port"]), "-l", user or given["ssh_user"]]
    command += ["-o", f"UserKnownHostsFile={given['ssh_known_hosts_file']}", "-o", "StrictHostKeyChecking=yes"]
    for option in ("BatchMode=yes", "ConnectTimeout=10", "ServerAliveInterval=15", "LogLevel=ERROR"):
        command += ["-o", option]
    command += ["-o", "IdentitiesOnly=yes"] if "ssh_key" in given or not identity else []
    command += ["-i", given["ssh_key"]] if "ssh_key" in given and identity else []
    return [*command, *options, given["ssh_hostname"]]


def segments(site: Site, gateway: str) -> dict[str, dict[str, Any]]:
    """A position in each segment, as the agent is told of it."""
    here = site.gateways[gateway]
    avoid = [str(device.address) for device in site.devices_of(gateway) if device.address]
    return {
        segment: {"bridge": here.bridge(segment), "avoid": avoid, "isolated": site.segments[segment].isolated}
        for segment in here.networks
    }


def agent(site: Site, gateway: str, positions: dict[str, dict[str, Any]], *options: str) -> Agent:
    """Starts an agent on a gateway, with these positions. Raises `ProbeError`; use it as a context."""
    given = connection(site, gateway)
    run = f"{'sudo -n ' if given['_sudo'] else ''}python3 -I -c {shlex.quote(START)}"
    config = {"segments": positions, "patience": PATIENCE}
    return Agent(gateway, [*ssh(given, *options), run], config, patience=PATIENCE + 60)
