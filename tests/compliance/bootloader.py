"""How GRUB's menu on a gateway is judged: as the role judges each new one, and by the vault."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from gatehouse.identity import bootloader
from gatehouse.proof.plugin import cannot_prove
from roles.bootloader import ARGUMENTS, MENU, SCRIPT, SUPERUSER
from roles.bootloader.facts import Grub
from roles.bootloader.menu import faults, started

HASHED = re.compile(rf"^\s*password_pbkdf2 {SUPERUSER} (\S+)$", re.MULTILINE)
# What holds the hash, and who may read it.
MODES = {MENU: "root root 600", SCRIPT: "root root 700"}


def judged(live: Any, evidence: Callable[[dict[str, Any]], None], warn: Callable[[str], None]) -> None:
    """Raises AssertionError with what is wrong; what is told the kernel at its next start alone is a warning."""

    def printed(*argv: str) -> str:
        return str(live.run(*argv).result.get("output", ""))

    if "grub" not in printed("sh", "-c", Grub().command()).split():
        where = "a container is started by the machine underneath" if live.is_container else "something else starts it"
        cannot_prove(f"no GRUB: {where}")
    menu = printed("cat", MENU)
    starts = [entry.title for entry in started(menu)]
    evidence({"from": "gateway", "sent": "GRUB's menu: what starts when nobody is there", "got": starts or "nothing"})
    wrong = faults(menu, SUPERUSER, ARGUMENTS)
    evidence({"from": "gateway", "sent": "GRUB's menu: who is asked for a password", "got": wrong or "who changes it"})
    assert not wrong, wrong[0]
    for path, wanted in MODES.items():
        mode = printed("stat", "-c", "%U %G %a", path).strip()
        evidence({"from": "gateway", "sent": f"owner, group and mode of {path}", "got": mode or "missing"})
        assert mode == wanted, f"{path} is {mode or 'missing'}, not {wanted}: others read the password's hash"
    name = bootloader.secret_name(live.name)
    known = name in live.vault and bootloader.opens(live.vault.get(name).decode(), HASHED.findall(menu)[-1])
    evidence({"from": "vault", "sent": f"whether GRUB takes {name}", "got": "yes" if known else "no"})
    assert known, f"GRUB's password is not the vault's ({name})"
    told = printed("cat", "/proc/cmdline").split()
    if missing := [argument for argument in ARGUMENTS if argument not in told]:
        warn(f"the kernel was started without {' '.join(missing)}: it is told at the next start")
