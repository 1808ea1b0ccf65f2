"""One interface to both kinds of lab: which kind one is, is seen from what it left in its state directory."""

from __future__ import annotations

from pathlib import Path

from lab import hosts, manage
from lab.hosts import Completed
from lab.manage import Row
from lab.state import Log, State
from lab.topology import Topology
from lab.vm import manage as machines


def up(topology: Topology, debian: str = "12", log: Log = print, home: Path | None = None) -> State:
    """Build the lab, or repair what is there; returns its state (SSH key, known_hosts). Idempotent. Raises LabError."""
    return (machines if topology.machines else manage).up(topology, debian, log, home)


def down(name: str, log: Log = print, home: Path | None = None) -> None:
    """Remove the lab and its keys. The images stay. Nothing to remove is no error."""
    (machines if _of_machines(name, home) else manage).down(name, log, home)


def status(name: str) -> list[Row]:
    """The hosts of a lab, running or not; empty if there is no lab of that name."""
    return machines.status(name) if _of_machines(name) else manage.status(name)


def restart(name: str, host: str, log: Log = print) -> None:
    """Restart a host as a reboot does: its processes go, its disk stays. Waits for SSH on a gateway."""
    (machines if _of_machines(name) else manage).restart(name, host, log)


def run(
    name: str,
    host: str,
    argv: list[str] | tuple[str, ...],
    stdin: str | bytes | None = None,
    timeout: float | None = 60,
) -> Completed:
    """Run a program as root on a host of the lab and wait for it.

    Raises LabError if there is no such host, TimeoutError after `timeout` seconds (the program is killed then).
    A program that fails is no error: look at `returncode` (126 or 127: there is no such program).
    """
    return (machines if _of_machines(name) else hosts).run(name, host, argv, stdin, timeout)


def shell(name: str, host: str) -> int:
    """A login shell on a host, on this terminal; returns its exit status."""
    return (machines if _of_machines(name) else hosts).shell(name, host)


def _of_machines(name: str, home: Path | None = None) -> bool:
    return machines.folder(name, home).is_dir()
