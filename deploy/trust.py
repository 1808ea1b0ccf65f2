"""Pins the SSH host keys of gateways, so that no later connection trusts what it meets."""

from __future__ import annotations

import base64
import hashlib
import socket
from dataclasses import dataclass

import paramiko

from deploy.inventory import connection, known_hosts
from gatehouse.errors import GatehouseError
from gatehouse.site import Site


class TrustError(GatehouseError):
    """A host key that can't be had or kept."""


@dataclass(frozen=True)
class Offered:
    """A host key as a gateway offers it: `line` for known_hosts, `fingerprint` as OpenSSH shows it."""

    host: str
    line: str
    fingerprint: str


def offered(site: Site, gateway: str) -> Offered:
    """Asks a gateway for its Ed25519 host key. Raises `TrustError`."""
    data = connection(site, gateway)
    address, port = data["ssh_hostname"], data["ssh_port"]
    try:
        with socket.create_connection((address, port), timeout=10) as wire:
            transport = paramiko.Transport(wire)
            transport.get_security_options().key_types = ("ssh-ed25519",)
            transport.start_client(timeout=10)
            key = transport.get_remote_server_key()
            transport.close()
    except (OSError, paramiko.SSHException) as error:
        raise TrustError(
            f"{gateway}: no host key from {address} port {port}: {error} (is it on, and SSH reachable?)"
        ) from None
    host = address if port == 22 else f"[{address}]:{port}"
    digest = base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")
    return Offered(host, f"{host} {key.get_name()} {key.get_base64()}", f"SHA256:{digest}")


def pin(site: Site, key: Offered) -> None:
    """Writes the key into the site's known hosts. Raises `TrustError` if another key is pinned for that host."""
    path = known_hosts(site)
    lines = path.read_text().splitlines() if path.exists() else []
    for line in lines:
        if line.split(" ", 1)[0] == key.host and line != key.line:
            raise TrustError(
                f"{path.name}: another key is pinned for {key.host} (if it was reinstalled, remove that line)"
            )
    if key.line not in lines:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([*lines, key.line, ""]))
