"""Alerts: what is wrong by the gateway's numbers, told once, once a day and at its end, until it has arrived."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
import socket
import ssl
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID

from gatehouse.alerts import __main__ as program
from gatehouse.alerts import book as books
from gatehouse.alerts.book import Book, Raised
from gatehouse.alerts.reading import Limits, Reading, point
from gatehouse.alerts.rules import MOST_COUNTED, Counted, wrong
from gatehouse.alerts.ways import Email, Mqtt, Undelivered, Webhook, signature
from gatehouse.collector import __main__ as collector
from gatehouse.collector import readings
from gatehouse.identity.authority import key_to_pem, new_key
from gatehouse.messages.counts import MOST_NAMED, Counts
from gatehouse.site.alerts import Thresholds

WINDOW = 600
LIMITS = Limits(window=WINDOW, learning=86_400, **Thresholds().model_dump())
AWAKE = 100_000.0
FINE = (
    "certificate,name=mosquitto days=200.0,life=365.0",
    "disk,folder=/ free=63.2",
    "unit,name=mosquitto.service failed=0i,restarts=0i",
    "verified right=47i,wrong=0i,hours=3.2",
    "firewall,segment=iot,towards=gateway packets=12i",
)


def reading(when: float, *points: str, **broker: int) -> Reading:
    return Reading(when, tuple(map(point, (*FINE, *points))), broker)


def found(*points: str, raised: dict[str, str] | None = None, limits: Limits = LIMITS) -> dict[str, str]:
    """What is wrong by one reading's points by themselves."""
    counted, now = Counted(), reading(1000.0, *points)
    counted.take(now, WINDOW)
    return wrong(now, counted, limits, raised or {}, 1000.0, AWAKE)


def after(before: Reading, now: Reading) -> dict[str, str]:
    """What is wrong by what was counted between two readings."""
    counted = Counted()
    counted.take(before, WINDOW)
    counted.take(now, WINDOW)
    return wrong(now, counted, LIMITS, {}, now.when, AWAKE)


# the rules


def test_a_gateway_that_is_well_raises_nothing() -> None:
    assert found() == {}
    assert after(reading(1000.0, handshake=3), reading(1060.0, handshake=4)) == {}


@pytest.mark.parametrize(
    ("points", "more", "less", "key"),
    [
        ("rejected,device=pump-02 messages={}i", 10, 9, "rejected-messages pump-02"),
        ("refused,device=pump-02,why=limit packets={}i", 500, 499, "refused-packets pump-02"),
        ("refused,device=unknown,why=gateway packets={}i", 500, 499, "unknown-hardware *"),
        ("firewall,segment=guest,towards=onwards packets={}i", 10_000, 9_999, "dropped-packets guest"),
        ("unit,name=intake.service failed=0i,restarts={}i", 1, 0, "restart intake.service"),
    ],
)
def test_what_is_counted_is_wrong_from_its_threshold_on(points: str, more: int, less: int, key: str) -> None:
    begun = reading(1000.0, points.format(7))
    text = after(begun, reading(1060.0, points.format(7 + more)))
    assert set(text) == {key} and str(more) in text[key]
    assert after(begun, reading(1060.0, points.format(7 + less))) == {}
    # What was counted before anybody looked is nobody's alert, and what nobody had counted before is.
    assert found(points.format(1_000_000)) == {}
    assert set(after(reading(1000.0), reading(1060.0, points.format(more)))) == {key}


def test_connections_that_the_broker_refused_are_counted_by_reason() -> None:
    said = after(reading(1000.0, handshake=5, login=5), reading(1060.0, handshake=24, login=25))
    assert said == {"broker-refusals login": "the broker refused 20 connections within 600 s, at the login"}


def test_reasons_of_one_device_are_added_up() -> None:
    both = ("refused,device=pump-02,why=limit packets={}i", "refused,device=pump-02,why=forged packets={}i")
    now = reading(1060.0, *(each.format(250) for each in both))
    assert set(after(reading(1000.0, *(each.format(0) for each in both)), now)) == {"refused-packets pump-02"}


