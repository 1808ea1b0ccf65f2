"""Whether this machine's kernel can be given profiles, and what runs without the one that it should have."""

from __future__ import annotations

from dataclasses import dataclass

from pyinfra.api import FactBase

# `confines`, and a line for each process that began before its profile (one named by a program's path) was loaded.
SHELL = """
systemd-detect-virt --quiet --container || [ ! -w /sys/kernel/security/apparmor/.load ] || {
    echo confines
    for program in $(sed -n 's/^\\(\\/[^ *{]*\\) (.*/\\1/p' /sys/kernel/security/apparmor/profiles); do
        for process in $(pidof "$program"); do
            [ "$(cat /proc/$process/attr/apparmor/current)" != unconfined ] || ps -o unit= -p "$process"
        done
    done
} 2>/dev/null; true
"""


@dataclass(frozen=True)
class State:
    """Whether the kernel is this machine's own and has AppArmor on, and which units run without their profile."""

    confines: bool = False
    without: tuple[str, ...] = ()


class Confinement(FactBase[State]):
    """The state of AppArmor; a container has none, as it would change that of the machine underneath."""

    default = State

    def command(self) -> str:
        """A few processes at most."""
        return SHELL

    def process(self, output: list[str]) -> State:
        """`confines`, then units."""
        return State("confines" in output, tuple(sorted({line.strip() for line in output} - {"confines", "", "-"})))
