"""Whether the host has a clock of its own."""

from __future__ import annotations

from pyinfra.api import FactBase


class Contained(FactBase[bool]):
    """Whether the host is a container, whose clock is that of the machine underneath."""

    def command(self) -> str:
        """`systemd-detect-virt` ends in failure where it finds nothing."""
        return "systemd-detect-virt --container || true"

    def process(self, output: list[str]) -> bool:
        """`none` on machines, the kind of container otherwise."""
        return output[-1:] not in ([], ["none"])