def test_a_window_forgets_and_a_slow_trickle_is_no_burst() -> None:
    counted = Counted()
    for minute in range(60):
        now = reading(1000.0 + 60 * minute, login=minute)
        counted.take(now, WINDOW)
        assert wrong(now, counted, LIMITS, {}, now.when, AWAKE) == {}
    assert len(counted.added["broker-refusals login"]) <= WINDOW / 60
    counted.take(now := reading(1000.0 + 3660, login=200), WINDOW)
    assert set(wrong(now, counted, LIMITS, {}, now.when, AWAKE)) == {"broker-refusals login"}
    counted.take(now := reading(1000.0 + 3660 + WINDOW, login=200), WINDOW)
    assert wrong(now, counted, LIMITS, {}, now.when, AWAKE) == {}


def test_a_counter_that_begins_anew_counts_on_and_addresses_that_are_forgotten_count_nothing() -> None:
    rejected, refused = "rejected,device=p messages={}i", "refused,device=unknown,why=gateway packets={}i"
    assert set(after(reading(1000.0, rejected.format(500)), reading(1060.0, rejected.format(12)))) == {
        "rejected-messages p"
    }
    assert after(reading(1000.0, refused.format(9000)), reading(1060.0, refused.format(8000))) == {}


def test_one_reading_is_counted_once_and_a_clock_that_was_set_back_harms_nothing() -> None:
    counted = Counted()
    for now in (reading(1000.0, login=0), reading(1060.0, login=19), reading(1060.0, login=19)):
        counted.take(now, WINDOW)
    assert counted.within(1060.0, WINDOW) == {"broker-refusals login": 19}
    counted.take(reading(500.0, login=20), WINDOW)
    assert counted.within(500.0, WINDOW) == {"broker-refusals login": 1}


def test_what_is_remembered_is_bounded() -> None:
    counted = Counted()
    counted.take(reading(1000.0), WINDOW)
    many = (f"rejected,device=d{n} messages={n + 1}i" for n in range(MOST_COUNTED + 500))
    counted.take(reading(1060.0, *many), WINDOW)
    assert len(counted.added) == MOST_COUNTED
    assert "rejected-messages d0" not in counted.added, "those that were counted least are forgotten"


@pytest.mark.parametrize(
    ("wrong_point", "key"),
    [
        ("certificate,name=web days=72.9,life=365.0", "certificate web"),
        ("certificate,name=web days=-1.0,life=365.0", "certificate web"),
        ("certificate,name=web days=13.9", "certificate web"),
        ("disk,folder=/var free=9.9", "disk /var"),
        ("unit,name=ssh.service failed=1i,restarts=0i", "unit ssh.service"),
        ("verified right=46i,wrong=1i,hours=1.0", "verification *"),
        ("verified right=47i,wrong=0i,hours=26.1", "verification *"),
    ],
)
def test_what_is_wrong_by_itself_is_told_at_once(wrong_point: str, key: str) -> None:
    assert set(found(wrong_point)) == {key}


@pytest.mark.parametrize(
    "fine",
    [
        "certificate,name=web days=73.1,life=365.0",
        "certificate,name=acme days=14.1,life=64.0",
        "certificate,name=web days=14.1",
        "disk,folder=/var free=10.0",
    ],
)
def test_what_is_in_order_is_not(fine: str) -> None:
    assert found(fine) == {}


def test_a_disk_is_nearly_full_until_there_is_clearly_more_room() -> None:
    was = {"disk /": "nearly full"}
    assert set(found("disk,folder=/ free=11.9", raised=was)) == {"disk /"}
    assert found("disk,folder=/ free=12.1", raised=was) == {}


