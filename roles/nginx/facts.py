"""Which public names the front serves, and which of their keys it can't read."""

from __future__ import annotations

from pyinfra.api import FactBase


class Enabled(FactBase[list[str]]):
    """The files in a folder of the front."""

    default = list

    def command(self, folder: str) -> str:
        """One look."""
        return f"ls -1 {folder} 2>/dev/null || true"

    def process(self, output: list[str]) -> list[str]:
        """Their names."""
        return sorted(line.strip() for line in output if line.strip())


class Unreadable(FactBase[list[str]]):
    """Keys in a folder of certificates that are not of the front's group alone to read."""

    default = list

    def command(self, folder: str, group: str) -> str:
        """One look; there may be none yet."""
        return (
            f"find -L {folder}/ -mindepth 2 -maxdepth 2 -name key.pem '(' -not -group {group} -o -not -perm 0640 ')'"
            " 2>/dev/null || true"
        )

    def process(self, output: list[str]) -> list[str]:
        """Their paths."""
        return sorted(line.strip() for line in output if line.strip())
