"""The operator's end of a machine's console: programs run in the guest, and a terminal in it, without any network."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import secrets
import select
import shutil
import sys
import termios
import time
import tty
from collections.abc import Iterator
from typing import IO

from lab.errors import LabError
from lab.hosts import Completed
from lab.vm.machine import CONSOLES, SHELL, Machine

_GRACE = 30  # seconds for the way there and back, in a busy machine


def run(machine: Machine, argv: list[str], stdin: str | bytes | None = None, timeout: float | None = 60) -> Completed:
    """Run a program as root in a machine and wait for it. Raises LabError, and TimeoutError after `timeout` seconds."""
    given = stdin.encode() if isinstance(stdin, str) else stdin
    identity = secrets.token_hex(8)
    request = {
        "id": identity,
        "argv": argv,
        "stdin": None if given is None else base64.b64encode(given).decode(),
        "timeout": timeout,
    }
    patience = None if timeout is None else timeout + _GRACE
    with _free(machine, timeout) as port, machine.connect(f"console.{port}", patience) as connection:
        connection.sendall(json.dumps(request).encode() + b"\n")
        with connection.makefile("rb") as stream:
            # First may come what another, who was killed, did not wait for.
            for line in _lines(machine, stream):
                if f'"{identity}"'.encode() in line:
                    answer = json.loads(line)
                    break
            else:
                raise LabError(f"lab: {machine.name}: ended while it ran {argv[0]}")
    if answer["returncode"] is None:
        raise TimeoutError(f"lab: {machine.name}: {' '.join(argv)}: no end after {timeout} s")
    out, err = (base64.b64decode(answer[name]).decode(errors="replace") for name in ("stdout", "stderr"))
    return Completed(out, err, answer["returncode"])


def _lines(machine: Machine, answers: IO[bytes]) -> Iterator[bytes]:
    try:
        yield from answers
    except TimeoutError:
        raise LabError(f"lab: {machine.name}: its console doesn't answer (see {machine.console_log})") from None


def answers(machine: Machine, seconds: float) -> bool:
    """Whether the machine's console answers within so many seconds."""
    try:
        return run(machine, ["true"], timeout=seconds).returncode == 0
    except (LabError, TimeoutError):
        return False


@contextlib.contextmanager
def _free(machine: Machine, timeout: float | None) -> Iterator[int]:
    """A console that nobody uses now; the kernel frees it with whoever has it."""
    deadline = None if timeout is None else time.monotonic() + timeout + _GRACE
    while deadline is None or time.monotonic() < deadline:
        for port in range(CONSOLES):
            lock = os.open(machine.folder / f"lock.{port}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                continue
            try:
                yield port
            finally:
                os.close(lock)
            return
        time.sleep(0.05)
    raise LabError(f"lab: {machine.name}: all of its {CONSOLES} consoles are in use")


def shell(machine: Machine, argv: list[str]) -> int:
    """A terminal in a machine, on this one, until it is closed there; returns 0."""
    begin, end = (f"\x1b]gatehouse;{secrets.token_hex(16)}\x07".encode() for _ in range(2))
    size = shutil.get_terminal_size()
    # What comes before the beginning was meant for somebody who has left.
    command = ["sh", "-c", 'printf %s "$0"; exec "$@"', begin.decode(), *argv]
    wanted = {"argv": command, "term": os.environ.get("TERM", "dumb"), "rows": size.lines, "columns": size.columns}
    with machine.connect(f"console.{SHELL}", None) as connection, _raw(sys.stdin.fileno()):
        connection.sendall(json.dumps({**wanted, "end": end.decode()}).encode() + b"\n")
        sources, tail, begun = [connection.fileno(), sys.stdin.fileno()], b"", False
        while True:
            ready, _, _ = select.select(sources, [], [])
            if sys.stdin.fileno() in ready:
                typed = os.read(sys.stdin.fileno(), 65536)
                if typed:
                    connection.sendall(typed)
                else:  # no terminal but a file: it has been read
                    connection.sendall(b"\x04")
                    sources.remove(sys.stdin.fileno())
            if connection.fileno() in ready:
                said = connection.recv(65536)
                text = tail + said
                if not begun:
                    _, found, after = text.partition(begin)
                    begun, text = bool(found), after if found else text[-len(begin) :]
                    if not begun and said:
                        tail = text
                        continue
                text, closed, _ = text.partition(end)
                keep = 0 if closed else begins(text, end)
                os.write(sys.stdout.fileno(), text[: len(text) - keep])
                tail = text[len(text) - keep :]
                if closed or not said:
                    return 0


def begins(text: bytes, end: bytes) -> int:
    """How many bytes at the end of `text` may be the beginning of `end`."""
    return next((n for n in range(min(len(text), len(end) - 1), 0, -1) if text.endswith(end[:n])), 0)


@contextlib.contextmanager
def _raw(terminal: int) -> Iterator[None]:
    """The terminal passes every key on, and is itself again afterwards; anything else is left alone."""
    if not os.isatty(terminal):
        yield
        return
    before = termios.tcgetattr(terminal)
    tty.setraw(terminal)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
