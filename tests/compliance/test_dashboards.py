"""The dashboards: who gets in, what they show, what they ask of others; and the gateway's own numbers."""

from __future__ import annotations

import json
import time

import pytest

from gatehouse.proof import dashboards, expect, reports
from gatehouse.proof.credentials import PROBE
from gatehouse.proof.plugin import cannot_prove
from roles import grafana, influxdb
from roles.grafana.files import LOGIN, SANDBOX, SECRETS, SETTINGS, SHIPPED, STATE, UNIT
from tests.compliance import units
from tests.compliance.accounts import are_shut_for_others
from tests.compliance.once import once

PROTECTED = pytest.mark.controls("OWASP-IoT-Top10-2018:I3", "OWASP-ISVS-1.0+main-2026-06:4.2.2")
CREDENTIALS = pytest.mark.controls("ETSI-EN-303-645-v3.1.3:5.1-1", "OWASP-IoT-Top10-2018:I1", "OWASP-IoT-Top10-2018:I9")
FRESH = 300  # seconds: the gateway's own numbers are read once a minute
NUMBERS = {
    "firewall": 'SELECT last("packets") FROM "gateway".."firewall" WHERE time > now() - 15m GROUP BY "segment"',
    "broker": 'SELECT last("refused") FROM "gateway".."broker" WHERE time > now() - 15m GROUP BY "reason"',
    "messages": 'SELECT last("refused") FROM "gateway".."messages" WHERE time > now() - 15m GROUP BY "reason"',
    "certificate": 'SELECT last("days") FROM "gateway".."certificate" WHERE time > now() - 15m GROUP BY "name"',
    "devices": 'SELECT last("count") FROM "gateway".."devices" WHERE time > now() - 15m GROUP BY "status"',
}


@pytest.fixture
def runs_dashboards(live, evidence):
    """They are there; the evidence says which program it is that answers."""
    if not any(service.name == grafana.service.name for service in live.site.services_of(live.name)):
        cannot_prove("this gateway goes without dashboards")
    if not live.exists(SANDBOX):
        cannot_prove("grafana is not deployed: its package could not be had")
    version = str((dashboards.said(answers(live)["health"]) or {}).get("version"))
    program = f"STAND-IN {version}: this is not Grafana" if "standin" in version else f"Grafana {version}"
    evidence({"from": "gateway", "sent": "which program answers", "got": program})


pytestmark = pytest.mark.usefixtures("runs_dashboards")


def ask(live, probes):
    """Asks on the gateway itself, where it listens; by id."""
    port = live.site.listener(grafana.service.name, "http").port
    common = {"kind": "http", "address": grafana.ADDRESS, "port": port, "timeout": 60}
    asked = [{"id": f"dashboards:{name}", **common, **probe} for name, probe in probes.items()]
    found = live.ask({expect.GATEWAY: asked})[expect.GATEWAY]
    return {seen.probe["id"].partition(":")[2]: seen for seen in found}


def boards_of(live):
    folder = SHIPPED / live.site.database.engine
    return [json.loads((folder / f"{name}.json").read_text()) for name in grafana.DASHBOARDS]


@once
def answers(live):
    """Logins first, then everything without a session, then everything in the administrator's."""
    secret = live.pki.vault.get_text(grafana.PASSWORD)
    seen = ask(live, {"login": dashboards.login(grafana.ADMINISTRATOR, secret)})
    probes = {
        **{f"login default {name}/{secret}": dashboards.login(name, secret) for name, secret in dashboards.DEFAULTS},
        "login wrong": dashboards.login(grafana.ADMINISTRATOR, dashboards.WRONG),
        "health": {"path": "/api/health"},
        "sign up": dashboards.sign_up(),
        **{f"without {name}": probe for name, probe in dashboards.CLOSED.items()},
    }
    seen |= ask(live, probes)
    cookie = dashboards.session(seen["login"])
    within = {f"within {name}": probe for name, probe in dashboards.CLOSED.items()}
    within["within settings"] = {"path": "/api/frontend/settings"}
    within |= {f"within board {name}": {"path": f"/api/dashboards/uid/{name}"} for name in grafana.DASHBOARDS}
    engine, texts = live.site.database.engine, dashboards.texts(boards_of(live))
    within["within panels"] = dashboards.query(grafana.SOURCE, texts, engine)
    if engine == "influxdb1":
        within["within numbers"] = dashboards.query(grafana.SOURCE, NUMBERS, engine)
    if cookie:
        seen |= ask(live, {name: dashboards.with_session(probe, cookie) for name, probe in within.items()})
    return seen


def note(evidence, seen):
    """What was asked and what came back; never the cookie, nor what devices measured."""
    asked = seen.probe["id"].partition(":")[2]
    evidence({**seen.evidence(), "sent": f"request: {asked}", "status": seen.result.get("status")})


def in_session(live, evidence, name):
    """What the administrator was told. A login that is refused is another check's to say."""
    if name not in answers(live):
        cannot_prove("the administrator's login is refused, so nothing can be asked in a session")
    seen = answers(live)[name]
    note(evidence, seen)
    return seen


