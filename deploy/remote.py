"""One SSH connection to a gateway, for commands that are no deploy: it is opened in a fraction of pyinfra's start."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import paramiko

from deploy.inventory import connection
from deploy.shell import Shell
from gatehouse.errors import GatehouseError
from gatehouse.site import Site


class RemoteError(GatehouseError):
    """A gateway that can't be reached, or a command that failed there."""


@dataclass(frozen=True)
class Remote:
    """An open connection to a gateway, as root."""

    gateway: str
    client: paramiko.SSHClient
    sudo: bool

    def _start(self, script: str) -> paramiko.Channel:
        transport = self.client.get_transport()
        assert transport is not None  # noqa: S101  an open client has one
        channel = transport.open_session(timeout=20)
        channel.exec_command(f"{'sudo -n ' if self.sudo else ''}sh -c {shlex.quote(script)}")
        return channel

    def _end(self, channel: paramiko.Channel, output: str = "") -> None:
        errors = channel.makefile_stderr("rb").read().decode(errors="replace")
        if channel.recv_exit_status() != 0:
            said = [line for line in (errors or output).splitlines() if line.strip()] or ["no word"]
            raise RemoteError(f"{self.gateway}: {said[-1]}")

    def run(self, script: str, stdin: str = "") -> str:
        """Runs shell as root and returns what it printed. Raises `RemoteError` with its last words if it fails."""
        channel = self._start(script)
        channel.sendall(stdin.encode())
        channel.shutdown_write()
        output = channel.makefile("rb").read().decode(errors="replace")
        self._end(channel, output)
        return output

    def shell(self) -> Shell:
        """A shell as root that is asked one thing after the other; it ends with the connection."""
        return Shell(self._start("exec sh"))

    @contextmanager
    def reading(self, script: str) -> Iterator[BinaryIO]:
        """Runs shell as root whose output is read as it comes. Raises `RemoteError` at the end if it fails."""
        channel = self._start(script)
        channel.shutdown_write()
        yield channel.makefile("rb")
        self._end(channel)

    @contextmanager
    def writing(self, script: str) -> Iterator[tuple[Callable[[bytes], None], Callable[[], str]]]:
        """Runs shell as root: what sends it bytes, and what ends its input and returns what it then prints.

        Raises `RemoteError` with its last words if it fails, also while it is being sent to.
        """
        channel = self._start(script)

        def answer() -> str:
            channel.shutdown_write()
            output = channel.makefile("rb").read().decode(errors="replace")
            self._end(channel, output)
            return output

        try:
            yield channel.sendall, answer
        except OSError:
            # It hung up: what it says is the reason.
            self._end(channel)
            raise


@contextmanager
def connected(site: Site, gateway: str) -> Iterator[Remote]:
    """A connection to a gateway with its pinned host key. Raises `RemoteError`."""
    data = connection(site, gateway)
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    key = data.get("ssh_key")
    if not Path(data["ssh_known_hosts_file"]).exists():
        raise RemoteError(f"{gateway}: its host key is not pinned yet (`./kit trust --site {site.name}`)")
    try:
        client.load_host_keys(data["ssh_known_hosts_file"])
        client.connect(
            data["ssh_hostname"], data["ssh_port"], data["ssh_user"],
            key_filename=key, look_for_keys=key is None, allow_agent=key is None, timeout=10,
        )  # fmt: skip
        client.get_transport().sock.setsockopt(6, 1, 1)  # type: ignore[union-attr]  # TCP_NODELAY: see session.py
    except (OSError, paramiko.SSHException) as error:
        raise RemoteError(f"{gateway}: no SSH to {data['ssh_hostname']} port {data['ssh_port']}: {error}") from None
    try:
        yield Remote(gateway, client, data["ssh_user"] != "root")
    finally:
        client.close()
