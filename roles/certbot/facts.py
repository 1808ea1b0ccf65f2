"""What there is to do for the certificates of the public CA."""

from __future__ import annotations

from pyinfra.api import FactBase


class Due(FactBase[list[str]]):
    """The names whose certificate has to be issued, renewed or installed; all of them before the program is there."""

    default = list

    def command(self, program: str, names: list[str]) -> str:
        """Asks the gateway's own program."""
        return f"if [ -x {program} ]; then {program} due; else printf '%s\\n' {' '.join(names)}; fi"

    def process(self, output: list[str]) -> list[str]:
        """The lines as they are."""
        return [line.strip() for line in output if line.strip()]
