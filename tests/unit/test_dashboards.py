"""The dashboards' files without Grafana, what the gateway counts for them, and where their package comes from."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from gatehouse.collector import __main__ as collector
from gatehouse.collector import readings
from gatehouse.proof import dashboards as proof
from gatehouse.proof.observation import Observation
from gatehouse.site import Repository, Site, SiteError
from lab import packages as of_the_lab
from roles import declared, grafana, influxdb, packages
from roles.grafana.files import SHIPPED
from tests.standins import grafana as standin
from tests.unit.test_site_model import description

ENGINES = ("influxdb1", "influxdb2")
PIN = {"file": "grafana_9.4.7_amd64.deb", "sha256": "0" * 64}


class Part(BaseModel):
    """What Grafana's documentation of the dashboard JSON model says, as far as the kit uses it; no unknown key."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Source(Part):
    type: Literal["influxdb"]
    uid: Literal["gatehouse"]


class Query(Part):
    refId: str = Field(pattern="^[A-Z]$")
    datasource: Source
    query: str = Field(min_length=10)
    rawQuery: Literal[True] = True
    resultFormat: Literal["time_series", "table"] = "time_series"
    alias: str = ""


class Place(Part):
    x: int = Field(ge=0, le=23)
    y: int = Field(ge=0)
    w: int = Field(ge=1, le=24)
    h: int = Field(ge=1)


class Fields(Part):
    defaults: dict[str, Any]
    overrides: list[Any]


class Panel(Part):
    id: int = Field(ge=1)
    type: Literal["stat", "table", "timeseries", "bargauge"]
    title: str = Field(min_length=1)
    datasource: Source
    gridPos: Place
    interval: str = Field(pattern="^[0-9]+[smh]$")
    targets: list[Query] = Field(min_length=1)
    fieldConfig: Fields
    options: dict[str, Any] = {}


class Times(Part):
    from_: str = Field(alias="from", pattern="^now-[0-9]+[mhd]$")
    to: Literal["now"]


class Board(Part):
    uid: str = Field(pattern="^[a-z0-9-]{1,40}$")
    title: str
    tags: list[str]
    timezone: Literal["browser", "utc"]
    editable: Literal[False]
    schemaVersion: int = Field(ge=30)
    refresh: str
    time: Times
    panels: list[Panel] = Field(min_length=1)


def board(engine: str, name: str) -> Board:
    return Board.model_validate_json((SHIPPED / engine / f"{name}.json").read_text())


def site(**dashboards: Any) -> Site:
    return Site(**{**description(), "services": declared(), "dashboards": dashboards})


# the files


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", grafana.DASHBOARDS)
def test_a_dashboard_is_what_grafana_takes_and_no_panel_hides_another(engine: str, name: str) -> None:
    made = board(engine, name)
    assert made.uid == name
    assert len({panel.id for panel in made.panels}) == len(made.panels)
    for one, other in itertools.combinations([panel.gridPos for panel in made.panels], 2):
        beside = one.x + one.w <= other.x or other.x + other.w <= one.x
        assert beside or one.y + one.h <= other.y or other.y + other.h <= one.y
    assert all(panel.gridPos.x + panel.gridPos.w <= 24 for panel in made.panels)


@pytest.mark.parametrize("name", grafana.DASHBOARDS)
def test_both_engines_show_the_same(name: str) -> None:
    one, two = (board(engine, name) for engine in ENGINES)
    assert [(p.title, p.type, p.gridPos) for p in one.panels] == [(p.title, p.type, p.gridPos) for p in two.panels]


def test_no_query_does_anything_but_read() -> None:
    for name in grafana.DASHBOARDS:
        for panel in board("influxdb1", name).panels:
            query = panel.targets[0].query
            assert re.match(r"SELECT (?!.*\bINTO\b)", query), panel.title
            # Grafana 9.4 forgets the data source's database at its first start, until the second.
            assert re.search(rf'FROM "({influxdb.NAME}|{influxdb.NUMBERS})"\.\."[a-z]+"', query), panel.title
        for panel in board("influxdb2", name).panels:
            assert "from(bucket:" in panel.targets[0].query and "to(" not in panel.targets[0].query, panel.title


