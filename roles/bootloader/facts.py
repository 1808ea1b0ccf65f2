"""Whether GRUB starts this machine, and whether its menu is made from what is on the disk."""

from __future__ import annotations

from collections.abc import Sequence

from pyinfra.api import FactBase

from roles.bootloader import MENU, SCRIPT

_MAKERS = "[ -x /usr/sbin/grub-mkconfig ] && [ -x /etc/grub.d/10_linux ]"


class Grub(FactBase[bool]):
    """Whether the machine has a menu of GRUB's that Debian makes; a container is started by the machine underneath."""

    default = bool

    def command(self) -> str:
        """A look at three files."""
        container = "systemd-detect-virt --quiet --container 2>/dev/null"
        return f"if ! {container} && {_MAKERS} && [ -f {MENU} ]; then echo grub; fi"

    def process(self, output: list[str]) -> bool:
        """`grub`."""
        return "grub" in output


class Lacking(FactBase[list[str]]):
    """What of the menu is not as declared: `mode`, `password`, `arguments`."""

    default = list

    def command(self, digest: str, arguments: Sequence[str]) -> str:
        """`digest` is that of the script's part, `arguments` those that each of Debian's kernels gets."""
        part = f"sed -n '\\|^### BEGIN %s ###$|,\\|^### END %s ###$|p' {MENU}"
        mine, debians = (part % (path, path) for path in (SCRIPT, "/etc/grub.d/10_linux"))
        kernels = f"{debians} | grep -E '^[[:space:]]*linux(16|efi)?[[:space:]]'"
        told = " || ".join(f"{kernels} | grep -qvE '[[:space:]]{word}([[:space:]]|$)'" for word in arguments)
        return (
            f"[ \"$(stat -c '%U %G %a' {MENU})\" = 'root root 600' ] || echo mode;"
            f" {mine} | sed '1d;$d' | sha256sum | grep -q ^{digest} || echo password;"
            f" if {told}; then echo arguments; fi"
        )

    def process(self, output: list[str]) -> list[str]:
        """As they are printed."""
        return output
