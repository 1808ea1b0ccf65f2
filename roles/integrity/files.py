"""What the role puts on a gateway: AIDE's rules, the program that judges what AIDE finds, and its units."""

from __future__ import annotations

import json
from pathlib import Path

from roles import rendering
from roles.integrity import service
from roles.target import Target

TIMER = service.units[0]
UNIT = TIMER.replace(".timer", ".service")
PROGRAM = "/usr/lib/gatehouse/integrity"
SETTINGS = "/etc/gatehouse/integrity.json"
DECLARED = "/etc/gatehouse/integrity-declared.json"
RULES = "/etc/aide/aide.conf"
STATE = "/var/lib/gatehouse-integrity"
DATABASE, STATUS, ACCEPT = f"{STATE}/aide.db", f"{STATE}/status.json", f"{STATE}/accept"
EDITED = ("/etc/login.defs",)
"""Of packages, and edited in place by the kit (roles/base)."""
CHECK = f'aide --config="$STAGED"{RULES} --config-check && python3 -I "$STAGED"{PROGRAM} --check "$STAGED"{SETTINGS}'


def configuration(target: Target) -> list[rendering.File]:
    """The rules, the program, what it is told, and its units."""
    settings = {"rules": RULES, "folder": STATE, "declared": DECLARED}
    user = target.site.ssh.user
    return [
        rendering.template("integrity", RULES, folder=STATE, homes=sorted({"/root", f"/home/{user}"} - {"/home/root"})),
        rendering.File(PROGRAM, Path(__file__).with_name("integrity.py").read_bytes(), mode=0o755),
        rendering.File(SETTINGS, (json.dumps(settings, indent=1) + "\n").encode()),
        *(
            rendering.template(
                "integrity",
                f"/etc/systemd/system/{unit}",
                program=PROGRAM,
                settings=SETTINGS,
                user=service.user,
                folder=Path(STATE).name,
            )
            for unit in (UNIT, TIMER)
        ),
    ]


def later(target: Target) -> list[str]:
    """The paths of what is deployed after the database is made."""
    from roles import watch
    from roles.watch import files as watching

    if watch.service.name not in {each.name for each in target.site.services_of(target.name)}:
        return []
    return [file.path for file in watching.configuration(target)]


def declared(paths: set[str]) -> rendering.File:
    """The list of what the kit has put on a gateway, as the program reads it."""
    return rendering.File(DECLARED, (json.dumps(sorted(paths | {DECLARED}), indent=0) + "\n").encode())
