"""The update server as the role renders it, run by nginx itself on loopback, and who asks it."""

from __future__ import annotations

import contextlib
import http.client
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gatehouse.identity import Credential, Pki
from gatehouse.site import Device
from roles.nginx import files as nginx
from roles.rendering import Directory
from roles.target import Target
from roles.updates import files

ADDRESS, PORT, NAME = "127.0.84.1", 18444, "updates.test.internal"


@dataclass
class Server:
    """A running update server, and the devices that it may know."""

    make: Callable[..., Target]
    folder: Path
    pki: Pki
    credentials: Mapping[str, Credential]
    models: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None

    def target(self, **status: str) -> Target:
        devices = [
            Device(
                name=name, model=model, gateway="gw", status=status.get(name, "active"),
                serials=(f"{self.credentials[name].serial:x}",),
            )
            for name, model in self.models.items()
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
                path.write_bytes(text.replace(nginx.FOLDER.encode(), str(self.folder).encode()))

    def bring(self, target: Target) -> None:
        """As `invoke revoke` does: the list alone, and a reload."""
        (self.folder / "updates/models.map").write_bytes(files.models(target).content)
        assert self.process
        self.process.send_signal(signal.SIGHUP)

    @property
    def served(self) -> Path:
        """Where what it serves lies."""
        return self.folder / "served"

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


@contextlib.contextmanager
def serving(
    make: Callable[..., Target],
    folder: Path,
    pki: Pki,
    credentials: Mapping[str, Credential],
    models: Mapping[str, str],
    files_of: Mapping[str, bytes],
) -> Iterator[Server]:
    """nginx with the role's configuration. `models` says which devices it knows, `files_of` what it serves."""
    found = Server(make, folder, pki, credentials, models)
    folder.chmod(0o755)
    for path, content in files_of.items():
        (found.served / path).parent.mkdir(parents=True, exist_ok=True)
        (found.served / path).write_bytes(content)
    found.write(found.target())
    configuration = f"""
        error_log stderr warn; pid {folder}/nginx.pid; daemon off; user root;
        events {{ }}
        http {{
            limit_conn_zone $binary_remote_addr zone=addresses:1m; access_log off;
            map_hash_max_size 65536; map_hash_bucket_size 256;
            include updates/updates.conf;
        }}
    """
    (folder / "nginx.conf").write_text(configuration)
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    with subprocess.Popen([program, "-e", "stderr", "-c", f"{folder}/nginx.conf"]) as process:
        found.process = process
        who, model = next(iter(models.items()))
        try:
            assert found.becomes(who, f"/{model}/manifest", 200)
            yield found
        finally:
            process.terminate()
            process.wait(20)
