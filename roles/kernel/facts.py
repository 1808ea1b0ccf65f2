"""pyinfra has a fact for every setting of the kernel (slow, no patterns): this one asks for those that are wanted."""

from __future__ import annotations

from dataclasses import dataclass

from pyinfra.api import FactBase


@dataclass(frozen=True)
class Setting:
    """A setting as it is now, and whether it can be changed (in a container most of /proc/sys is read-only)."""

    value: str
    writable: bool


class Settings(FactBase[dict[str, Setting]]):
    """`{path below /proc/sys: Setting}` of what the patterns name and this kernel has."""

    default = dict

    def command(self, patterns: list[str]) -> str:
        """Two processes, not one a file.

        The shell's own `read` would do without any, but takes one character at a time, and of a number the kernel
        gives only what is read first: of 10 the 1.
        """
        return (
            f'cd /proc/sys && set -- && for f in {" ".join(patterns)}; do [ -f $f ] || continue; set -- "$@" $f;'
            " [ -w $f ] && echo rw $f || echo ro $f; done 2>/dev/null; grep -s -m 1 '' /dev/null \"$@\"; true"
        )

    def process(self, output: list[str]) -> dict[str, Setting]:
        """`{"net/ipv4/conf/br-iot/rp_filter": Setting("1", True), …}`."""
        writable = {line[3:]: line[:2] == "rw" for line in output if line[:3] in ("rw ", "ro ")}
        values = dict(line.split(":", 1) for line in output if ":" in line)
        return {path: Setting(value.strip(), writable[path]) for path, value in values.items() if path in writable}
