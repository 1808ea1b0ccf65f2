"""What AIDE's program has left on the gateway."""

from __future__ import annotations

from pyinfra.api import FactBase

from roles.integrity import files

# Its status is one line of JSON a key.
SHELL = f"""
[ -s {files.DATABASE} ] || echo 'has no database'
[ ! -s {files.DATABASE} ] || grep -qs "$(sha256sum <{files.RULES} | cut -c1-64)" {files.STATUS} ||
    echo 'has not looked since its rules were changed'
grep -qs '"count": [1-9]' {files.STATUS} && echo 'has found files of nobody (./kit integrity shows them)'
true
"""


class Undecided(FactBase[list[str]]):
    """Why AIDE has to look: it has no database, other rules, or found something."""

    default = list

    def command(self) -> str:
        """Reads what is there; runs nothing."""
        return SHELL

    def process(self, output: list[str]) -> list[str]:
        """`["has no database"]`."""
        return [line for line in output if line.startswith("has ")]
