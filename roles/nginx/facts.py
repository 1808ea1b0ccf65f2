"""Which public names the front serves, and which of their keys it can't read."""

from __future__ import annotations

from pyinfra.api import FactBase


class _Lines(FactBase[list[str]]):
    """What is listed, a line each."""

    default = list

    def process(self, output: list[str]) -> list[str]:
        """In order."""
        return sorted(line.strip() for line in output if line.strip())


class Enabled(_Lines):
    """The names of the files in a folder of the front."""

    def command(self, folder: str) -> str:
        """One look."""
        return f"ls -1 {folder} 2>/dev/null || true"


class Unreadable(_Lines):
    """The paths of keys in a folder of certificates that are not of the front's group alone to read."""

    def command(self, folder: str, group: str) -> str:
        """One look; there may be none yet."""
        return (
            f"find -L {folder}/ -mindepth 2 -maxdepth 2 -name key.pem '(' -not -group {group} -o -not -perm 0640 ')'"
            " 2>/dev/null || true"
        )
