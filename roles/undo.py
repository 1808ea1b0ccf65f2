"""Changes that could cut the operator off: applied, proven over a new connection, confirmed; rolled back by silence.

Before the first command of such a change the gateway saves what will be replaced and starts a timer that restores it.
Only a new SSH connection stops that timer. The undo needs nobody: it lies on the gateway, and a gateway that lost power
in between undoes at the next start (`gatehouse-undo.service`), before the network comes up.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from paramiko import AuthenticationException, BadHostKeyException
from pyinfra import host as this_host
from pyinfra import logger
from pyinfra.api import FactBase, StringCommand, operation
from pyinfra.api.command import PyinfraCommand
from pyinfra.connectors.sshuserclient import SSHClient

from roles.differences import differs

if TYPE_CHECKING:
    from pyinfra.api.host import Host
    from pyinfra.api.state import State

PENDING = "/var/lib/gatehouse/undo"
Step = Callable[[], Iterable[PyinfraCommand]]


@dataclass(frozen=True)
class Login:
    """How a new connection shall log in after a change, where that differs from now."""

    user: str | None = None
    port: int | None = None


class Unconfirmed(FactBase[set[str]]):
    """The changes that were neither confirmed nor undone yet: a deploy was killed less than their time ago."""

    default = set

    def command(self) -> str:
        """Their undo scripts."""
        return f"ls {PENDING} 2>/dev/null || true"

    def process(self, output: list[str]) -> set[str]:
        """`{"ssh"}`."""
        return {line.removesuffix(".sh") for line in output if line.endswith(".sh")}


@operation()
def guarded(
    change: str,
    *steps: Step,
    saves: Iterable[str],
    restore: str,
    login: Login | None = None,
    seconds: int = 60,
) -> Generator[PyinfraCommand, None, None]:
    """Runs `steps` (generators of commands, such as `lifecycle.files._inner`) under an undo timer.

    `change` is a short name, `saves` the files and folders that the undo puts back (or removes, if they are not there),
    `restore` the shell that then makes the old state live. Nothing happens where no step yields a command, unless a
    killed deploy left the change to be confirmed.
    """
    pending = this_host.connector_data
    if "gatehouse_unconfirmed" not in pending:
        pending["gatehouse_unconfirmed"] = this_host.get_fact(Unconfirmed)
    armed = False
    if change in pending["gatehouse_unconfirmed"]:
        differs(pending, "change", change, "was neither confirmed nor undone yet")
        yield StringCommand(_arm(change, list(saves), restore, seconds))
        armed = True
    for step in steps:
        for command in step():
            if not armed:
                yield StringCommand(_arm(change, list(saves), restore, seconds))
                armed = True
            yield command
    if armed:
        yield Confirm(change, login or Login(), seconds)


def undo_at_once(change: str) -> str:
    """Shell that undoes a change of this run now, and lets its timer go."""
    return f"/bin/sh {PENDING}/{change}.sh && systemctl stop gatehouse-undo-{change}.timer"


def _arm(change: str, saves: list[str], restore: str, seconds: int) -> str:
    """Shell that saves the present state and starts the timer. A pending undo is kept: it is the older."""
    script, archive = f"{PENDING}/{change}.sh", f"{PENDING}/{change}.tar"
    present = 'for f in "$@"; do [ ! -e "$f" ] || printf "%s\\n" "$f"; done'
    undo = "\n".join(
        [
            "#!/bin/sh",
            f"# Undoes the change '{change}' that nobody confirmed.",
            f"logger -t gatehouse -p auth.warning 'change {change} was not confirmed: undoing it'",
            "# What is as it was is never away meanwhile: at start udev names interfaces by what lies there.",
            f"tar -xpf {archive} -C / || exit 1",
            f"tar -tf {archive} | sed 's,/*$,,; s,^/*,/,' | LC_ALL=C sort > {archive}.list",
            f"find {shlex.join(saves)} 2>/dev/null | LC_ALL=C sort | LC_ALL=C comm -23 - {archive}.list"
            ' | while IFS= read -r each; do rm -rf -- "$each"; done',
            "# At start the services have not read anything yet, and none of them may be waited for.",
            f'[ "${{1:-}}" = at-start ] || {{ {restore}; }}',
            f"rm -f -- {script} {archive} {archive}.list",
            "",
        ]
    )
    return (
        f"set -eu; umask 077; mkdir -p {PENDING}; if [ ! -e {script} ]; then set -- {shlex.join(saves)};"
        f" {{ {present}; }} | tar -cpf {archive} -P -T - ;"
        f" printf '%s' {shlex.quote(undo)} > {script}.new; chmod 0700 {script}.new; sync; mv {script}.new {script}; fi;"
        f" systemctl stop gatehouse-undo-{change}.timer 2>/dev/null || true;"
        f" systemctl reset-failed gatehouse-undo-{change}.service 2>/dev/null || true;"
        f" systemd-run --quiet --collect --unit=gatehouse-undo-{change} --on-active={seconds}s"
        f" --timer-property=AccuracySec=1s /bin/sh {script}"
    )


class Confirm(PyinfraCommand):
    """Opens a new connection to the gateway and stops the undo timer through it; fails if it can't."""

    def __init__(self, change: str, login: Login, seconds: int) -> None:
        super().__init__()
        self.change, self.login, self.seconds = change, login, seconds

    def __repr__(self) -> str:
        return f"Confirm({self.change})"

    def execute(self, state: State, host: Host, connector_arguments: Any) -> bool:
        """True once the gateway has been told over a new connection that it may keep the change."""
        first = Login(host.data.get("ssh_user"), host.data.get("ssh_port"))
        before: Login = host.connector_data.get("gatehouse_login", first)
        login = Login(self.login.user or before.user, self.login.port or before.port)
        reason, refusals = "no time", 0
        # Leaves the gateway time to answer before its timer fires.
        until = time.monotonic() + self.seconds - 15
        while time.monotonic() < until and refusals < 3:
            try:
                client = self._connect(host, login)
            except Exception as error:  # noqa: BLE001  whatever keeps a new connection from working is the verdict
                reason = f"{type(error).__name__}: {error}"
                refusals += isinstance(error, AuthenticationException | BadHostKeyException)
                time.sleep(1)
                continue
            status, answer = self._confirm(client, login)
            if status == 0:
                # What follows logs in as was just seen to work, and runs over that connection if its user is the same.
                host.connector_data["gatehouse_login"] = login
                host.connector_data["gatehouse_unconfirmed"].discard(self.change)
                if login.user == host.data.get("ssh_user"):
                    host.connector_data["gatehouse_former_client"] = host.connector.client
                    host.connector.client = client
                return True
            reason = answer
            break
        undone = self._undo_at_once(host, connector_arguments)
        logger.error(
            f"{host.print_prefix}change '{self.change}' could not be confirmed by a new login as {login.user} on port"
            f" {login.port} ({reason}): "
            + ("it has been undone" if undone else f"the gateway undoes it by itself within {self.seconds} s")
        )
        return False

    def _undo_at_once(self, host: Host, connector_arguments: Any) -> bool:
        """Undoes over the old connection if it still answers: quicker than the timer, which stays armed otherwise."""
        try:
            status, _ = host.run_shell_command(
                StringCommand(undo_at_once(self.change)), **{**connector_arguments, "_timeout": 10}
            )
        except Exception:  # noqa: BLE001  the timer is what counts
            return False
        return status

    def _connect(self, host: Host, login: Login) -> SSHClient:
        arguments = host.connector.make_paramiko_kwargs()
        address = arguments.pop("hostname")
        arguments |= {key: value for key, value in (("username", login.user), ("port", login.port)) if value}
        # Whom the change has cut off waits for the first of these only; the others are for a gateway that is slow.
        arguments |= {"timeout": 10, "banner_timeout": 20, "auth_timeout": 20}
        client = SSHClient()
        try:
            client.connect(address, **arguments)
        except BaseException:
            client.close()
            raise
        client.get_transport().sock.setsockopt(6, 1, 1)  # IPPROTO_TCP, TCP_NODELAY: see deploy/session.py
        return client

    def _confirm(self, client: SSHClient, login: Login) -> tuple[int, str]:
        unit = f"gatehouse-undo-{self.change}"
        script = (
            f"set -eu; [ -e {PENDING}/{self.change}.sh ] || {{ echo 'it has been undone already'; exit 1; }};"
            f" systemctl stop {unit}.timer; rm -f {PENDING}/{self.change}.sh {PENDING}/{self.change}.tar"
        )
        sudo = "" if login.user == "root" else "sudo -n "
        channel = client.get_transport().open_session(timeout=30)
        channel.exec_command(f"{sudo}sh -c {shlex.quote(script)}")
        answer = (channel.makefile("r").read() + channel.makefile_stderr("r").read()).strip()
        return channel.recv_exit_status(), answer.decode() if isinstance(answer, bytes) else answer
