"""What the database is like now."""

from __future__ import annotations

from pyinfra.api import FactBase

DECLARED = ["as declared"]


class Differences(FactBase[list[str]]):
    """What of accounts, retention and summaries is not as declared, as the gateway's steward says it."""

    default = list

    def command(self, steward: str) -> str:
        """The steward looks at all of it at once; its own secrets stay with it."""
        return f"if [ -e {steward}/__main__.py ]; then python3 -B {steward} check 2>&1; else echo not set up; fi"

    def process(self, output: list[str]) -> list[str]:
        """`[]` for as declared."""
        return [] if output == DECLARED else list(output)
