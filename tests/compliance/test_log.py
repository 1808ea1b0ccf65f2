"""The gateway's log: what an entry says, who may read and change it, and what must never stand in it."""

from __future__ import annotations

import json
import secrets
import time

import pytest

from gatehouse.proof import expect
from gatehouse.proof.plugin import cannot_prove
from tests.compliance.accounts import STRANGERS
from tests.compliance.log import searched

ISVS = "OWASP-ISVS-1.0+main-2026-06"
FOLDER = "/var/log/journal"


@pytest.mark.controls(f"{ISVS}:1.4.2", f"{ISVS}:1.4.5", f"{ISVS}:1.4.1")
@pytest.mark.check("host.log-entries")
def test_a_login_that_works_and_one_that_fails_are_in_the_log_with_who_whence_and_when(live, evidence):
    """Read over SSH, as an operator would: of the suite's own login and of one with an unknown name there is an entry
    with its time, the program, the address that it came from, the outcome, and the name and the key."""
    stranger = f"gatehouse-{secrets.token_hex(6)}"
    asked = {"kind": "run", "argv": ["date", "+%s%6N"]}
    begun = int(live.ask({expect.GATEWAY: [asked]})[expect.GATEWAY][0].result["output"])  # its own clock
    done = live.login("-o", "IdentityAgent=none", user=stranger)
    assert done.returncode != 0, f"{stranger} logs in"
    in_order = live.login_at_last()
    if in_order.returncode != 0:
        cannot_prove(f"no new connection of the administrator's: {in_order.stderr.strip()[-100:]}")
    command = ("journalctl", "-q", "-u", "ssh.service", "-n", "200", "-o", "json", "--no-pager")
    entries = [json.loads(line) for line in str(live.run(*command).result.get("output", "")).splitlines()]
    for what, words in (
        ("a login", ("Accepted publickey for", f" {live.site.ssh.user} ", " from ", "SHA256:")),
        ("a refusal", ("Invalid user", f" {stranger} ", " from ")),
    ):
        since = [entry for entry in entries if int(entry["__REALTIME_TIMESTAMP"]) >= begun]
        fitting = [entry for entry in since if all(word in f" {entry.get('MESSAGE', '')} " for word in words)]
        last = fitting[-1] if fitting else {}
        evidence({"from": "gateway", "sent": f"the log's word of {what}", "got": last.get("MESSAGE", "none")})
        assert last, f"of {what} the log has nothing"
        missing = [name for name in ("SYSLOG_IDENTIFIER", "PRIORITY", "_PID", "_HOSTNAME") if name not in last]
        assert not missing, f"an entry without {missing[0]}"


@pytest.mark.controls(f"{ISVS}:1.4.7")
@pytest.mark.check("host.log-protected")
def test_the_log_can_be_read_and_changed_by_nobody_else_and_says_who_wrote(live, evidence):
    """Other accounts read none of it and change no file of it; who writes there in another's name is found out."""
    listed = live.run("find", FOLDER, "-name", "*.journal", "-printf", "%m %u %p\n")
    rows = [line.split(" ", 2) for line in str(listed.result.get("output", "")).splitlines()]
    if not rows:
        cannot_prove(f"nothing is kept in {FOLDER}")
    evidence({"from": "gateway", "sent": f"files in {FOLDER}", "got": [f"{owner} {mode}" for mode, owner, _ in rows]})
    for mode, owner, path in rows:
        assert owner == "root" and int(mode, 8) & 0o027 == 0, f"{path} is {owner}'s, mode {mode}"
    for account in STRANGERS:
        read = live.run("runuser", "-u", account, "--", "journalctl", "-q", "-n", "1", "-o", "cat", "-u", "ssh.service")
        got = str(read.result.get("output", "")).strip()
        evidence({"from": "gateway", "sent": f"journalctl as {account}", "got": "something" if got else "nothing"})
        assert not got, f"{account} reads the log"
    mark = f"gatehouse-{time.time_ns()}"
    wrote = live.run("runuser", "-u", "nobody", "--", "logger", "-t", "sshd", f"Accepted publickey for {mark}")
    if wrote.result.get("status") != 0:
        cannot_prove(f"nobody could write: {wrote.result.get('error') or wrote.outcome}")
    found: list[dict[str, str]] = []
    for _ in range(20):
        said = live.ask(
            {expect.GATEWAY: [{"kind": "run", "argv": ["journalctl", "-q", "-t", "sshd", "-n", "20", "-o", "json"]}]}
        )
        output = str(said[expect.GATEWAY][0].result.get("output", ""))
        found = [e for e in map(json.loads, output.splitlines()) if mark in str(e.get("MESSAGE"))]
        if found:
            break
        time.sleep(0.2)
    if not found:
        cannot_prove("what nobody wrote did not arrive")
    evidence(
        {
            "from": "gateway",
            "sent": "an entry of nobody's that says it is sshd's",
            "got": f"_UID {found[0].get('_UID')}",
        }
    )
    assert found[0].get("_UID") not in (None, "0"), "it passes for an entry of root's"


@pytest.mark.controls(f"{ISVS}:1.4.4")
@pytest.mark.asks("log")
@pytest.mark.check("host.log-secrets")
def test_no_secret_of_the_site_stands_in_the_log(live, evidence):
    """No word of the journal or of a file below /var/log is a secret of the vault's, or begins a private key. What is
    looked for are digests: no secret leaves the vault for this."""
    wanted, seen = searched(live)
    if not wanted:
        cannot_prove("the vault has no secret that could stand in a log")
    if seen.outcome != "read" or not seen.result["words"]:
        cannot_prove(f"the log could not be read: {seen.result.get('error') or seen.outcome}")
    got = f"{seen.result['words']} words in {seen.result['places']} places, {len(seen.result['found'])} of them secret"
    evidence({"from": "gateway", "sent": f"digests of {len(wanted)} secrets", "got": got, "at": seen.result["at"]})
    assert not seen.result["found"], f"in {seen.result['found'][0]} stands a secret"