def test_there_are_no_other_files_than_those_that_are_shipped() -> None:
    shipped = {path.relative_to(SHIPPED) for path in SHIPPED.rglob("*.json")}
    assert shipped == {Path(engine, f"{name}.json") for engine in ENGINES for name in grafana.DASHBOARDS}


# the gateway's own numbers

RULES = {
    "nftables": [
        {"metainfo": {"version": "1.0.6"}},
        {"table": {"family": "inet", "name": "gatehouse"}},
        *(
            {
                "rule": {
                    "chain": chain,
                    "comment": said,
                    "expr": [{"match": {}}, {"counter": {"packets": n, "bytes": 9}}],
                }
            }
            for chain, said, n in (
                ("input", "iot to the gateway", 3),
                ("input", "guest to the gateway", 0),
                ("forward", "iot onwards", 5),
                ("spoofing", "revoked devices", 2),
                ("spoofing", "revoked devices", 4),
                ("forward", "towards quarantined devices", 8),
                ("input", "mosquitto mqtts", 70),
            )
        ),
        {"rule": {"chain": "log_spoofed", "expr": [{"counter": {"packets": 6, "bytes": 1}}, {"drop": None}]}},
        {"rule": {"chain": "log_spoofed", "expr": [{"limit": {}}, {"log": {}}]}},
        {"rule": {"chain": "input", "expr": [{"counter": {"packets": 99, "bytes": 1}}, {"accept": None}]}},
    ]
}


def test_dropped_packets_are_counted_by_segment_and_accepted_ones_are_not() -> None:
    assert readings.firewall(json.dumps(RULES)) == [
        "firewall,segment=any,towards=forged packets=6i",
        "firewall,segment=guest,towards=gateway packets=0i",
        "firewall,segment=iot,towards=gateway packets=3i",
        "firewall,segment=iot,towards=onwards packets=5i",
        "firewall,segment=revoked,towards=anywhere packets=6i",
    ]


@pytest.mark.parametrize("text", ["", "{}", "no JSON", '{"nftables": 1}'])
def test_what_is_no_ruleset_is_told_from_one_without_drops(text: str) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        readings.firewall(text)
    assert readings.firewall('{"nftables": []}') == []


def test_what_the_nightly_verification_found_is_counted_with_its_age() -> None:
    result = {"when": 1_000.0, "seconds": 1, "checks": {"unit a": "", "unit b": "failed", "firewall": ""}}
    assert readings.verified(json.dumps(result), 8_200.0) == "verified right=2i,wrong=1i,hours=2.000"
    for text in ("", "{}", "[]", '{"checks": 1}'):
        with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
            readings.verified(text, 0.0)


def test_rejected_messages_are_counted_by_reason() -> None:
    metrics = "# TYPE x counter\ngatehouse_intake_stored_total 9\n"
    metrics += 'gatehouse_intake_refused_total{reason="replay"} 2\ngatehouse_intake_refused_total{reason="too-old"} 0\n'
    assert readings.messages(metrics) == ["messages,reason=replay refused=2i", "messages,reason=too-old refused=0i"]


def test_refused_connections_are_told_from_those_that_end() -> None:
    lines = [
        "New connection from 10.10.10.50:4242 on port 8883.",
        "OpenSSL Error[0]: error:0A000086:SSL routines::certificate verify failed",
        "Client <unknown> disconnected: Protocol error.",
        "Client <unknown> from 10.10.10.50 failed: error:0A000102:SSL routines::unsupported protocol.",
        "Client homeassistant disconnected, not authorised.",
        "Client kitchen-01 disconnected.",
        "Client kitchen-01 has exceeded timeout, disconnecting.",
    ]
    assert readings.broker(lines) == ["broker,reason=handshake refused=2i", "broker,reason=login refused=1i"]
    assert readings.broker([]) == ["broker,reason=handshake refused=0i", "broker,reason=login refused=0i"]


