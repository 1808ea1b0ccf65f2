"""The device API: answers `GET /api/devices` to who shows a token of the site, and nothing to anybody else.

It runs on the gateway, on loopback behind the HTTPS front, on Debian's Python. It reads two files, and writes none.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from gatehouse.api.tokens import TokenRefused, of_request

PATH = "/api/devices"
AT_ONCE = 16  # requests
PATIENCE = 10.0  # seconds for a request to arrive


@dataclass(frozen=True)
class Settings:
    """Whose tokens count (`site`, `gateway`, public `keys` in PEM by identifier), where to listen, what to tell.

    `devices` is a file with JSON, read at each request.
    """

    site: str
    gateway: str
    keys: Mapping[str, str]
    address: str
    port: int
    devices: Path

    @classmethod
    def read(cls, folder: Path) -> Settings:
        """From `settings.json`; `devices.json` lies beside it. Raises OSError and ValueError."""
        content = json.loads((folder / "settings.json").read_text())
        return cls(**content, devices=folder / "devices.json")

    def told(self) -> bytes:
        """The list of devices as it is now. Raises OSError and ValueError."""
        return json.dumps(json.loads(self.devices.read_text())).encode()


class Server(ThreadingHTTPServer):
    """Listens as its settings say; a request too many waits for its turn."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.turns = threading.BoundedSemaphore(AT_ONCE)
        super().__init__((settings.address, settings.port), Handler)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answers one request."""
        with self.turns:
            super().process_request_thread(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server
    timeout = PATIENCE
    server_version, sys_version = "gatehouse", ""

    def do_GET(self) -> None:
        """The list of devices, or why not."""
        if self.path != PATH:
            self._answer(404, {"error": f"there is {PATH} and nothing else"})
            return
        settings = self.server.settings
        try:
            shown = self.headers.get("Authorization")
            who = of_request(shown, settings.keys, settings.site, settings.gateway).subject
        except TokenRefused as error:
            self._answer(401, {"error": str(error)}, who=str(error))
            return
        try:
            devices = settings.told()
        except (OSError, ValueError) as error:
            self._answer(503, {"error": "the list of devices can't be read"}, who=f"{type(error).__name__}")
            return
        self._send(200, devices, who)

    do_HEAD = do_GET

    def _no(self) -> None:
        self._answer(405, {"error": "it can be read, and nothing else"})

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_TRACE = do_CONNECT = _no

    def _answer(self, status: int, content: Mapping[str, str], who: str = "-") -> None:
        self._send(status, json.dumps(content).encode(), who)

    def _send(self, status: int, body: bytes, who: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        if status == 401:
            self.send_header("WWW-Authenticate", 'Bearer realm="gatehouse"')
        if status == 405:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        print(f"{self.command} {status} {who!r} {self.headers.get('X-Real-IP', '-')!r}", file=sys.stderr, flush=True)

    def log_message(self, *_: Any) -> None:
        """Nothing: paths and headers are a stranger's words."""


def main(folder: str) -> None:
    """Serves until it is told to end."""
    try:
        settings = Settings.read(Path(folder))
    except (OSError, ValueError, TypeError, KeyError) as error:
        sys.exit(f"device API: {folder}: {error} (deploy again)")
    Server(settings).serve_forever()
