"""The update server as rendered, run by nginx itself: who gets what, and who nothing."""

from __future__ import annotations

import contextlib
import http.client
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gatehouse.identity import Credential, Pki
from gatehouse.site import Device
from roles.nginx import files as nginx
from roles.rendering import Directory
from roles.target import Target
from roles.updates import files

ADDRESS, PORT, NAME = "127.0.84.1", 18444, "updates.test.internal"
IMAGE = bytes(range(256)) * 16


@dataclass
class Server:
    """A running update server, and the devices that it may know."""

    make: Callable[..., Target]
    folder: Path
    pki: Pki
    credentials: dict[str, Credential]
    process: subprocess.Popen[bytes] | None = None

    def target(self, **status: str) -> Target:
        models = {"one": "relay", "two": "sensor"}
        devices = [
            Device(
                name=name, model=model, gateway="gw", status=status.get(name, "active"),
                serials=(f"{self.credentials[name].serial:x}",),
            )
            for name, model in models.items()
        ]  # fmt: skip
        return self.make(
            pki=self.pki, updates=True, devices=devices, iot={"ipv4": f"{ADDRESS}/24"},
            settings={"updates": {"ports": {"updates": PORT}}},
        )  # fmt: skip

    def write(self, target: Target) -> None:
        for entry in [*files.front(target)]:
            path = self.folder / entry.path.removeprefix(nginx.FOLDER).lstrip("/")
            if isinstance(entry, Directory):
                path.mkdir(parents=True, exist_ok=True)
            else:
                text = entry.content.replace(files.SERVED.encode(), str(self.folder / "served").encode())
                path.write_bytes(text)

    def bring(self, target: Target) -> None:
        """As `invoke revoke` does: the list alone, and a reload."""
        (self.folder / "updates/models.map").write_bytes(files.models(target).content)
        assert self.process
        self.process.send_signal(signal.SIGHUP)

    def ask(self, who: str | None, path: str, **headers: str) -> tuple[int, bytes]:
        """The answer to a device, which checks who answers."""
        context = ssl.create_default_context(cadata=self.pki.trust_anchor.decode())
        if who:
            pem = self.folder / f"{who}.pem"
            pem.write_bytes(self.credentials[who].chain_pem + self.credentials[who].private_key_pem)
            context.load_cert_chain(pem)
        connection = http.client.HTTPConnection(NAME)
        with context.wrap_socket(socket.create_connection((ADDRESS, PORT), 5), server_hostname=NAME) as sock:
            connection.sock = sock
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def becomes(self, who: str, path: str, status: int) -> bool:
        """Whether an answer comes to have a status within some seconds: a reload takes a moment."""
        until = time.monotonic() + 10
        while time.monotonic() < until:
            with contextlib.suppress(OSError):
                if self.ask(who, path)[0] == status:
                    return True
            time.sleep(0.2)
        return False


@pytest.fixture
def server(
    gateway_of: Callable[..., Target], new_pki: Callable[[], Pki], programs: Callable[..., None], tmp_path: Path
) -> Iterator[Server]:
    programs("nginx", "nginx")
    pki = new_pki()
    found = Server(gateway_of, tmp_path, pki, {name: pki.device(name) for name in ("one", "two", "stranger")})
    tmp_path.chmod(0o755)
    for model in ("relay", "sensor"):
        (tmp_path / "served" / model).mkdir(parents=True)
        (tmp_path / "served" / model / "1.0.0.bin").write_bytes(IMAGE)
        (tmp_path / "served" / model / "manifest").write_bytes(model.encode())
    target = found.target()
    found.write(target)
    configuration = f"""
        error_log stderr warn; pid {tmp_path}/nginx.pid; daemon off; user root;
        events {{ }}
        http {{
            limit_conn_zone $binary_remote_addr zone=addresses:1m; access_log off;
            include updates/updates.conf;
        }}
    """
    (tmp_path / "nginx.conf").write_text(configuration)
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    with subprocess.Popen([program, "-e", "stderr", "-c", f"{tmp_path}/nginx.conf"]) as process:
        found.process = process
        try:
            assert found.becomes("one", "/relay/manifest", 200)
            yield found
        finally:
            process.terminate()
            process.wait(20)


def test_a_device_gets_its_own_models_files_and_no_others(server: Server) -> None:
    assert server.ask("one", "/relay/manifest") == (200, b"relay")
    assert server.ask("two", "/sensor/1.0.0.bin") == (200, IMAGE)
    for path in ("/sensor/manifest", "/relay/../sensor/manifest", "/relay/%2e%2e/sensor/manifest", "/relay//../x"):
        assert server.ask("one", path)[0] in (400, 403), path


def test_nothing_is_listed_and_an_interrupted_download_goes_on(server: Server) -> None:
    assert [server.ask("one", path)[0] for path in ("/", "/relay", "/relay/", "/relay/.hidden")] == [403] * 4
    assert server.ask("one", "/relay/1.0.0.bin", Range="bytes=4000-") == (206, IMAGE[4000:])


def test_who_shows_no_certificate_or_one_that_the_registry_does_not_know_gets_nothing(server: Server) -> None:
    assert server.ask("one", "/relay/manifest")[0] == 200
    assert server.ask(None, "/relay/manifest")[0] == 400
    assert server.ask("stranger", "/relay/manifest")[0] == 403


@pytest.mark.parametrize("status", ["revoked", "quarantined"])
def test_who_is_cut_off_gets_nothing_from_then_on_and_the_others_go_on(server: Server, status: Any) -> None:
    server.bring(server.target(one=status))
    assert server.becomes("one", "/relay/manifest", 403)
    assert server.ask("two", "/sensor/manifest") == (200, b"sensor")
    server.bring(server.target())
    assert server.becomes("one", "/relay/manifest", 200)


def test_a_revoked_certificate_is_no_longer_known_whatever_the_status(server: Server) -> None:
    server.pki.revoke(server.credentials["one"].serial)
    server.bring(server.target())
    assert server.becomes("one", "/relay/manifest", 403)


def test_who_asks_too_often_is_told_to_wait(server: Server) -> None:
    answers = [server.ask("two", "/sensor/manifest")[0] for _ in range(40)]
    assert answers[0] == 200
    assert answers[-1] != 200


def test_without_the_option_there_is_no_update_server(gateway_of: Callable[..., Target]) -> None:
    target = gateway_of()
    assert not files.on(target)
    assert not any(entry.path.startswith(files.FOLDER) for entry in nginx.configuration(target))


def test_what_nginx_gets_with_the_option_has_no_key_but_the_servers(server: Server) -> None:
    keys = [e.path for e in nginx.configuration(server.target()) if b"PRIVATE KEY" in getattr(e, "content", b"")]
    assert keys == [files.KEY]
