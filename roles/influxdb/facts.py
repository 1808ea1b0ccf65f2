"""What the database is like now."""

from __future__ import annotations

import shlex

from pyinfra.api import FactBase

DECLARED = ["as declared"]


class Deployed(FactBase[str]):
    """The installed version of a Debian package; empty where it is not installed."""

    default = str

    def command(self, package: str) -> str:
        """One dpkg-query."""
        shown = "'${db:Status-Abbrev} ${Version}\\n'"
        return f"dpkg-query -W -f={shown} {shlex.quote(package)} 2>/dev/null || true"

    def process(self, output: list[str]) -> str:
        """`1.6.7~rc0-1+b13`."""
        return next((line.split()[1] for line in output if line.startswith(("ii ", "hi "))), "")


class Differences(FactBase[list[str]]):
    """What of accounts, retention and summaries is not as declared, as the gateway's steward says it."""

    default = list

    def command(self, steward: str) -> str:
        """The steward looks at all of it at once; its own secrets stay with it."""
        return f"if [ -e {steward}/__main__.py ]; then python3 -B {steward} check 2>&1; else echo not set up; fi"

    def process(self, output: list[str]) -> list[str]:
        """`[]` for as declared."""
        return [] if output == DECLARED else list(output)
