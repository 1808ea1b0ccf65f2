"""What the operations of `lifecycle` ask a gateway: packages, files, units.

Each of these facts can be asked for several operations at once (`deploy.foresight`): `together` is the command for all
of these questions, and `part` gives of its output what the command of one of them would have printed.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import Any

from pyinfra.api import FactBase

LOADED = "/run/gatehouse/loaded"


class Packages(FactBase[set[str]]):
    """Which of the named Debian packages are installed."""

    default = set

    def command(self, names: list[str]) -> str:
        """One dpkg-query."""
        return f"dpkg-query -W -f='${{db:Status-Abbrev}} ${{Package}}\\n' {shlex.join(names)} 2>/dev/null || true"

    def together(self, asked: Iterable[dict[str, Any]]) -> str:
        """One dpkg-query for the packages of all questions."""
        return self.command(sorted({name for each in asked for name in each["names"]}))

    def part(self, output: list[str], names: list[str]) -> list[str]:
        """The lines about these packages."""
        return [line for line in output if not set(names).isdisjoint(line.split()[1:])]

    def process(self, output: list[str]) -> set[str]:
        """`{"mosquitto", …}`."""
        return {line.split()[1] for line in output if line.startswith(("ii ", "hi "))}


class FileStates(FactBase[dict[str, tuple[str, str, str, str]]]):
    """`{path: (owner, group, octal mode, SHA-256)}` of the files, `"directory"` for a digest of the directories."""

    default = dict

    def command(self, paths: list[str]) -> str:
        """One stat and one sha256sum for all."""
        names = shlex.join(paths)
        return f"stat -c '%U %G %a %F|%n' -- {names} 2>/dev/null; sha256sum -- {names} 2>/dev/null; true"

    def together(self, asked: Iterable[dict[str, Any]]) -> str:
        """One stat and one sha256sum for the files of all questions."""
        return self.command(sorted({path for each in asked for path in each["paths"]}))

    def part(self, output: list[str], paths: list[str]) -> list[str]:
        """The lines about these files."""
        return [line for line in output if (line.partition("|")[2] or line.partition("  ")[2]) in paths]

    def process(self, output: list[str]) -> dict[str, tuple[str, str, str, str]]:
        """Symbolic links and anything else that is neither file nor directory count as missing."""
        owners: dict[str, tuple[str, str, str]] = {}
        states: dict[str, tuple[str, str, str, str]] = {}
        for line in output:
            head, bar, path = line.partition("|")
            if bar and head.split(" ", 3)[3:] in (["regular file"], ["regular empty file"], ["directory"]):
                owner, group, mode, kind = head.split(" ", 3)
                owners[path] = (owner, group, mode)
                if kind == "directory":
                    states[path] = (owner, group, mode, kind)
            elif not bar and len(digest := line.split("  ", 1)) == 2 and digest[1] in owners:
                states[digest[1]] = (*owners[digest[1]], digest[0])
        return states


class Accounts(FactBase[set[str]]):
    """Which of the named accounts there are."""

    default = set

    def command(self, names: list[str]) -> str:
        """One getent."""
        return f"getent passwd -- {shlex.join(names)} || true"

    def process(self, output: list[str]) -> set[str]:
        """`{"gatehouse-intake"}`."""
        return {line.split(":")[0] for line in output}


class UnitStates(FactBase[dict[str, dict[str, str]]]):
    """`{unit: {"ActiveState": …, "UnitFileState": …}}` of several units."""

    default = dict

    def command(self, units: list[str]) -> str:
        """One systemctl."""
        return f"systemctl show -p Id -p ActiveState -p UnitFileState -- {shlex.join(units)}"

    def together(self, asked: Iterable[dict[str, Any]]) -> str:
        """One systemctl for the units of all questions."""
        return self.command(sorted({unit for each in asked for unit in each["units"]}))

    def part(self, output: list[str], units: list[str]) -> list[str]:
        """The blocks of these units, each with a blank line behind it."""
        blocks = [block.splitlines() for block in "\n".join(output).split("\n\n")]
        mine = [block for block in blocks if any(f"Id={unit}" in block for unit in units)]
        return [line for block in mine for line in (*block, "")]

    def process(self, output: list[str]) -> dict[str, dict[str, str]]:
        """A blank line stands between units."""
        blocks = "\n".join(output).strip().split("\n\n")
        states = [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in blocks]
        return {state.pop("Id"): state for state in states if "Id" in state}


class UnitState(FactBase[dict[str, str]]):
    """A unit's `ActiveState`, `UnitFileState`, `NeedDaemonReload` and whether it has `Loaded` what is on disk."""

    default = dict

    def command(self, unit: str, loads: list[str]) -> str:
        """One systemctl and one comparison with the stamp."""
        return f"{self._show([unit])}; {self._files(unit, loads)}"

    def together(self, asked: Iterable[dict[str, Any]]) -> str:
        """One systemctl for all units; before the files of each question a line that names it."""
        questions = list(asked)
        files = (f"printf '%s\\n' {shlex.quote(self._mark(**each))}; {self._files(**each)}" for each in questions)
        return "; ".join([self._show(sorted({each["unit"] for each in questions})), *files])

    def part(self, output: list[str], unit: str, loads: list[str]) -> list[str]:
        """The block of this unit, known by any of its names, and what follows the line that names the question."""
        start = next(i for i, line in enumerate(output) if line.startswith(self._MARK))
        blocks = [block.splitlines() for block in "\n".join(output[:start]).split("\n\n")]
        known = [line for block in blocks if f" {unit} " in f" {self._names(block)} " for line in block]
        mine = output[output.index(self._mark(unit, loads)) + 1 :]
        end = next((i for i, line in enumerate(mine) if line.startswith(self._MARK)), len(mine))
        return known + mine[:end]

    _MARK = "Files of "

    def _mark(self, unit: str, loads: list[str]) -> str:
        return self._MARK + shlex.join([unit, *loads])

    def _names(self, block: list[str]) -> str:
        return next((line.removeprefix("Names=") for line in block if line.startswith("Names=")), "")

    def _show(self, units: list[str]) -> str:
        properties = "-p Names -p ActiveState -p UnitFileState -p NeedDaemonReload -p DropInPaths"
        return f"systemctl show {properties} -- {shlex.join(units)}"

    def _files(self, unit: str, loads: list[str]) -> str:
        compare = f"sha256sum -- {shlex.join(loads)} 2>&1 | cmp -s - {LOADED}/{shlex.quote(unit)}" if loads else "true"
        return (
            f"for f in /etc/systemd/system/{shlex.quote(unit)}.d/*.conf; do [ ! -e $f ] || echo OnDisk=$f; done;"
            f" if {compare}; then echo Loaded=yes; else echo Loaded=no; fi"
        )

    def process(self, output: list[str]) -> dict[str, str]:
        """`{"ActiveState": "active", …}`; systemd overlooks a drop-in whose directory is newer than its last reload."""
        state = dict(line.split("=", 1) for line in output if "=" in line and not line.startswith("OnDisk="))
        on_disk = {line.removeprefix("OnDisk=") for line in output if line.startswith("OnDisk=")}
        if not on_disk.issubset(state.get("DropInPaths", "").split()):
            state["NeedDaemonReload"] = "yes"
        return state
