"""The HTTPS front as rendered, judged by nginx itself: what it accepts, and what it does with those who come."""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from gatehouse.site import Listener, Page, Service
from roles import declared
from roles.nginx import files
from roles.rendering import Directory
from roles.target import Target

ADDRESS, HTTPS, HTTP, BEHIND = "127.0.80.1", 18443, 18080, 18110
CHARTS = Service(
    name="charts",
    title="Charts",
    listeners=(
        Listener(name="http", port=BEHIND, encryption="none", authentication="login", data="d", compromise="c"),
    ),
    pages=(Page(name="charts", listener="http", logins=("/login",)),),
)


@pytest.fixture(scope="module", autouse=True)
def nginx(programs: Callable[..., None]) -> None:
    programs("nginx", "nginx")


@pytest.fixture
def target(gateway_of: Callable[..., Target]) -> Callable[..., Target]:
    """A gateway whose front listens on this machine's loopback."""
    networks = {
        "management": {"interface": "eth2", "ipv4": f"{ADDRESS}/24"},
        "internet": {"interface": "eth0", "ipv4": "dhcp"},
    }

    def make(**changes: Any) -> Target:
        usual: dict[str, Any] = {
            "gateways": {"gw": {"networks": networks}},
            "services": (*declared(), CHARTS),
            "settings": {"nginx": {"ports": {"https": HTTPS, "http": HTTP}}},
        }
        return gateway_of(**{**usual, **changes})

    return make


def staged(target: Target, folder: Path) -> Path:
    """The role's files below a folder, for this user to read."""
    for entry in [*files.configuration(target), *files.certificate_files(target)]:
        path = folder / entry.path.lstrip("/")
        if isinstance(entry, Directory):
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(entry.content)
    return folder


def placed(target: Target, folder: Path) -> None:
    """The same, as if this folder were the gateway's root."""
    for path in staged(target, folder).rglob("*.conf"):
        path.write_text(path.read_text().replace(files.FOLDER, f"{folder}{files.FOLDER}"))


def accepted(folder: Path) -> subprocess.CompletedProcess[str]:
    """What the role's check says of staged files."""
    environment = {**os.environ, "STAGED": str(folder)}
    return subprocess.run(["sh", "-c", files.CHECK], env=environment, capture_output=True, text=True, check=False)


@contextmanager
def running(target: Target, folder: Path) -> Iterator[None]:
    """nginx on the role's files."""
    placed(target, folder)
    # It opens this one before it reads anything.
    options = f"user root; pid {folder}/nginx.pid; daemon off;"
    nginx = shutil.which("nginx") or "/usr/sbin/nginx"
    command = [nginx, "-e", "stderr", "-c", f"{folder}{files.CONFIGURATION}", "-g", options]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        try:
            until = time.monotonic() + 10
            while time.monotonic() < until:
                with socket.socket() as probe:
                    if probe.connect_ex((ADDRESS, HTTPS)) == 0:
                        break
                time.sleep(0.05)
            yield
        finally:
            process.terminate()
            process.communicate(timeout=20)


@pytest.fixture
def seen() -> Iterator[list[dict[str, str]]]:
    """What reaches the service behind the front: the headers of each request."""
    found: list[dict[str, str]] = []

    class Behind(BaseHTTPRequestHandler):
        def answer(self) -> None:
            found.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(200)
            self.send_header("Server", "Behind/1.0")
            self.send_header("X-Powered-By", "tests")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST = answer

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", BEHIND), Behind) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield found
        server.shutdown()


def connect(target: Target, name: str, version: ssl.TLSVersion | None = None) -> ssl.SSLSocket:
    """A TLS connection to the front, for a name, by a client that trusts the site's root."""
    context = ssl.create_default_context(cadata=target.pki.trust_anchor.decode())
    if version:
        context.minimum_version = context.maximum_version = version
    return context.wrap_socket(socket.create_connection((ADDRESS, HTTPS), 5), server_hostname=name)


def ask(target: Target, method: str, path: str, **headers: str) -> http.client.HTTPResponse:
    """The front's answer to one request for the page behind it."""
    connection = http.client.HTTPConnection("charts.test.internal")
    connection.sock = connect(target, "charts.test.internal")
    connection.request(method, path, headers={"Host": "charts.test.internal", **headers})
    answer = connection.getresponse()
    answer.read()
    return answer


@pytest.mark.parametrize("updates", [False, True])
def test_nginx_accepts_what_is_rendered_and_refuses_what_is_broken(
    target: Callable[..., Target], tmp_path: Path, updates: bool
) -> None:
    folder = staged(target(updates=updates), tmp_path)
    assert accepted(folder).returncode == 0, accepted(folder).stderr
    configuration = Path(f"{folder}{files.CONFIGURATION}")
    configuration.write_text(configuration.read_text().replace("server_tokens", "server_tokkens"))
    refused = accepted(folder)
    assert refused.returncode != 0
    assert "server_tokkens" in refused.stderr


