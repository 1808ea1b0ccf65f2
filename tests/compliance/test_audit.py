"""Whether the kernel records what people do on the gateway, and auditd keeps it. Containers have no such kernel."""

from __future__ import annotations

import hashlib
import re
import secrets
import time

import pytest

from gatehouse.proof import expect
from gatehouse.proof.plugin import cannot_prove
from roles.auditd import CONFIGURATION, FILES, FOLDER, LOGS, MEGABYTES, RULES, UNIT
from roles.auditd.deploy import configuration, rules
from roles.auditd.facts import Audits, Loaded
from roles.auditd.rules import declared
from roles.facts import UnitState
from roles.lifecycle import unit_differences
from tests.compliance.looks import PATIENT

TOOLS = tuple(f"/usr/sbin/{name}" for name in ("auditctl", "auditd", "augenrules", "aureport", "ausearch"))
# A program of Debian 12 that Debian 13 has no more.
FORMER = "/usr/sbin/autrace"
# Opens a file of root's to be written, and writes nothing.
OPENS = '[ -f "$1" ] && : >>"$1"'
# The last line of the log's that says it in a record with the key.
LAST = 'ausearch --input-logs --raw --key "$1" --start recent | grep -F -e "$2" | tail -n 1'
EVENT = re.compile(r"msg=audit\((?P<when>\d+\.\d+):(?P<serial>\d+)\)")
TICK = 0.02  # seconds: the kernel dates a record by a clock that is not as fine as that of date(1)


@pytest.mark.controls("CIS-Debian-12-v1.1.0:6.2.1-4")
@pytest.mark.check("host.audit")
def test_what_people_do_as_root_is_recorded_by_rules_that_nobody_changes(live, evidence):
    """auditd runs as declared, the kernel has the declared rules alone, locked, and nobody else reads or changes a
    record: a command run as root and a file opened for writing just now are found in the log, with who it was."""
    if not Audits().process(printed(live, "sh", "-c", Audits().command()).splitlines()):
        where = "a container is audited by the machine underneath" if live.is_container else "this kernel has it off"
        cannot_prove(f"no audit system: {where}")
    runs_as_declared(live, evidence)
    belongs_to_root_alone(live, evidence)
    before = loaded(live)
    lacks = before.lacks(declared(rules().content.decode()))
    got = f"{len(before.rules)} rules, locked {before.locked}"
    evidence({"from": "gateway", "sent": "auditctl -s, auditctl -l", "got": lacks or got})
    assert not lacks, f"rules: {lacks[0]}{f', and {len(lacks) - 1} more' if lacks[1:] else ''}"
    finds_what_was_done(live, evidence)
    lost = {name: rule.settings.get("lost") for name, rule in (("before", before), ("after", loaded(live)))}
    evidence({"from": "gateway", "sent": "auditctl -s: lost", "got": lost})
    assert lost["before"] == lost["after"], f"records are lost: {lost['before']} before, {lost['after']} after"


def printed(live, *argv):
    """What a program prints now."""
    (seen,) = live.ask({expect.GATEWAY: [{"kind": "run", "argv": list(argv)}]})[expect.GATEWAY]
    return str(seen.result.get("output", ""))


def loaded(live):
    """The rules and settings of the kernel, now."""
    return Loaded().process(printed(live, "sh", "-c", Loaded().command()).splitlines())


def runs_as_declared(live, evidence):
    """The daemon runs, starts by itself, and has read what lies there; that, and the rules, are as declared."""
    fact = UnitState()
    state = fact.process(printed(live, "sh", "-c", fact.command(UNIT, [CONFIGURATION])).splitlines())
    wrong = unit_differences(state)
    evidence({"from": "gateway", "sent": f"unit {UNIT}", "got": wrong or "runs, on the files on the disk"})
    assert not wrong, f"{UNIT}: {wrong[0]}"
    wanted = {file.path: hashlib.sha256(file.content).hexdigest() for file in (configuration(), rules())}
    lines = printed(live, "sha256sum", "--", *wanted).splitlines()
    there = {path: digest for digest, path in (line.split("  ", 1) for line in lines)}
    for path, digest in wanted.items():
        same = there.get(path) == digest
        evidence({"from": "gateway", "sent": f"sha256sum {path}", "got": "as declared" if same else "differs"})
        assert same, f"{path} is not as declared"


def belongs_to_root_alone(live, evidence):
    """Others read neither records nor rules, and change no program that makes them; the log has an end."""
    listed = printed(live, "find", FOLDER, LOGS, *TOOLS, FORMER, "-printf", "%m %u %s %p\n")
    rows = [line.split(" ", 3) for line in listed.splitlines()]
    seen = {path: (int(mode, 8), owner, int(size)) for mode, owner, size, path in rows}
    missing = [path for path in (CONFIGURATION, RULES, LOGS, f"{LOGS}/audit.log", *TOOLS) if path not in seen]
    evidence({"from": "gateway", "sent": f"files in {FOLDER} and {LOGS}, programs", "got": f"{len(seen)}, {missing=}"})
    assert not missing, f"{missing[0]} is missing"
    for path, (mode, owner, _) in seen.items():
        closed = 0o022 if path in (*TOOLS, FORMER) else 0o027
        assert owner == "root" and mode & closed == 0, f"{path} is {owner}'s, mode {mode:o}"
    logs = {path: size for path, (*_, size) in seen.items() if path.startswith(f"{LOGS}/")}
    evidence({"from": "gateway", "sent": f"size of {LOGS}", "got": f"{sum(logs.values())} bytes in {len(logs)} files"})
    # It is rotated once it is full: by then it is a little more than that.
    assert sum(logs.values()) <= (FILES + 1) * MEGABYTES << 20, f"{LOGS}: {sum(logs.values()) >> 20} MB"


def finds_what_was_done(live, evidence):
    """Does both, and looks for them by their keys."""
    who = printed(live, "cat", "/proc/self/loginuid").strip()
    if not who.isdecimal() or not 1000 <= int(who) < 2**32 - 1:
        cannot_prove(f"the suite came in as {who}, and only what people do is recorded")
    begun, mark = float(printed(live, "date", "+%s.%N")), f"gatehouse-{secrets.token_hex(6)}"
    printed(live, "true", mark)
    printed(live, "sh", "-c", OPENS, "sh", RULES)
    for key, needle in (("as-root", f'a1="{mark}"'), ("audit", f'name="{RULES}"')):
        call = record(live, key, needle, begun)
        of_whom = re.search(r"\bauid=(\d+)", call)
        evidence({"from": "gateway", "sent": f"ausearch --key {key}: {needle}", "got": call[:300] or "none"})
        assert of_whom, f"of {needle} there is no record with the key {key}"
        assert of_whom[1] == who, f"the record of {needle} names {of_whom[1]}, and it was {who}"


def record(live, key, needle, begun):
    """The call of the last record with the key that says the needle, since a moment (seconds, the gateway's clock)."""
    until = time.monotonic() + 2 * PATIENT
    while True:
        found = EVENT.search(printed(live, "sh", "-c", LAST, "sh", key, needle))
        if found and float(found["when"]) >= begun - TICK:
            told = printed(live, "ausearch", "--input-logs", "--raw", "--start", "recent", "--event", found["serial"])
            return next((line for line in told.splitlines() if "type=SYSCALL " in line), "")
        if time.monotonic() > until:
            return ""
        time.sleep(0.3)
