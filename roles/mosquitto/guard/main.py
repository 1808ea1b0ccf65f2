"""The guard's commands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from .layout import Refused
from .running import prove, reload, restore
from .trial import check


def main(arguments: list[str]) -> int:
    """Exit status."""
    commands = {"reload": reload, "prove": prove, "restore": restore}
    try:
        if arguments[:1] == ["check"] and len(arguments) == 2:
            check(Path(arguments[1]))
        elif arguments and commands.keys() >= set(arguments):
            for command in arguments:
                commands[command]()
        else:
            raise Refused("usage: mosquitto-guard check ROOT | {reload | prove | restore} …")
    except (Refused, OSError, subprocess.SubprocessError) as error:
        print(f"gatehouse: mosquitto: {error}", file=sys.stderr)
        return 1
    return 0