@CREDENTIALS
@PROTECTED
@pytest.mark.check("dashboards.login")
def test_the_vaults_password_is_let_in_and_no_other(live, evidence):
    """The administrator gets in with the password of the vault, and not with another."""
    seen = answers(live)
    for name in ("login", "login wrong"):
        note(evidence, seen[name])
    if not isinstance(seen["login"].result.get("status"), int):
        pytest.fail(f"it answers nobody: {seen['login']}")
    assert dashboards.session(seen["login"]), f"the vault's password is refused: {seen['login'].result['status']}"
    assert dashboards.refused(seen["login wrong"]), f"{dashboards.WRONG!r} is let in as the administrator"
    me = dashboards.said(seen["within who am I"]) or {}
    assert me.get("login") == grafana.ADMINISTRATOR, f"the session is of {me.get('login')!r}"


@CREDENTIALS
@pytest.mark.check("dashboards.refuses-default")
def test_the_logins_that_attackers_try_first_are_refused(live, evidence):
    """Names and passwords that Grafana ships, or tutorials set up, are refused; the vault's are let in there."""
    seen = answers(live)
    for asked in (name for name in seen if name.startswith("login default")):
        note(evidence, seen[asked])
        assert not dashboards.session(seen[asked]), f"let in: {asked.removeprefix('login default ')}"
        if not dashboards.refused(seen[asked]):
            cannot_prove(f"it does not say whether it lets in {asked}: {seen[asked]}")
    note(evidence, seen["login"])
    if not dashboards.session(seen["login"]):
        cannot_prove("nobody is let in at all")


@PROTECTED
@pytest.mark.controls("ETSI-EN-303-645-v3.1.3:5.5-5")
@pytest.mark.controls("NISTIR-8259A:Cybersecurity State Awareness/3")
@pytest.mark.controls("OWASP-ISVS-1.0+main-2026-06:2.1.3")
@pytest.mark.check("dashboards.asks-for-a-login")
def test_nobody_is_shown_anything_without_a_login(live, evidence):
    """Without a session nothing is shown: no page, no dashboard, no data source; in one it is."""
    for name in dashboards.CLOSED:
        seen = answers(live)[f"without {name}"]
        note(evidence, seen)
        assert dashboards.refused(seen), f"{name}: shown without a login (status {seen.result.get('status')})"
        within = in_session(live, evidence, f"within {name}")
        if within.result.get("status") != 200 and name != "a page":
            cannot_prove(f"{name} is not shown with a login either: {within}")


@PROTECTED
@pytest.mark.check("dashboards.no-sign-up")
def test_nobody_makes_an_account_for_himself(live, evidence):
    """Who asks for an account of his own is refused."""
    seen = answers(live)["sign up"]
    note(evidence, seen)
    status = seen.result.get("status")
    assert status in (401, 403, 404), f"a stranger may sign up: status {status}"
    note(evidence, answers(live)["login"])
    if not dashboards.session(answers(live)["login"]):
        cannot_prove("the same server lets nobody in")


@PROTECTED
@pytest.mark.check("dashboards.cookie")
def test_the_session_travels_over_https_alone(live, evidence):
    """The session's cookie goes over HTTPS only, to the same site only, and no script can read it."""
    seen = answers(live)["login"]
    note(evidence, seen)
    if not dashboards.session(seen):
        cannot_prove("nobody is let in, so there is no cookie")
    flags = {part.strip().lower() for part in str(seen.result["cookie"]).split(";")[1:]}
    missing = {"secure", "httponly", "samesite=strict"} - flags
    assert not missing, f"the cookie lacks {', '.join(sorted(missing))}"


@PROTECTED
@pytest.mark.check("dashboards.as-declared")
def test_dashboards_and_data_source_are_the_kits(live, evidence):
    """What is shown is what the kit ships, from the one data source that it declares."""
    sources = dashboards.said(in_session(live, evidence, "within data sources")) or []
    found = [(source.get("uid"), source.get("type")) for source in sources]
    assert found == [(grafana.SOURCE, "influxdb")], f"data sources: {found}"
    for board in boards_of(live):
        shown = (dashboards.said(in_session(live, evidence, f"within board {board['uid']}")) or {}).get("dashboard")
        assert shown, f"there is no dashboard {board['uid']}"
        assert dashboards.texts([shown]) == dashboards.texts([board]), f"{board['uid']} asks something else"


@pytest.mark.asks("intake")
@pytest.mark.controls("OWASP-IoT-Top10-2018:I8")
@pytest.mark.check("dashboards.live-data")
def test_what_a_device_has_just_reported_is_shown(live, evidence):
    """What the suite's own device has just reported comes through Grafana, and every panel's query is answered."""
    taken = live.intake
    if not taken.values or taken.made.marks[reports.GOOD] not in taken.values:
        cannot_prove("what was just reported is not in the database")
    cookie = dashboards.session(answers(live)["login"])
    if not cookie:
        cannot_prove("the administrator's login is refused, so nothing can be asked in a session")
    engine = live.site.database.engine
    texts = {"just now": just_reported(engine)}
    seen = ask(live, {"just now": dashboards.with_session(dashboards.query(grafana.SOURCE, texts, engine), cookie)})
    note(evidence, seen["just now"])
    found = [str(value) for value in dashboards.values(seen["just now"], "just now")]
    said = dashboards.outcomes(seen["just now"]).get("just now", f"status {seen['just now'].result.get('status')}")
    assert taken.made.marks[reports.GOOD] in found, f"not shown what was just reported: {said or 'no data'}"
    wrong = dashboards.outcomes(in_session(live, evidence, "within panels"))
    for panel in dashboards.texts(boards_of(live)):
        assert wrong.get(panel) == "", f"{panel}: {wrong.get(panel, 'not answered')}"