def test_without_readings_that_is_told_and_nothing_is_over() -> None:
    was = {"unit ssh.service": "ssh.service has failed"}
    for last in (None, reading(1000.0)):
        assert set(wrong(last, Counted(), LIMITS, was, 1301.0, AWAKE)) == {"numbers *", *was}
    assert wrong(None, Counted(), LIMITS, was, 1301.0, 60.0) == was, "soon after a start there is none yet"
    assert wrong(reading(1300.0), Counted(), LIMITS, was, 1301.0, AWAKE) == {}


@pytest.mark.parametrize("document", [{}, [], {"when": 1, "points": ["x"], "broker": {}}, {"when": "x"}, 7])
def test_what_is_no_reading_is_refused(document: Any) -> None:
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        Reading.of(document)


# told once


def told(book: Book, wrong: dict[str, str], now: float, calm: int = 300) -> list[tuple[str, str]]:
    return [(key, state) for key, state, _ in book.settle(wrong, now, calm)]


def test_an_alert_is_told_once_once_a_day_and_at_its_end() -> None:
    book, what = Book(), {"disk /": "9 % free"}
    assert told(book, what, 0.0) == [("disk /", "raised")]
    for minute in range(1, 1440):
        assert told(book, what, 60.0 * minute) == []
    assert told(book, {"disk /": "8 % free"}, 86_400.0) == [("disk /", "lasts")]
    assert book.raised["disk /"].text == "8 % free" and book.raised["disk /"].since == 0.0
    assert told(book, what, 86_460.0) == []
    assert told(book, {}, 86_500.0) == [], "it may come back"
    assert told(book, what, 86_600.0) == [], "and then it is the same one"
    assert told(book, {}, 86_900.0) == [("disk /", "ended")]
    assert told(book, {}, 87_000.0) == [] and not book.raised


def test_a_clock_that_was_set_back_keeps_nothing_quiet_for_years() -> None:
    book = Book(raised={"disk /": Raised(2e9, 2e9, 2e9, "9 % free")})
    assert told(book, {"disk /": "9 % free"}, 1e9) == [("disk /", "lasts")]
    book = Book(raised={"disk /": Raised(2e9, 2e9, 2e9, "9 % free")})
    assert told(book, {}, 1e9) == [("disk /", "ended")]


def test_how_many_are_raised_and_how_many_wait_is_bounded() -> None:
    book = Book()
    book.settle({f"unit u{n}": "failed" for n in range(5000)}, 0.0, 300)
    assert len(book.raised) == books.MOST_RAISED
    for n in range(2000):
        book.put({"number": n}, ["mqtt"])
    assert len(book.ways["mqtt"].waiting) == books.MOST_WAITING
    assert book.ways["mqtt"].waiting[-1] == {"number": 1999} and book.ways["mqtt"].lost == 1500


# the program


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "devices.json").write_text(json.dumps({"pump-02": {"model": "relay", "address": "10.0.0.9"}}))
    return {
        "devices": str(tmp_path / "devices.json"), "own": ["10.0.0.1"],
        "site": "home", "gateway": "gw", "reading": str(tmp_path / "reading.json"), "state": str(tmp_path),
        "limits": {"window": WINDOW, "learning": 86_400, **Thresholds().model_dump()}, "calm": 300, "ways": {},
    }  # fmt: skip


def leave(settings: dict[str, Any], when: float, *points: str, **broker: int) -> None:
    document = {"when": when, "points": [*FINE, *points], "broker": broker}
    Path(settings["reading"]).write_text(json.dumps(document))


FAILED = "unit,name=ssh.service failed=1i,restarts=0i"


