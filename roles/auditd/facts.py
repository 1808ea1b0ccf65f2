"""Whether this machine's kernel can be given rules, and which it has."""

from __future__ import annotations

from pyinfra.api import FactBase

from roles.auditd.rules import Rules, listed


class Audits(FactBase[bool]):
    """Whether the kernel is this machine's own and records: not in a container, nor where it was started without."""

    default = bool

    def command(self) -> str:
        """Asks no program of auditd's: it may not be installed yet."""
        return (
            "systemd-detect-virt --quiet --container || [ ! -e /proc/self/loginuid ]"
            " || grep -qwE 'audit=(0|off)' /proc/cmdline || echo audits"
        )

    def process(self, output: list[str]) -> bool:
        """`audits`, or nothing."""
        return "audits" in output


class Loaded(FactBase[Rules]):
    """The rules and settings that the kernel has."""

    default = Rules

    def command(self) -> str:
        """Settings, then rules; nothing as long as auditd is not installed."""
        return "{ auditctl -s && auditctl -l; } 2>/dev/null; true"

    def process(self, output: list[str]) -> Rules:
        """`enabled 2`, …; `-w /etc/passwd -p wa -k accounts`, …"""
        return listed(output)