def just_reported(engine):
    if engine == "influxdb1":
        table = f'"{influxdb.NAME}".."telemetry"'
        return f"SELECT \"{reports.FIELD}\" FROM {table} WHERE device = '{PROBE}' AND time > now() - 10m"  # noqa: S608
    return (
        f'from(bucket: "{influxdb.NAME}") |> range(start: -10m)'
        f' |> filter(fn: (r) => r.device == "{PROBE}" and r._field == "{reports.FIELD}")'
    )


@pytest.mark.controls("OWASP-IoT-Top10-2018:I8")
@pytest.mark.controls("IEC-62443-3-3/4-2:FR6", "IEC-62443-3-3/4-2:SR/CR 6.2", "ENISA-IoT-Baseline-2017:GP-TM-56")
@pytest.mark.controls("OWASP-ISVS-1.0+main-2026-06:1.4.1")
@pytest.mark.check("dashboards.numbers")
def test_the_gateways_own_numbers_are_of_now(live, evidence):
    """What was refused and dropped, days left and devices by status are of the last minutes."""
    if live.site.database.engine != "influxdb1":
        cannot_prove("the queries for this are InfluxDB 1.x's")
    seen = in_session(live, evidence, "within numbers")
    for name in NUMBERS:
        age = time.time() - dashboards.newest(seen, name)
        evidence({"from": "gateway", "sent": f"numbers: {name}", "got": f"{age:.0f} s old" if age < 1e6 else "none"})
        assert age < FRESH, f"{name}: no reading within {FRESH} s"


@PROTECTED
@pytest.mark.controls("ETSI-EN-303-645-v3.1.3:5.6-1", "OWASP-IoT-Top10-2018:I2")
@pytest.mark.check("dashboards.other-accounts")
def test_other_accounts_of_the_gateway_do_not_reach_the_plain_port(live, evidence):
    """Only root and the HTTPS front connect to the port without encryption."""
    are_shut_for_others(live, evidence, live.site.listener(grafana.service.name, "http"))


@pytest.mark.controls("OWASP-IoT-Top10-2018:I6")
@pytest.mark.check("dashboards.tells-nobody")
def test_nothing_is_asked_of_or_told_to_anybody_outside(live, evidence):
    """The page fetches no pictures, plugins or opinions from outside, and no connection leaves the gateway."""
    found = dashboards.said(in_session(live, evidence, "within settings")) or {}
    me = dashboards.said(in_session(live, evidence, "within who am I")) or {}
    state = {name: found.get(name) for name in ("feedbackLinksEnabled", "pluginAdminEnabled")}
    state["avatarUrl"] = me.get("avatarUrl")
    evidence({"from": "gateway", "sent": "settings of the page", "got": state})
    if None in state.values():
        cannot_prove(f"it does not say what it fetches: {state}")
    asks = [name for name, value in state.items() if value is True or str(value).startswith(("/avatar", "http"))]
    assert not asks, f"asked of others: {', '.join(asks)}"
    denied = units.properties(live)[UNIT].get("IPAddressDeny", "")
    evidence({"from": "gateway", "sent": "what systemd keeps it from", "got": denied})
    assert {"0.0.0.0/0", "::/0"} <= set(denied.split()), f"{UNIT} may talk to others: {denied}"
    listed = str(live.run("ss", "-H", "-t", "-n", "-p", "state", "established").result.get("output"))
    outside = [
        line.split()[3] for line in listed.splitlines() if '"grafana' in line and not is_loopback(line.split()[3])
    ]
    assert not outside, f"connected to {', '.join(outside)}"


def is_loopback(peer):
    return peer.startswith(("127.", "[::1]", "[::ffff:127."))


@pytest.mark.controls("ETSI-EN-303-645-v3.1.3:5.4-1", "OWASP-IoT-Top10-2018:I7")
@pytest.mark.check("dashboards.files")
def test_its_secrets_are_nobody_elses(live, evidence):
    """Its password, its key, its settings and its own database can be read by those alone who need them."""
    wanted = dict.fromkeys((*SECRETS.values(), SETTINGS, LOGIN), "root grafana 640") | {STATE: "grafana grafana 700"}
    listed = str(live.run("stat", "-c", "%n %U %G %a", *wanted).result.get("output"))
    found = dict(line.split(" ", 1) for line in listed.splitlines())
    for path, state in wanted.items():
        evidence({"from": "gateway", "sent": f"stat {path}", "got": found.get(path, "missing")})
        assert found.get(path) == state, f"{path} is {found.get(path, 'missing')}, must be {state}"
