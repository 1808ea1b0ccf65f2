"""Reads what `ss` prints."""

from __future__ import annotations

import re
from dataclasses import dataclass


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


def sockets(text: str) -> list[Socket]:
    """The sockets in the output of `ss -H -t -u -l -n -p --cgroup`."""
    found = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 6 or fields[0] not in ("tcp", "udp"):
            continue
        address, _, port = fields[4].rpartition(":")
        program, unit = (
            re.search(r'"([^"]+)"', line),
            re.search(r"cgroup:\S*/([^/\s]+\.(?:service|socket|scope))", line),
        )
        found.append(
            Socket(
                f"{port}/{fields[0]}",
                address.strip("[]"),
                program[1] if program else "the kernel",
                unit[1] if unit else "",
            )
        )
    return found