def test_what_is_raised_outlives_a_restart_and_nobody_else_reads_it(settings: dict[str, Any], tmp_path: Path) -> None:
    leave(settings, 1000.0, FAILED)
    assert program.run(settings, 1001.0, AWAKE) == []
    assert set(books.read(tmp_path / "state.json").raised) == {"unit ssh.service"}
    assert stat.S_IMODE((tmp_path / "state.json").stat().st_mode) == 0o600
    status = json.loads((tmp_path / "status.json").read_text())
    assert status == {"when": 1001.0, "raised": 1, "waiting": 0, "failing": 0}
    assert readings.alerts(json.dumps(status)) == "alerts raised=1i,waiting=0i,failing=0i"
    # after a reboot: no reading yet
    Path(settings["reading"]).unlink()
    assert program.run(settings, 1400.0, 5.0) == []
    assert set(books.read(tmp_path / "state.json").raised) == {"unit ssh.service"}


def test_where_alerts_are_new_nobody_misses_a_reading_yet(settings: dict[str, Any], tmp_path: Path) -> None:
    for now, missed in ((1000.0, set()), (1300.0, set()), (1301.0, {"numbers *"})):
        assert program.run(settings, now, AWAKE) == []
        assert set(books.read(tmp_path / "state.json").raised) == missed


