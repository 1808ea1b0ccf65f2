"""Whether the host's kernel has WireGuard, and whether the tunnel that runs is the declared one."""

from __future__ import annotations

from pyinfra.api import FactBase

from roles.wireguard import files


class InKernel(FactBase[bool]):
    """Whether the kernel has it, or can load it. A container's may lack it: a program does it there."""

    def command(self) -> str:
        """Without making an interface: asking changes nothing."""
        return "{ [ -d /sys/module/wireguard ] || modprobe -n -q wireguard 2>/dev/null; } && echo yes || echo no"

    def process(self, output: list[str]) -> bool:
        """`yes` or `no`."""
        return output[-1:] == ["yes"]


class AsDeclared(FactBase[bool]):
    """Whether the running tunnel has the peers of its file, and no others. No key leaves the gateway."""

    def command(self) -> str:
        """Where there is no tunnel yet there is nothing to compare: it is going to be made from the file."""
        return f"[ ! -x {files.PROGRAM} ] || {files.PROGRAM} same && echo yes || echo no"

    def process(self, output: list[str]) -> bool:
        """`yes` or `no`."""
        return output[-1:] == ["yes"]
