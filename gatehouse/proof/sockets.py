"""Reads what `ss` prints."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar


@dataclass(frozen=True)
class Socket:
    """A socket that waits for others: `label` is `8883/tcp`; the process that has it, and the systemd unit of that."""

    label: str
    address: str
    program: str
    unit: str

    @property
    def asks(self) -> bool:
        """Whether it is a UDP socket in the range that the kernel gives to those who ask (ip_local_port_range)."""
        port, _, transport = self.label.partition("/")
        return transport == "udp" and 32768 <= int(port) <= 60999


@dataclass(frozen=True)
class Connection:
    """A socket that has a peer, or asks for one: both ends, the process that has it, and the systemd unit of that."""

    transport: str
    address: str
    port: int
    peer: str
    peer_port: int
    program: str
    unit: str

    def __str__(self) -> str:
        ends = f"{self.address} port {self.port} with {self.peer} port {self.peer_port}"
        return f"{ends}/{self.transport}: {self.program}{f' of {self.unit}' if self.unit else ''}"


LISTENING = ("ss", "-H", "-t", "-u", "-l", "-n", "-p", "--cgroup")
CONNECTED = ("ss", "-H", "-t", "-u", "-n", "-p", "--cgroup")
Seen = TypeVar("Seen")


def lasting(look: Callable[[], list[Seen]]) -> list[Seen]:
    """What is there at two looks, one after the other: what is only asked for in passing is gone at the second."""
    first, second = look(), look()
    return [each for each in first if each in second]


def sockets(text: str) -> list[Socket]:
    """The sockets in the output of `LISTENING`."""
    return [
        Socket(f"{port}/{fields[0]}", address, *_owner(line))
        for line, fields in _lines(text)
        for address, port in [_end(fields[4])]
    ]


def connections(text: str) -> list[Connection]:
    """What is established, or asked for, in the output of `CONNECTED`."""
    return [
        Connection(fields[0], *_numbered(fields[4]), *_numbered(fields[5]), *_owner(line))
        for line, fields in _lines(text)
        if fields[1] in ("ESTAB", "SYN-SENT")
    ]


def _lines(text: str) -> Iterator[tuple[str, list[str]]]:
    for line in text.splitlines():
        fields = line.split()
        if len(fields) >= 6 and fields[0] in ("tcp", "udp"):
            yield line, fields


def _end(text: str) -> tuple[str, str]:
    """Address and port."""
    address, _, port = text.rpartition(":")
    return address.strip("[]"), port


def _numbered(text: str) -> tuple[str, int]:
    address, port = _end(text)
    return address.partition("%")[0].removeprefix("::ffff:"), int(port)


def _owner(line: str) -> tuple[str, str]:
    """Program and systemd unit."""
    program = re.search(r'"([^"]+)"', line)
    unit = re.search(r"cgroup:\S*/([^/\s]+\.(?:service|socket|scope))", line)
    return (program[1] if program else "the kernel"), (unit[1] if unit else "")
