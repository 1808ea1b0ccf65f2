"""Lynis, an auditor that knows nothing of the kit, on a gateway of either lab."""

from __future__ import annotations

import re
from collections.abc import Callable

UNPACKED = "/run/lynis"
# Shell on the gateway that must succeed, and how many seconds it may take: what it prints.
Ask = Callable[[str, float], str]


def lynis(ask: Ask, patience: float = 180) -> tuple[int, dict[str, str]]:
    """Its index (0 to 100), and what it warns of or suggests: the test's name, with the setting where it names one.

    Debian's package is unpacked in memory and not installed: nothing of it is left.
    """
    fetch = "apt-get -q download lynis >/dev/null 2>&1 && dpkg -x lynis_*.deb ."
    # It compares the kernel's settings only with a profile that it has found by itself: beside it.
    beside = "cp -r usr/sbin/lynis etc/lynis/* usr/share/lynis/"
    ask(f"rm -rf {UNPACKED} && mkdir {UNPACKED} && cd {UNPACKED} && {fetch} && {beside}", patience)
    options = "--quick --quiet --no-colors"
    files = f"--log-file {UNPACKED}/log --report-file {UNPACKED}/report"
    try:
        ask(f"cd {UNPACKED}/usr/share/lynis && sh lynis audit system {options} {files} </dev/null", patience)
        report = ask(f"cat {UNPACKED}/report", 60)
    finally:
        ask(f"rm -rf {UNPACKED} /var/run/lynis.pid", 60)
    assert "finish=true" in report, report[-500:]
    found: dict[str, str] = {}
    for kind, said in re.findall(r"^(warning|suggestion|details)\[\]=(.*)$", report, re.MULTILINE):
        test, what, details = said.split("|")[:3]
        if kind == "details" and test in ("KRNL-6000", "SSH-7408"):
            field = re.search(r"field:([^;]+);", details)
            assert field, said
            found[f"{test} {field[1]}"] = details
        elif kind != "details" and test not in ("KRNL-6000", "SSH-7408"):
            found[test] = f"{found.get(test, '')} {what} {details}".strip()
    index = re.search(r"^hardening_index=(\d+)$", report, re.MULTILINE)
    assert index, report[-500:]
    return int(index[1]), found
