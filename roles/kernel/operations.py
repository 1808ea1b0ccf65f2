"""Makes the running kernel's settings those of a sysctl.d file."""

from __future__ import annotations

import fnmatch
from collections.abc import Generator

from pyinfra import host
from pyinfra.api import StringCommand, operation

from roles.differences import differs
from roles.kernel.facts import Settings
from roles.lifecycle import File


def wanted(file: File) -> dict[str, str]:
    """`{pattern below /proc/sys: value}` of a sysctl.d(5) file, in its order."""
    lines = [line.partition("=") for line in file.content.decode().splitlines() if line and line[0] not in "#;"]
    return {key.strip().removeprefix("-").replace(".", "/"): value.strip() for key, _, value in lines}


@operation()
def settled(file: File) -> Generator[StringCommand, None, None]:
    """Sets what differs from the file and can be set. What is read-only stays: it is the machine's underneath."""
    patterns = wanted(file)
    current = host.get_fact(Settings, patterns=list(patterns))
    writes = []
    for pattern, value in patterns.items():
        for path, setting in current.items():
            if fnmatch.fnmatchcase(path, pattern) and setting.value != value and setting.writable:
                differs(host.connector_data, "kernel", path, f"{setting.value}, not {value}")
                writes.append(f"echo {value} >/proc/sys/{path}")
    if writes:
        yield StringCommand("set -e; " + "; ".join(writes))