def test_a_certificate_has_days_left_and_fewer_than_none_when_it_is_over() -> None:
    end = "notAfter=Jul  1 00:00:00 2027 GMT\n"
    assert readings.certificate("mosquitto", end, 1814400000.0 - 86_400) == "certificate,name=mosquitto days=1.000"
    assert readings.certificate("mosquitto", end, 1814400000.0 + 43_200) == "certificate,name=mosquitto days=-0.500"
    for wrong in ("", "notAfter=", "notAfter=tomorrow", "unable to load certificate"):
        with pytest.raises(ValueError):
            readings.certificate("mosquitto", wrong, 0.0)


# where the package comes from


@pytest.mark.parametrize(
    ("dashboards", "said"),
    [
        ({"package": {**PIN, "sha256": "abc"}}, "sha256"),
        ({"package": {**PIN, "file": "../grafana.deb"}}, "file"),
        ({"package": {**PIN, "file": "grafana.rpm"}}, "file"),
        ({"package": "grafana.deb"}, "package"),
        ({"repository": {"url": "https://apt.example.org"}}, "key"),
        ({"repository": {"url": "ftp://apt.example.org", "key": {"file": "k", "sha256": "0" * 64}}}, "url"),
        ({"repository": {"url": "https://x/;rm", "key": {"file": "k", "sha256": "0" * 64}}}, "url"),
        ({"anonymous": True}, "unknown key"),
    ],
)
def test_a_slip_in_the_dashboards_description_is_told_in_the_operator_s_words(
    dashboards: dict[str, Any], said: str
) -> None:
    with pytest.raises(SiteError) as told:
        site(**dashboards)
    assert "dashboards" in str(told.value) and said in str(told.value) and "pydantic" not in str(told.value)


def test_another_package_than_the_pinned_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(packages.FOLDER, str(tmp_path))
    pinned = site(package=PIN)
    assert packages.local(pinned, pinned.dashboards.package) is None
    (tmp_path / PIN["file"]).write_bytes(b"something else")
    with pytest.raises(packages.PackageRefused, match="not installed") as told:
        packages.local(pinned, pinned.dashboards.package)
    assert "\n" not in str(told.value)


def test_a_site_that_is_no_lab_never_looks_where_a_stand_in_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(packages.FOLDER, raising=False)
    lab = Site(**{**description(), "services": declared(), "lab": True, "state": tmp_path})
    assert list(packages.folders(lab)) == [tmp_path / "packages"]
    for other in (site(), Site(**{**description(), "services": declared(), "state": tmp_path})):
        assert list(packages.folders(other)) == []


def test_a_lab_takes_the_operator_s_package_before_the_stand_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(packages.FOLDER, raising=False)
    built = of_the_lab.dashboards(tmp_path / "lab")
    assert built["package"]["file"].startswith("grafana-standin-")
    assert of_the_lab.dashboards(tmp_path / "other") == built, "the same content makes the same file"
    monkeypatch.setenv(packages.FOLDER, str(tmp_path))
    assert of_the_lab.dashboards(tmp_path / "lab") == built
    (tmp_path / "grafana_9.4.7_amd64.deb").write_bytes(b"the real one")
    assert of_the_lab.dashboards(tmp_path / "lab")["package"]["file"] == "grafana_9.4.7_amd64.deb"


