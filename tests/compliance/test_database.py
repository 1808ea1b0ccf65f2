"""The database: who gets in, what each may do there, for how long it keeps what, and who can reach its files."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from deploy import backupnotes
from gatehouse.proof import database, expect, plays
from gatehouse.proof.credentials import foreign_anchor
from gatehouse.proof.plugin import cannot_prove
from gatehouse.site import seconds
from roles import influxdb
from roles.influxdb.deploy import STATE, UNIT
from tests.compliance.accounts import are_shut_for_others
from tests.compliance.once import once

PROTECTED = pytest.mark.controls("OWASP-IoT-Top10-2018:I3", "OWASP-ISVS-1.0+main-2026-06:4.2.2")
CREDENTIALS = pytest.mark.controls("ETSI-EN-303-645-v3.1.3:5.1-1", "OWASP-IoT-Top10-2018:I1", "OWASP-IoT-Top10-2018:I9")
PRIVATE = pytest.mark.controls("OWASP-IoT-Top10-2018:I6", "OWASP-IoT-Top10-2018:I7", "ETSI-EN-303-645-v3.1.3:5.4-1")


@pytest.fixture
def runs_a_database(live):
    if not any(service.name == "influxdb" for service in live.site.services_of(live.name)):
        cannot_prove("this gateway goes without a database")
    if not live.exists(f"/etc/systemd/system/{UNIT}.d/50-gatehouse.conf"):
        cannot_prove(f"{live.site.database.engine} is not deployed: its package could not be had")


pytestmark = pytest.mark.usefixtures("runs_a_database")


def server_of(live):
    port = live.site.listener("influxdb", "https").port
    return live.server(influxdb.host_name(live.site.domain), influxdb.ADDRESS, port)


@once
def answers(live):
    """Everything that is asked of the database, by the probes' ids; each consumer with what is in its file."""
    consumers = (influxdb.INTAKE, influxdb.DASHBOARDS)
    secrets = {who: live.host.file(influxdb.credential(who)).content_string.strip() for who in consumers}
    probes = database.questions(live.site.database.engine, influxdb.NAME, server_of(live), secrets)
    return {seen.probe["id"]: seen for seen in live.ask({expect.GATEWAY: probes})[expect.GATEWAY]}


@once
def handshakes(live):
    foreign = foreign_anchor(live.site.name, live.site.domain)
    probes = plays.handshakes(server_of(live), live.credentials, foreign)
    return {tuple(seen.probe["id"].split(":")): seen for seen in live.ask({expect.GATEWAY: probes})[expect.GATEWAY]}


def note(evidence, seen):
    """What was asked and what came back; the body may hold what devices measured, and stays out."""
    evidence({**seen.evidence(), "sent": f"request {seen.probe['id']}", "status": seen.result.get("status")})


def the_dashboards_read(live, evidence):
    """The same server answers who has a good login."""
    seen = answers(live)["dashboards:read"]
    note(evidence, seen)
    if database.verdict(seen) != "allowed":
        cannot_prove(f"not even the dashboards are answered: {seen}")


def expected(live, evidence, asked, wanted):
    seen = answers(live)[asked]
    note(evidence, seen)
    found = database.verdict(seen)
    assert found == wanted, f"{asked}: {found} (status {seen.result.get('status')}), must be {wanted}: {seen}"


@PROTECTED
@pytest.mark.controls("OWASP-ISVS-1.0+main-2026-06:2.1.3")
@pytest.mark.check("database.asks-for-a-login")
def test_nobody_gets_in_without_a_login(live, evidence):
    """Without a login nothing is read, written or told about accounts; with one it is."""
    for what in ("read", "write", "accounts"):
        expected(live, evidence, f"login:none {what}", "refused")
    the_dashboards_read(live, evidence)


@CREDENTIALS
@pytest.mark.parametrize("case", database.CASES)
@pytest.mark.check("database.refuses-{case}")
def test_passwords_that_strangers_know_are_refused(live, case, evidence):
    """Passwords of makers and tutorials, empty ones and wrong ones are refused."""
    for number in range(len(database.CASES[case])):
        expected(live, evidence, f"login:{case} {number}", "refused")
    the_dashboards_read(live, evidence)


@PROTECTED
@pytest.mark.check("database.intake-writes")
def test_the_intake_writes_and_does_nothing_else(live, evidence):
    """The intake writes; it reads nothing, and is told nothing about accounts."""
    expected(live, evidence, "intake:write", "allowed")
    expected(live, evidence, "intake:read", "refused")
    expected(live, evidence, "intake:accounts", "refused")


