"""Which public names the front serves."""

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
