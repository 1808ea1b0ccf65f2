"""What the dashboards are like now."""

from __future__ import annotations

from pyinfra.api import FactBase

DECLARED = ["as declared"]


class Differences(FactBase[list[str]]):
    """What is not as declared, as the gateway's steward says it after one login; its secrets stay with it."""

    default = list

    def command(self, steward: str) -> str:
        """The steward's word."""
        return f"if [ -e {steward} ]; then python3 -I {steward} check 2>&1; else echo not set up; fi"

    def process(self, output: list[str]) -> list[str]:
        """`[]` for as declared."""
        return [] if output == DECLARED else list(output)