def test_nginx_that_is_told_nothing_reads_the_front_s_configuration(
    target: Callable[..., Target], tmp_path: Path
) -> None:
    placed(target(), tmp_path)
    nginx = shutil.which("nginx") or "/usr/sbin/nginx"
    command = [nginx, "-T", "-e", "stderr", "-c", f"{tmp_path}{files.USUAL}", "-g", f"pid {tmp_path}/nginx.pid;"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    read = [
        line.split()[-1].rstrip(":") for line in done.stdout.splitlines() if line.startswith("# configuration file")
    ]
    assert f"{tmp_path}{files.CONFIGURATION}" in read
    assert [path for path in read if path.startswith(f"{tmp_path}{files.NAMES}/")]


def test_a_reload_that_nginx_does_not_follow_is_noticed(tmp_path: Path) -> None:
    port, reload = 18044, Path(files.__file__).with_name("reload.sh")
    configuration = tmp_path / "nginx.conf"

    def reads(listen: str) -> subprocess.CompletedProcess[str]:
        configuration.write_text(
            f"pid {tmp_path}/pid; daemon off; error_log stderr emerg; events {{}}"
            f" http {{ access_log off; server {{ listen {listen}:{port}; }} }}"
        )
        return subprocess.run(["sh", str(reload), str(process.pid)], capture_output=True, text=True, check=False)

    configuration.write_text(f"pid {tmp_path}/pid; daemon off; events {{}} http {{ server {{ listen *:{port}; }} }}")
    nginx = shutil.which("nginx") or "/usr/sbin/nginx"
    with subprocess.Popen([nginx, "-e", "stderr", "-c", str(configuration)], stderr=subprocess.PIPE) as process:
        try:
            until = time.monotonic() + 10
            while not Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text() and time.monotonic() < until:
                time.sleep(0.05)
            assert reads("*").returncode == 0
            refused = reads(ADDRESS)  # which the socket that it has covers already
            assert (refused.returncode, refused.stderr.count("restart it")) == (1, 1)
            assert reads("*").returncode == 0
        finally:
            process.terminate()
            process.communicate(timeout=20)


def test_a_known_name_is_served_and_any_other_is_refused_the_handshake(
    target: Callable[..., Target], tmp_path: Path, seen: list[dict[str, str]]
) -> None:
    gateway = target()
    with running(gateway, tmp_path):
        connect(gateway, "charts.test.internal").close()
        connect(gateway, "gateway.test.internal").close()
        with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
            connect(gateway, "other.test.internal")


def test_the_service_behind_hears_who_really_asks_and_the_client_hears_of_no_program(
    target: Callable[..., Target], tmp_path: Path, seen: list[dict[str, str]]
) -> None:
    gateway = target()
    with running(gateway, tmp_path):
        answer = ask(gateway, "GET", "/", **{"X-Forwarded-For": "203.0.113.7", "X-Real-IP": "203.0.113.7"})
        assert answer.status == 200
    (heard,) = seen
    assert heard["x-forwarded-for"] == heard["x-real-ip"] == "127.0.0.1" or heard["x-real-ip"].startswith("127.")
    assert "203.0.113.7" not in heard.values()
    assert (heard["host"], heard["x-forwarded-proto"]) == ("charts.test.internal", "https")
    assert answer.headers["Server"] == "nginx"
    assert "X-Powered-By" not in answer.headers
    assert answer.headers["Strict-Transport-Security"] == "max-age=63072000"


def test_logins_are_limited_and_looking_at_the_login_page_is_not(
    target: Callable[..., Target], tmp_path: Path, seen: list[dict[str, str]]
) -> None:
    gateway = target(web={"logins_per_minute": 2})
    with running(gateway, tmp_path):
        tries = [ask(gateway, "POST", "/login").status for _ in range(10)]
        looks = [ask(gateway, "GET", "/login").status for _ in range(10)]
    assert tries[:3] == [200] * 3
    assert tries[-1] == 429
    assert looks == [200] * 10


@pytest.mark.parametrize("profile", ["modern", "intermediate"])
def test_the_profile_decides_whether_tls_1_2_is_spoken(
    target: Callable[..., Target], tmp_path: Path, seen: list[dict[str, str]], profile: str
) -> None:
    gateway = target(web={"profile": profile})
    with running(gateway, tmp_path):
        assert connect(gateway, "charts.test.internal", ssl.TLSVersion.TLSv1_3).version() == "TLSv1.3"
        if profile == "modern":
            with pytest.raises(ssl.SSLError):
                connect(gateway, "charts.test.internal", ssl.TLSVersion.TLSv1_2)
        else:
            assert connect(gateway, "charts.test.internal", ssl.TLSVersion.TLSv1_2).version() == "TLSv1.2"


def test_in_the_clear_a_name_leads_to_https_and_shows_the_challenges_of_a_public_ca_only_where_it_has_to(
    target: Callable[..., Target], tmp_path: Path
) -> None:
    reach = {"ports": {"https": HTTPS, "http": HTTP}, "reachable_from": {"http": ["management", "internet"]}}
    gateway = target(acme={}, settings={"nginx": reach})
    plain = Path(staged(gateway, tmp_path / "own") / files.CONFIGURATION.lstrip("/")).read_text()
    assert "acme-challenge/" not in plain
    networks = {
        "management": {"interface": "eth2", "ipv4": f"{ADDRESS}/24"},
        "internet": {"interface": "eth0", "ipv4": "dhcp"},
    }
    public = {"gw": {"networks": networks, "public_names": {"charts": "charts.example.org"}}}
    gateway = target(acme={}, settings={"nginx": reach}, gateways=public)
    shown = Path(staged(gateway, tmp_path / "public") / files.CONFIGURATION.lstrip("/")).read_text()
    assert shown.count("acme-challenge/") == 1
    # The uplink's address is the provider's to give.
    assert f"listen *:{HTTP}" in shown and f"listen {ADDRESS}:{HTTPS}" in shown
    # Without a certificate yet, the name is not served, and nothing else is in its way.
    assert accepted(tmp_path / "public").returncode == 0