@pytest.mark.parametrize("broken", ["", "{", "[]", "{}", '{"counted": 1, "raised": {}, "ways": {}, "number": 0}', "\0"])
def test_a_broken_book_is_told_and_begun_anew(broken: str, settings: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text(broken)
    leave(settings, 1000.0, FAILED)
    trouble = program.run(settings, 1001.0, AWAKE)
    assert len(trouble) == 1 and trouble[0].endswith("begun anew")
    assert set(books.read(tmp_path / "state.json").raised) == {"unit ssh.service"}


@pytest.mark.parametrize("broken", ["", "{", "[]", '{"when": 1}', '{"when": 1, "points": ["unit"], "broker": {}}'])
def test_a_broken_reading_is_told_and_ends_nothing(broken: str, settings: dict[str, Any], tmp_path: Path) -> None:
    Path(settings["reading"]).write_text(broken)
    assert len(program.run(settings, 1001.0, 1.0)) == 1
    assert books.read(tmp_path / "state.json").raised == {}


def test_a_wrong_call_is_told_in_a_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert program.main([]) == program.main(["a", "b"]) == program.main(["--what"]) == 2
    assert program.main([str(tmp_path / "none.json")]) == 1
    (tmp_path / "broken.json").write_text("{}")
    assert program.main([str(tmp_path / "broken.json")]) == 1
    assert program.main(["--check", str(tmp_path)]) == 1
    assert "Traceback" not in capsys.readouterr().err


# how it gets out


class Site:
    """A certification authority for loopback, in files."""

    def __init__(self, folder: Path) -> None:
        key = new_key()
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "loopback")])
        now = datetime.datetime.now(datetime.UTC)
        made = (
            x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
            .serial_number(1).not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
            .sign(key, hashes.SHA256())
        )  # fmt: skip
        from cryptography.hazmat.primitives.serialization import Encoding

        self.ca, self.both = folder / "ca.pem", folder / "both.pem"
        self.ca.write_bytes(made.public_bytes(Encoding.PEM))
        self.both.write_bytes(made.public_bytes(Encoding.PEM) + key_to_pem(key))
        self.secret = folder / "secret"
        self.secret.write_text("a secret\n")

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.both)
        return context


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@contextmanager
def receiver(site: Site, status: int = 204) -> Iterator[tuple[int, list[tuple[str, bytes]]]]:
    """An HTTPS server that answers with a status: its port, and what it was sent."""
    got: list[tuple[str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append((str(self.headers["X-Gatehouse-Signature"]), body))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.send_header("Location", "https://elsewhere.invalid/")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.socket = site.context().wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port, got
    finally:
        server.shutdown()
        server.server_close()


def webhook(site: Site, port: int, trust: bool = True) -> dict[str, Any]:
    return {"url": f"https://127.0.0.1:{port}/a?b=c", "secret": str(site.secret), "trust": str(site.ca) * trust}


def test_a_webhook_gets_each_message_once_with_a_signature_that_verifies(
    settings: dict[str, Any], site: Site, tmp_path: Path
) -> None:
    with receiver(site) as (port, got):
        settings["ways"] = {"webhook": webhook(site, port)}
        leave(settings, 1000.0, FAILED)
        assert program.run(settings, 1001.0, AWAKE) == []
        assert program.run(settings, 1061.0, AWAKE) == []
        leave(settings, 1400.0)
        assert program.run(settings, 1401.0, AWAKE) == []
    sent = [json.loads(body) for _, body in got]
    assert [(each["state"], each["alert"], each["about"], each["number"]) for each in sent] == [
        ("raised", "unit", "ssh.service", 1), ("ended", "unit", "ssh.service", 2),
    ]  # fmt: skip
    assert sent[0]["since"] == 1001 and sent[0]["gateway"] == "gw"
    assert all(signed == signature(b"a secret", body) for signed, body in got)


@pytest.mark.parametrize("status", [302, 401, 500])
def test_what_a_webhook_does_not_take_is_kept_and_tried_again(
    status: int, settings: dict[str, Any], site: Site, tmp_path: Path
) -> None:
    leave(settings, 1000.0, FAILED)
    with receiver(site, status) as (port, got):
        settings["ways"] = {"webhook": webhook(site, port)}
        assert program.run(settings, 1001.0, AWAKE) == [f"webhook: 1 wait: 127.0.0.1: answers {status}"]
    assert len(got) == 1, "nothing is followed elsewhere"
    kept = books.read(tmp_path / "state.json").ways["webhook"]
    assert (kept.failing, len(kept.waiting)) == (1001.0, 1) and str(status) in kept.error
    assert json.loads((tmp_path / "status.json").read_text())["failing"] == 1
    with receiver(site) as (port, got):
        settings["ways"] = {"webhook": webhook(site, port)}
        assert program.run(settings, 1061.0, AWAKE) == []
    assert len(got) == 1
    kept = books.read(tmp_path / "state.json").ways["webhook"]
    assert (kept.failing, kept.error, kept.waiting) == (0.0, "", [])


def test_what_a_slow_way_has_no_time_for_waits_for_the_next_run(
    settings: dict[str, Any], site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "BUDGET", -1.0)
    leave(settings, 1000.0, FAILED, "disk,folder=/ free=1.0", "verified right=1i,wrong=1i,hours=1.0")
    for left in (2, 1, 0):
        with receiver(site) as (port, got):
            settings["ways"] = {"webhook": webhook(site, port)}
            assert program.run(settings, 1001.0, AWAKE) == []
        assert len(got) == 1
        way = books.read(tmp_path / "state.json").ways["webhook"]
        assert (len(way.waiting), way.failing) == (left, 0.0)


def test_a_test_that_can_t_be_read_is_told_and_stops_nothing(settings: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "test").symlink_to(tmp_path)  # as good as unreadable, for root too
    leave(settings, 1000.0, FAILED)
    (line,) = program.run(settings, 1001.0, AWAKE)
    assert "let others read it" in line and not (tmp_path / "test").is_symlink()
    assert set(books.read(tmp_path / "state.json").raised) == {"unit ssh.service"}


def test_a_way_that_fails_for_long_is_told_on_the_others(settings: dict[str, Any], site: Site, tmp_path: Path) -> None:
    settings["ways"] = {"webhook": webhook(site, 9)}
    leave(settings, 1000.0, FAILED)
    assert program.run(settings, 1001.0, AWAKE)
    leave(settings, 1400.0, FAILED)
    assert program.run(settings, 1402.0, AWAKE)
    assert "delivery webhook" in books.read(tmp_path / "state.json").raised


def test_a_server_whose_certificate_nobody_vouches_for_is_told_nothing(site: Site) -> None:
    with receiver(site) as (port, got):
        with pytest.raises(Undelivered, match="certificate verify failed"):
            list(Webhook(**webhook(site, port, trust=False)).send([b"{}"]))
        assert got == []
        assert len(list(Webhook(**webhook(site, port)).send([b"{}"]))) == len(got) == 1


def test_a_webhook_without_its_secret_or_without_tls_is_refused(site: Site, tmp_path: Path) -> None:
    with pytest.raises(Undelivered, match="HTTPS"):
        Webhook("http://127.0.0.1/", str(site.secret))
    with pytest.raises(Undelivered, match="can't be read"):
        Webhook("https://127.0.0.1/", str(tmp_path / "none"))


@contextmanager
def broker(site: Site, play: Callable[[ssl.SSLSocket], None]) -> Iterator[int]:
    """What plays a broker's side of one session over TLS; its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        plain, _ = listener.accept()
        with plain, site.context().wrap_socket(plain, server_side=True) as session:
            play(session)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()
        thread.join(5)


def mqtt(site: Site, port: int) -> Mqtt:
    return Mqtt("127.0.0.1", port, "127.0.0.1", str(site.ca), str(site.both), "gateway/gw/alerts")


def test_a_message_is_published_at_qos_1_and_counts_when_the_broker_says_so(site: Site) -> None:
    got: list[bytes] = []

    def play(session: ssl.SSLSocket) -> None:
        got.append(session.recv(1000))
        session.sendall(b"\x20\x03\x00\x00\x00")
        for _ in range(2):
            got.append(session.recv(1000))
            number = got[-1][21:23]
            session.sendall(b"\x40\x02" + number)
        got.append(session.recv(1000))

    with broker(site, play) as port:
        assert len(list(mqtt(site, port).send([b"one", b"two"]))) == 2
    assert got[0][:9] == b"\x10\x0d\x00\x04MQTT\x05" and got[0][9] == 2
    assert [data[0] for data in got[1:3]] == [0x32, 0x32] and b"gateway/gw/alerts" in got[1]
    assert got[1].endswith(b"one") and got[2].endswith(b"two") and got[3] == b"\xe0\x00"


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([b"\x20\x03\x00\x87\x00"], "refuses the session: not authorised"),
        ([b"\x20\x03\x00\x00\x00", b"\x40\x03\x00\x02\x87"], "does not take what is published.*not authorised"),
        ([b"\x20\x03\x00\x00\x00", b"\xe0\x02\x8b\x00"], "answers with packet 0xe0"),
        ([b"\x20\x03\x00\x00\x00", b"\x40\xff\xff"], "too long"),
        ([], "ends the connection|broker at"),
    ],
)
def test_what_the_broker_does_not_take_is_not_delivered(site: Site, answers: list[bytes], said: str) -> None:
    def play(session: ssl.SSLSocket) -> None:
        for answer in answers:
            session.recv(1000)
            session.sendall(answer)
        if answers:
            session.recv(1000)

    with broker(site, play) as port, pytest.raises(Undelivered, match=said):
        list(mqtt(site, port).send([b"one"]))


def test_where_nobody_answers_it_waits(settings: dict[str, Any], site: Site, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    settings["ways"] = {
        "mqtt": {"address": "127.0.0.1", "port": port, "name": "broker", "ca": str(site.ca),
                 "client": str(site.both), "topic": "gateway/gw/alerts"},
    }  # fmt: skip
    (tmp_path / "test").write_text("is anybody there?\n")
    (line,) = program.run(settings, 1001.0, 1.0)
    assert line.startswith(f"mqtt: 1 wait: broker at 127.0.0.1 port {port}")
    assert not (tmp_path / "test").exists(), "a test is made once"
    (waits,) = books.read(tmp_path / "state.json").ways["mqtt"].waiting
    assert waits == books.test_message("home", "gw", "is anybody there?")
    # A way that the site has no longer is forgotten, and what waited on it.
    settings["ways"] = {}
    assert program.run(settings, 1061.0, 1.0) == []
    assert books.read(tmp_path / "state.json").ways == {}


# by e-mail


class Mails:
    """A mail server on loopback, as far as RFC 5321, 3207 and 4954 are used; `refuses` is a command and its answer."""

    def __init__(self, site: Site, at_once: bool = False, refuses: str = "", starttls: bool = True) -> None:
        self._site, self._at_once, self._refuses, self._starttls = site, at_once, refuses, starttls
        self.mails: list[str] = []
        self.logins: list[str] = []
        self.clear: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        wire, _ = self._listener.accept()
        wire.settimeout(10)
        try:
            self._talk(wire)
        except (OSError, ValueError):
            wire.close()

    def _talk(self, wire: socket.socket) -> None:
        secure = self._at_once
        if secure:
            wire = self._site.context().wrap_socket(wire, server_side=True)
        lines = wire.makefile("rb")
        wire.sendall(b"220 mail.example.org\r\n")
        while line := lines.readline().decode():
            command = line.strip()
            if not secure:
                self.clear.append(command)
            word = command.split()[0].upper()
            if self._refuses and word == self._refuses.split()[0]:
                wire.sendall(f"{self._refuses.split(None, 1)[1]}\r\n".encode())
            elif word == "EHLO":
                more = "250 AUTH PLAIN" if secure or not self._starttls else "250 STARTTLS"
                wire.sendall(f"250-mail.example.org\r\n{more}\r\n".encode())
            elif word == "STARTTLS":
                wire.sendall(b"220 go\r\n")
                wire = self._site.context().wrap_socket(wire, server_side=True)
                lines, secure = wire.makefile("rb"), True
            elif word == "AUTH":
                self.logins.append(command)
                wire.sendall(b"235 ok\r\n")
            elif word == "DATA":
                wire.sendall(b"354 go\r\n")
                self.mails.append("".join(iter(lambda lines=lines: lines.readline().decode(), ".\r\n")))
                wire.sendall(b"250 taken\r\n")
            elif word == "QUIT":
                wire.sendall(b"221 bye\r\n")
                wire.close()
                return
            else:
                wire.sendall(b"250 ok\r\n")


def email(site: Site, port: int, **changes: Any) -> Email:
    given = {
        "server": "127.0.0.1", "port": port, "security": "starttls", "user": "gw", "sender": "gw@example.org",
        "to": ["anna@example.org", "ben@example.org"], "password": str(site.secret), "hello": "gw.home.internal",
        "trust": str(site.ca),
    }  # fmt: skip
    return Email(**{**given, **changes})


MESSAGE = books.message("home", "gw", 7, "disk /", "raised", Raised(1.0, 1.0, 1.0, "/: 9 % free\r\nBcc: x@x"), 1001.0)


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_an_alert_is_mailed_over_tls_alone_after_a_login(site: Site, security: str) -> None:
    server = Mails(site, at_once=security == "tls")
    try:
        assert len(list(email(site, server.port, security=security).send([books.body(MESSAGE)] * 2))) == 2
    finally:
        server.close()
    assert [line.split()[0] for line in server.clear] == ([] if security == "tls" else ["ehlo", "STARTTLS"])
    assert server.logins == ["AUTH PLAIN " + base64.b64encode(b"\0gw\0a secret").decode()]
    (mail, again) = server.mails
    head, _, content = mail.partition("\r\n\r\n")
    assert "From: gw@example.org" in head and "To: anna@example.org, ben@example.org" in head
    assert "Subject: [gw] raised: /: 9 % free  Bcc: x@x" in head and "\r\nBcc:" not in head
    assert '"alert": "disk"' in content and again.partition("\r\n\r\n")[2] == content
    assert "a secret" not in mail


@pytest.mark.parametrize(
    ("refuses", "said"),
    [
        ("AUTH 535 5.7.8 no such user", "answers 535 5.7.8 no such user"),
        ("MAIL 550 not you", "answers 550 not you"),
        ("RCPT 550 nobody of that name", "nobody of that name"),
        ("DATA 451 try later", "answers 451 try later"),
        ("STARTTLS 454 not now", "not now"),
    ],
)
def test_what_a_mail_server_does_not_take_is_not_delivered(site: Site, refuses: str, said: str) -> None:
    server = Mails(site, refuses=refuses)
    try:
        with pytest.raises(Undelivered, match=said) as told:
            list(email(site, server.port).send([books.body(MESSAGE)]))
    finally:
        server.close()
    assert "secret" not in str(told.value) and "\n" not in str(told.value) and server.mails == []


def test_nothing_is_mailed_in_the_clear_or_to_a_server_that_nobody_vouches_for(site: Site) -> None:
    for server, trust, said in ((Mails(site, starttls=False), str(site.ca), "STARTTLS"), (Mails(site), "", "verify")):
        with pytest.raises(Undelivered, match=said):
            list(email(site, server.port, trust=trust).send([books.body(MESSAGE)]))
        server.close()
        assert server.logins == server.mails == []
        assert all(line.split()[0] in ("ehlo", "EHLO", "STARTTLS", "QUIT") for line in server.clear)


# what the collector leaves for it


def test_the_collector_leaves_its_reading_and_goes_on_counting_what_the_broker_refused(tmp_path: Path) -> None:
    path = tmp_path / "reading.json"
    collector.leave(path, ["broker,reason=handshake refused=2i", "broker,reason=login refused=0i"], 1.0)
    collector.leave(path, ["broker,reason=handshake refused=3i", "broker,reason=login refused=1i"], 2.0)
    collector.leave(path, ["disk,folder=/ free=1.0"], 3.0)
    left = Reading.of(json.loads(path.read_text()))
    assert left.broker == {"handshake": 5, "login": 1} and left.when == 3.0
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert left.points == (point("disk,folder=/ free=1.0"),)


def test_units_and_disks_are_read_as_systemd_and_the_kernel_tell_them(tmp_path: Path) -> None:
    shown = (
        "Id=mosquitto.service\nNRestarts=2\nActiveState=active\n\nId=x.timer\nActiveState=failed\n\n"
        "Id=none.service\nNRestarts=0\nActiveState=inactive\n"
    )
    assert readings.units(shown) == [
        "unit,name=mosquitto.service failed=0i,restarts=2i",
        "unit,name=x.timer failed=1i,restarts=0i",
        "unit,name=none.service failed=0i,restarts=0i",
    ]
    assert readings.units("") == []
    assert readings.disks({"/": (200, 50), "/proc": (0, 0)}) == ["disk,folder=/ free=25.0"]
    usage = collector._usage([str(tmp_path), str(tmp_path.parent), str(tmp_path / "none")])
    assert list(usage) == [str(tmp_path)], "a file system once"


def test_a_certificate_s_life_is_read_where_its_begin_is_known() -> None:
    dates = "notBefore=Jul  1 00:00:00 2026 GMT\nnotAfter=Jul  1 00:00:00 2027 GMT\n"
    line = readings.certificate("mosquitto", dates, 1814400000.0 - 86_400)
    assert line == "certificate,name=mosquitto days=1.000,life=365.000"


def test_rejected_messages_are_counted_by_device_up_to_a_bound(tmp_path: Path) -> None:
    counts = Counts(tmp_path / "metrics.prom", lambda _: None)
    for n in range(MOST_NAMED + 10):
        counts.refuse("replay", f"device-{n}")
    counts.refuse("replay", "device-3")
    counts.refuse("wrong-topic", "nobody known")
    counts.refuse("replay", "too-late")
    lines = readings.rejected(counts.render())
    assert len(lines) == MOST_NAMED and "rejected,device=device-3 messages=2i" in lines
    assert counts.refused["replay"] == MOST_NAMED + 12
    assert all(line.startswith(readings.NOT_STORED) for line in lines)
