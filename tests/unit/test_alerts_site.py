"""Alerts as a site says them: what is refused, what comes of it on a gateway, and what the operator is shown."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from commands import alerts, common
from deploy import mailpassword, movers, raised
from deploy.gateways import Gateways
from deploy.remote import RemoteError
from gatehouse.identity import Pki, SecretStore, Vault, new_identity
from gatehouse.site import Site, SiteError
from gatehouse.site.alerts import Thresholds
from roles import declared
from roles.alerts import EMAIL_PASSWORD, WEBHOOK_SECRET, files
from roles.collector import files as collector
from roles.mosquitto import files as mosquitto
from roles.target import Target
from tests.unit.test_site_model import changed, description

MAIL = {"server": "smtp.example.org", "user": "gw", "sender": "gw@example.org", "to": ["anna@example.org"]}
HOOK = {"url": "https://alerts.example.org/gateway"}


def site(alerts: Any = None, **changes: Any) -> Site:
    return Site(**{**description(), "services": declared(), "alerts": alerts, **changes})


def target(alerts: Any = None, **changes: Any) -> Target:
    made = site(alerts, **changes)
    pki = Pki(SecretStore(), "home", "home.arpa", ["10.0.0.0/8"]).ensure()
    return Target(made, "gw", lambda: pki)


@pytest.mark.parametrize(
    ("alerts", "said"),
    [
        ({"webhook": {"url": "http://a.example.org/"}}, "alerts webhook url: is no HTTPS address (use one such as"),
        ({"webhook": {"url": "https://"}}, "is no HTTPS address"),
        ({"webhook": {"url": "https://x y/"}}, "is no HTTPS address"),
        ({"webhook": {"url": "https://me:hunter2@example.org/"}}, "holds a login (leave it out"),
        ({"webhook": {}}, "alerts webhook url: missing"),
        ({"mail": {}}, "alerts mail: unknown key"),
        ({"email": {**MAIL, "sender": "me"}}, "alerts email sender: 'me' is no e-mail address (use one such as"),
        ({"email": {**MAIL, "to": ["a@example.org\nBcc: b@example.org"]}}, "is no e-mail address"),
        ({"email": {**MAIL, "to": []}}, "alerts email to: is empty"),
        ({"email": {**MAIL, "server": "smtp.example.org:25"}}, "alerts email server"),
        ({"email": {**MAIL, "security": "none"}}, "alerts email security"),
        ({"email": {**MAIL, "port": 465}}, "port 465 does not go with 'starttls' (use security='tls')"),
        ({"email": {**MAIL, "password": "hunter2"}}, "alerts email password: unknown key"),
        ({"mqtt": "yes please"}, "alerts mqtt"),
        ({"window_seconds": 5}, "alerts window_seconds"),
        ({"thresholds": {"rejected_messages": 0}}, "alerts thresholds rejected_messages"),
        ({"thresholds": {"disk_free_percent": 95}}, "alerts thresholds disk_free_percent"),
        ({"thresholds": {"rejected": 1}}, "alerts thresholds rejected: unknown key"),
        (True, "alerts"),
    ],
)
def test_a_slip_in_the_alerts_is_told_in_the_operator_s_words(alerts: Any, said: str) -> None:
    with pytest.raises(SiteError) as told:
        site(alerts)
    assert said in str(told.value), told.value
    assert "pydantic" not in str(told.value) and "hunter2" not in str(told.value)


@pytest.mark.parametrize("left_out", ["collector", "mosquitto"])
def test_a_gateway_needs_what_its_alerts_need(left_out: str) -> None:
    without = ["intake", left_out] if left_out == "mosquitto" else [left_out]
    data = {**changed("gateways/gw/without", without), "services": declared(), "alerts": {"mqtt": True}}
    with pytest.raises(SiteError, match=rf"gateway 'gw' without: alerts .*leave '{left_out}' on it"):
        Site(**data)
    data = {**changed("gateways/gw/without", [*without, "alerts"]), "services": declared(), "alerts": {"mqtt": True}}
    assert Site(**data).gateways_with("alerts") == []


def test_a_site_that_says_nothing_of_alerts_has_none() -> None:
    here = target()
    assert not any(service.name == "alerts" for service in here.site.services)
    assert "gatehouse-alerts" not in mosquitto.acl(here).content.decode()
    settings = json.loads(next(f for f in collector.configuration(here) if f.path == collector.SETTINGS).content)
    assert (settings["reading"], settings["alerts"]) == ("", "")


def test_flows_are_those_of_the_ways_that_the_site_has() -> None:
    def ends(alerts: dict[str, Any]) -> list[str]:
        return [flow.destination for flow in site(alerts).service("alerts").flows]

    assert ends({}) == []
    assert ends({"mqtt": True}) == ["mosquitto"]
    assert ends({"webhook": HOOK}) == ["webhook"]
    assert ends({"mqtt": True, "webhook": HOOK}) == ["mosquitto", "webhook"]
    assert ends({"email": MAIL}) == ["mail server"]


def test_over_mqtt_it_may_publish_to_one_topic_and_talk_to_the_gateway_alone() -> None:
    here = target({"mqtt": True})
    made = {file.path: file for file in files.configuration(here)}
    settings = json.loads(made[files.SETTINGS].content)
    assert settings["ways"]["mqtt"]["topic"] == "gateway/gw/alerts" and set(settings["ways"]) == {"mqtt"}
    assert settings["limits"] == {"window": 600, "learning": 86_400, **Thresholds().model_dump()}
    assert "PRIVATE KEY" in made[files.CLIENT].content.decode()
    assert (made[files.CLIENT].mode, made[files.CLIENT].group) == (0o640, "gatehouse-alerts")
    acl = mosquitto.acl(here).content.decode()
    assert "user gatehouse-alerts\ntopic write gateway/gw/alerts\n" in acl and acl.count("gateway/gw/alerts") == 2
    unit = made[f"/etc/systemd/system/{files.UNIT}"].content.decode()
    assert "IPAddressDeny=any\nIPAddressAllow=localhost 10.10.10.1\n" in unit
    assert not any("PRIVATE KEY" in f.content.decode() for f in made.values() if f.path != files.CLIENT)


def test_the_program_knows_this_gateway_s_devices_and_what_is_the_kit_itself() -> None:
    devices = [
        {"name": "pump-02", "model": "relay", "gateway": "gw", "address": "10.10.10.51"},
        {"name": "kitchen-01", "model": "sht31", "gateway": "gw"},
    ]
    here = target({}, devices=devices)
    made = {file.path: file for file in files.configuration(here)}
    assert json.loads(made[files.DEVICES].content) == {
        "pump-02": {"model": "relay", "address": "10.10.10.51", "silent_after": 0},
        "kitchen-01": {"model": "sht31", "address": "", "silent_after": 0},
    }
    settings = json.loads(made[files.SETTINGS].content)
    assert settings["devices"] == files.DEVICES and "10.10.10.1" in settings["own"]
    assert {"mqtt.py", "habits.py"} <= {Path(file.path).name for file in files.program()}


def test_unknown_hardware_is_that_in_segments_that_hold_devices() -> None:
    def bridges(**changes: Any) -> list[str]:
        made = {file.path: file for file in collector.configuration(target({}, **changes))}
        return list(json.loads(made[collector.SETTINGS].content)["bridges"])

    assert bridges() == ["br-iot"]
    device = {"name": "camera-01", "model": "x", "gateway": "gw", "segment": "guest"}
    assert bridges(devices=[device]) == ["br-guest", "br-iot"]


def test_a_webhook_s_secret_is_made_once_and_stands_in_a_file_of_its_own() -> None:
    here = target({"webhook": HOOK})
    made = {file.path: file for file in files.configuration(here)}
    secret = here.pki.vault.get(WEBHOOK_SECRET)
    assert made[files.SECRET].content == secret and len(secret) >= 20
    assert {f.path for f in made.values() if secret in f.content} == {files.SECRET}
    again = {file.path: file for file in files.configuration(here)}
    assert again == made
    assert "IPAddressDeny" not in made[f"/etc/systemd/system/{files.UNIT}"].content.decode()


def test_a_file_that_is_to_vouch_and_is_not_there_is_told(tmp_path: Path) -> None:
    here = target({"webhook": {**HOOK, "trust": str(tmp_path / "none.pem")}})
    with pytest.raises(files.AlertsRefused, match="No such file.*name a PEM file") as told:
        files.configuration(here)
    assert "\n" not in str(told.value)


def test_without_a_password_nothing_is_mailed_and_the_command_that_keeps_one_is_named() -> None:
    here = target({"email": MAIL})
    with pytest.raises(files.AlertsRefused, match=r"no password for smtp\.example\.org .*alerts\.password --site home"):
        files.configuration(here)
    here.pki.vault.set(EMAIL_PASSWORD, "hunter2", "password")
    made = {file.path: file for file in files.configuration(here)}
    assert {path for path, file in made.items() if b"hunter2" in file.content} == {files.PASSWORD}
    assert (made[files.PASSWORD].mode, made[files.PASSWORD].group) == (0o640, "gatehouse-alerts")


@pytest.mark.parametrize("given", ["", "\n", "two\nlines\n", "x" * 5000, "\0"])
def test_what_is_no_password_is_refused_in_a_line(given: str) -> None:
    with pytest.raises(mailpassword.MailPasswordError, match="standard input: is no password") as told:
        mailpassword.keep(site({"email": MAIL}), given)
    assert "\n" not in str(told.value)


def test_a_password_is_kept_where_alerts_are_mailed_and_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Vault.create(tmp_path / "vault.age", [new_identity(tmp_path / "identity")])

    def vault(_: Site) -> Vault:
        return Vault.open(tmp_path / "vault.age", identities=[tmp_path / "identity"])

    monkeypatch.setattr(mailpassword.vaults, "open_vault", vault)
    said = mailpassword.keep(site({"email": MAIL}), "correct horse\n")
    assert "horse" not in said
    assert vault(site()).get(EMAIL_PASSWORD) == b"correct horse", "it is in the file, for whoever opens it next"
    with pytest.raises(mailpassword.MailPasswordError, match="are not mailed"):
        mailpassword.keep(site({"mqtt": True}), "correct horse\n")


def test_the_program_takes_what_the_kit_writes_and_refuses_what_is_broken(tmp_path: Path) -> None:
    """With the very files, staged, and another Python process that has nothing of the kit but them."""
    here = target({"mqtt": True, "webhook": HOOK, "email": MAIL})
    here.pki.vault.set(EMAIL_PASSWORD, "hunter2", "password")
    for file in (*files.program(), *files.configuration(here)):
        path = tmp_path / file.path.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)
    command = [sys.executable, "-I", str(tmp_path / files.PROGRAM.lstrip("/")), "--check", str(tmp_path)]
    checked = subprocess.run(command, capture_output=True, text=True, cwd="/")
    assert (checked.returncode, checked.stderr) == (0, "")
    settings = tmp_path / files.SETTINGS.lstrip("/")
    whole = settings.read_text()
    for broken in ("", "{}", whole.replace("rejected_messages", "rejected"), whole.replace('"mqtt"', '"smoke"')):
        settings.write_text(broken)
        refused = subprocess.run(command, capture_output=True, text=True, cwd="/")
        assert refused.returncode == 1 and refused.stderr.startswith("gatehouse-alerts: "), broken
        assert "Traceback" not in refused.stderr and refused.stderr.count("\n") == 1
    settings.write_text(whole)
    (tmp_path / files.CLIENT.lstrip("/")).write_text("no key")
    refused = subprocess.run(command, capture_output=True, text=True, cwd="/")
    assert refused.returncode == 1 and "Traceback" not in refused.stderr


def test_the_collector_looks_at_the_kit_s_units_and_at_what_its_timers_start() -> None:
    here = target({})
    settings = json.loads(next(f for f in collector.configuration(here) if f.path == collector.SETTINGS).content)
    mine = {"mosquitto.service", "gatehouse-alerts.timer", "gatehouse-alerts.service", "gatehouse-verify.service"}
    assert mine <= set(settings["units"])
    assert settings["reading"] == collector.READING and settings["alerts"] == files.STATUS


def test_its_secrets_can_be_replaced_where_the_site_has_them() -> None:
    here = target({"mqtt": True, "webhook": HOOK})
    mine = {"client/gatehouse-alerts/key", WEBHOOK_SECRET}
    assert mine <= set(movers.movers(Gateways(here.site, here.pki)))
    assert not mine & set(movers.movers(Gateways(target({}).site, here.pki)))
    assert movers.movers(Gateways(here.site, here.pki))[WEBHOOK_SECRET].asked_for


# what the operator is shown

STATUS = {"when": 1000.0, "raised": 1, "waiting": 2, "failing": 1}
BOOK = {
    "counted": {},
    "raised": {"unit ssh.service": {"since": 940.0, "seen": 1000.0, "told": 940.0, "text": "ssh.service has failed"}},
    "ways": {
        "mqtt": {"waiting": [], "failing": 0.0, "error": "", "lost": 0},
        "webhook": {"waiting": [{}, {}], "failing": 940.0, "error": "example.org: answers 500", "lost": 0},
    },
    "number": 1,
}


def test_what_is_raised_is_listed_with_since_when_and_what_does_not_get_out() -> None:
    rows, notes = raised.read("gw", STATUS, BOOK, 1030.0)
    assert raised.table(rows) == [
        "gateway  since (UTC)          alert  what",
        "gw       1970-01-01 00:15:40  unit   ssh.service has failed",
    ]
    assert notes == ["gw: webhook: 2 wait since 1970-01-01 00:15 UTC: example.org: answers 500"]
    assert raised.table([]) == ["nothing is raised"]
    _, notes = raised.read("gw", STATUS, {**BOOK, "ways": {}}, 2000.0)
    assert len(notes) == 1 and notes[0].startswith("gw: judged last 17 min ago")


def answering(monkeypatch: pytest.MonkeyPatch, answer: str | RemoteError) -> None:
    class Remote:
        def __enter__(self) -> Remote:
            if isinstance(answer, RemoteError):
                raise answer
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def run(self, command: str) -> str:
            assert isinstance(answer, str)
            return answer

    monkeypatch.setattr(raised, "connected", lambda *_: Remote())


def test_the_command_lists_and_ends_well(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from invoke import Context

    monkeypatch.setattr(common, "site", lambda _: site({}))
    answering(monkeypatch, f"{json.dumps(STATUS)}\n{json.dumps(BOOK)}\n1030\n")
    alerts.show(Context(), site="home", json=True)
    out, err = capsys.readouterr()
    assert json.loads(out)[0] == {
        "gateway": "gw", "alert": "unit", "about": "ssh.service", "since": "1970-01-01T00:15:40+00:00",
        "text": "ssh.service has failed",
    }  # fmt: skip
    assert err.startswith("gw: webhook: 2 wait")


@pytest.mark.parametrize("answer", ["", "{}\n{}\n1\n", "x\ny\nz\n", "[]\n[]\n1\n", RemoteError("gw: no SSH")])
def test_a_gateway_that_says_nothing_of_use_is_told_in_a_line(
    answer: str | RemoteError, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, answer)
    rows, notes = raised.look(site({}))
    assert rows == [] and len(notes) == 1 and notes[0].startswith("gw: ")
    assert notes[0].endswith("what is raised there is unknown") and "\n" not in notes[0]


def test_a_site_without_alerts_is_told_how_to_have_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from invoke import Context

    monkeypatch.setattr(common, "site", lambda _: site())
    with pytest.raises(SystemExit) as ended:
        alerts.show(Context(), site="home")
    assert str(ended.value.code) == "home: has no alerts (say alerts={} in the site, then harden)"
