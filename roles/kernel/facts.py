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
        """One loop in the shell, without a process a file."""
        return (
            f"cd /proc/sys && for f in {' '.join(patterns)}; do [ -f $f ] || continue; v=; read -r v <$f;"
            " [ -w $f ] && w=rw || w=ro; printf '%s %s %s\\n' $f $w \"$v\"; done 2>/dev/null"
        )

    def process(self, output: list[str]) -> dict[str, Setting]:
        """`{"net/ipv4/conf/br-iot/rp_filter": Setting("1", True), …}`."""
        rows = [line.split(" ", 2) for line in output]
        return {row[0]: Setting(row[2].strip(), row[1] == "rw") for row in rows if len(row) == 3}
