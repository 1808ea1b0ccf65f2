"""Reads what `ss` prints."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Socket:
    """A socket that waits for others: `label` is `8883/tcp`, `program` the process that has it."""

    label: str
    address: str
    program: str


def sockets(text: str) -> list[Socket]:
    """The sockets in the output of `ss -H -t -u -l -n -p`."""
    found = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 6 or fields[0] not in ("tcp", "udp"):
            continue
        address, _, port = fields[4].rpartition(":")
        program = re.search(r'"([^"]+)"', line)
        found.append(Socket(f"{port}/{fields[0]}", address.strip("[]"), program[1] if program else "the kernel"))
    return found