@PROTECTED
@pytest.mark.controls("NISTIR-8259A:Cybersecurity State Awareness/4")
@pytest.mark.check("database.dashboards-read")
def test_the_dashboards_read_and_do_nothing_else(live, evidence):
    """The dashboards read; they write nothing, and are told nothing about accounts."""
    expected(live, evidence, "dashboards:read", "allowed")
    expected(live, evidence, "dashboards:write", "refused")
    expected(live, evidence, "dashboards:accounts", "refused")


@PRIVATE
@pytest.mark.controls("ETSI-EN-303-645-v3.1.3:5.11-1")
@pytest.mark.check("database.retention")
def test_nothing_is_kept_longer_than_the_site_says(live, evidence):
    """What is stored is deleted after the time that the site declares, and nothing is kept for ever."""
    declared = live.site.database
    seen = answers(live)["dashboards:limits"]
    found = database.limits(declared.engine, seen)
    if found is None:
        cannot_prove(f"the database doesn't say how long it keeps what: {seen}")
    evidence({**seen.evidence(), "sent": "retention", "got": found})
    wanted = [seconds(declared.retention)]
    wanted += [seconds(declared.summaries.retention)] if declared.summaries else []
    assert sorted(found.values()) == sorted(wanted), f"kept for {found} seconds, declared are {wanted}"


@PROTECTED
@pytest.mark.controls("ETSI-EN-303-645-v3.1.3:5.6-1", "OWASP-IoT-Top10-2018:I2")
@pytest.mark.check("database.other-accounts")
def test_other_accounts_of_the_gateway_reach_none_of_its_ports(live, evidence):
    """Accounts that have no business with it can't connect: not to its pages without login, nor to its RPC."""
    are_shut_for_others(live, evidence, *live.site.service("influxdb").listeners)


@PRIVATE
@pytest.mark.controls("IEC-62443-3-3/4-2:FR4")
@pytest.mark.check("database.files")
def test_its_files_are_nobody_elses(live, evidence):
    """What the database stores, its key, and the credentials can be read by those alone who need them."""
    wanted = {
        f"{influxdb.FOLDER}/settings.json": "root root 600",
        f"{influxdb.FOLDER}/server.key": "root influxdb 640",
        **{influxdb.credential(who): f"root {account} 640" for who, account in influxdb.RUNS_AS.items()},
        STATE: "influxdb influxdb 700",
    }
    listed = str(live.run("stat", "-c", "%n %U %G %a", *wanted).result.get("output"))
    found = dict(line.split(" ", 1) for line in listed.splitlines())
    for path, state in wanted.items():
        evidence({"from": "gateway", "sent": f"stat {path}", "got": found.get(path, "missing")})
        assert found.get(path) == state, f"{path} is {found.get(path, 'missing')}, must be {state}"


@pytest.mark.controls("ETSI-EN-303-645-v3.1.3:5.5-1", "RFC-9325:3.1.1/a", "OWASP-ISVS-1.0+main-2026-06:4.1.2")
@pytest.mark.check("database.tls")
def test_it_speaks_todays_tls_and_proves_who_it_is(live, evidence):
    """TLS 1.2 or later with authenticated encryption, and a certificate that leads to the site's root, no other."""
    seen = handshakes(live)
    good, foreign = seen["broker", "tls 1.3"], seen["broker", "foreign anchor"]
    if good.outcome not in ("agreed", "distrusted", "failed", "alert"):
        cannot_prove(f"it does not answer: {good}")
    for each in (good, foreign):
        evidence(each)
    assert good.outcome == "agreed", f"not the site's database, or no TLS 1.3: {good}"
    assert foreign.outcome == "distrusted", f"another CA vouches for it: {foreign}"
    for old in ("tls 1.0", "tls 1.1", "old suites"):
        evidence(seen["broker", old])
        if seen["able", old].outcome != "agreed":
            cannot_prove(f"this position can't try {old} itself")
        assert seen["broker", old].outcome in ("alert", "cut"), f"{old} is not refused: {seen['broker', old]}"


@pytest.mark.controls("IEC-62443-3-3/4-2:SR/CR 7.3")
@pytest.mark.check("database.backup")
def test_the_last_backup_is_as_young_as_the_site_wants_it(live, evidence):
    """By what the operator's machine noted when it was made and read back: in time; and of its size, where the file is
    still there."""
    made = backupnotes.last(live.site, live.name)
    if made is None:
        command = f"./kit data.backup FILE --site {live.site.name} --gateway {live.name}"
        cannot_prove(f"no backup of its database was made from this machine yet ({command})")
    got = f"{made.made:%F %H:%M} UTC, {made.size} bytes, SHA-256 {made.sha256}"
    evidence({"from": "operator", "sent": f"note of {made.file}", "got": got})
    wrong = made.wrong(datetime.now(UTC), live.site.database.backup_days)
    assert not wrong, wrong