class Listed(BaseHTTPRequestHandler):
    """A repository's list, where apt looks for it first."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/apt/dists/stable/InRelease" else 404)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        pass


def test_a_repository_is_asked_before_it_is_installed_from() -> None:
    def answers(url: str) -> bool:
        repository = Repository(url=url, key={"file": "key.asc", "sha256": "0" * 64})
        done = subprocess.run(["sh", "-c", packages.Answers().command(repository)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return packages.Answers().process(done.stdout.splitlines())

    server = HTTPServer(("127.0.0.1", 0), Listed)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        place = f"http://127.0.0.1:{server.server_port}"
        assert answers(f"{place}/apt")
        assert not answers(f"{place}/elsewhere")
    finally:
        server.shutdown()
        server.server_close()
    assert not answers(f"{place}/apt")


def test_what_is_run_to_install_is_shell_that_trusts_the_one_key_for_the_one_repository() -> None:
    repository = Repository(url="https://apt.example.org", key={"file": "key.asc", "sha256": "0" * 64})
    for script in (packages._from_repository("grafana", repository), packages._from_file("grafana", "g.deb", "0" * 64)):
        checked = subprocess.run(["sh", "-n"], input=script, text=True, capture_output=True)
        assert checked.returncode == 0, checked.stderr
        assert "policy-rc.d" in script
    assert "Signed-By: /etc/apt/keyrings/gatehouse-grafana.asc" in packages._from_repository("grafana", repository)
    assert "trusted=yes" not in packages._from_repository("grafana", repository)


def test_the_stand_in_says_so_wherever_it_shows() -> None:
    assert "standin" in standin.VERSION
    here = Path(standin.__file__).parent
    assert all("STAND-IN" in (here / name).read_text() for name in ("program.py", "pages.py", "source.py"))


# how answers are read


def seen(status: int, body: str = "", **more: str) -> Observation:
    return Observation("gateway", {"kind": "http"}, {"outcome": "answered", "status": status, "body": body, **more})


def test_a_session_begins_with_a_login_that_was_let_in() -> None:
    cookie = "grafana_session=abc; Path=/; HttpOnly; Secure"
    assert proof.session(seen(200, cookie=cookie)) == "grafana_session=abc"
    assert proof.session(seen(401, cookie=cookie)) == proof.session(seen(200)) == ""


def test_a_page_is_closed_that_says_so_or_shows_the_login_page() -> None:
    assert proof.refused(seen(401)) and proof.refused(seen(302, location="/login"))
    assert not proof.refused(seen(200)) and not proof.refused(seen(302, location="/d/fleet"))
    assert not proof.refused(Observation("gateway", {"kind": "http"}, {"outcome": "refused"}))


def test_data_frames_are_read_and_errors_are_told() -> None:
    frames = [{"schema": {}, "data": {"values": [[1000, 3000], [1.5, None]]}}, {"data": {"values": [[2000], [7]]}}]
    answer = seen(200, json.dumps({"results": {"A": {"frames": frames}, "B": {"error": "no login", "frames": []}}}))
    assert proof.newest(answer, "A") == 3.0 and proof.newest(answer, "B") == proof.newest(answer, "C") == 0.0
    assert proof.values(answer, "A") == [1000, 3000, 1.5, None, 2000, 7]
    assert proof.outcomes(answer) == {"A": "", "B": "no login"}
    assert proof.outcomes(seen(502, "<html>")) == {} and proof.values(seen(502, "<html>"), "A") == []


@pytest.mark.parametrize("comes", [True, False])
def test_after_a_start_the_collector_waits_for_the_intake_s_numbers_and_not_for_ever(
    comes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers, registry = tmp_path / "metrics.prom", tmp_path / "registry.json"
    registry.write_text("{}")
    monkeypatch.setattr(collector, "PAUSE", 0.02)
    monkeypatch.setattr(collector, "PATIENCE", 30 if comes else 0.1)
    monkeypatch.setattr(collector, "_said", lambda *command: '{"nftables": []}')
    if comes:
        late = threading.Timer(0.2, numbers.write_text, ['gatehouse_intake_refused_total{reason="replay"} 3\n'])
        late.start()
    nothing: dict[str, Any] = {
        "broker": "",
        "certificates": {},
        "registry": str(registry),
        "names": str(registry),
        "bridges": [],
    }
    points, left_out = collector.collected({**nothing, "metrics": str(numbers)})
    assert [point for point in points if point.startswith("messages,")] == (
        ["messages,reason=replay refused=3i"] if comes else []
    )
    assert [line.partition(":")[0] for line in left_out] == ([] if comes else ["intake"])
