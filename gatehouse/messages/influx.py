"""Writes to InfluxDB over HTTPS: 1.x (`/write`, a user's password) and 2.x (`/api/v2/write`, a token).

InfluxDB 1.8 HTTP API; InfluxDB OSS 2 API v2. Both take the line protocol and answer 204.
"""

from __future__ import annotations

import base64
import http.client
import json
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Literal
from urllib.parse import quote, urlencode, urlsplit

from gatehouse.messages.refusal import MessageError

Engine = Literal["influxdb1", "influxdb2"]
# InfluxDB 1.6 blames the client (400, "partial write") for new series that its disk has no room for.
DISK_TROUBLE = (b"no space left on device", b"disk quota exceeded", b"read-only file system", b"input/output error")
PATIENCE = 30.0  # seconds for an answer


class Unavailable(MessageError):
    """The database can't take anything now: the same may succeed later."""


class Rejected(MessageError):
    """The database will not take this, now or later."""


class _Connection(http.client.HTTPSConnection):
    """Goes to a given address, and expects the certificate of the name in the URL."""

    def __init__(self, host: str, port: int, at: str, tls: ssl.SSLContext) -> None:
        super().__init__(host, port, timeout=PATIENCE, context=tls)
        self._at, self._tls = at, tls

    def connect(self) -> None:
        plain = socket.create_connection((self._at, self.port), PATIENCE)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = self._tls.wrap_socket(plain, server_hostname=self.host)


class Database:
    """One database (1.x) or bucket (2.x), on one connection that is made again when it is gone.

    `url` is `https://NAME:PORT`, `address` where that is if not what the name resolves to, `ca` a PEM file.
    `credential` is a file with the token, the password, or `USER:PASSWORD`, read again whenever it has changed.
    """

    def __init__(
        self,
        engine: Engine,
        url: str,
        ca: Path,
        credential: Path,
        *,
        address: str = "",
        database: str = "",
        user: str = "",
        org: str = "",
        bucket: str = "",
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname or parts.path not in ("", "/"):
            raise MessageError(f"{url!r}: is no address of a database (use https://NAME:PORT)")
        try:
            tls = ssl.create_default_context(cafile=str(ca))
        except (OSError, ssl.SSLError) as error:
            raise MessageError(f"{ca}: no certificates ({error})") from None
        tls.minimum_version = ssl.TLSVersion.TLSv1_2
        host = parts.hostname
        self._http = _Connection(host, parts.port or 8086, address or host, tls)
        self._engine, self._credential, self._user = engine, credential, user
        if engine == "influxdb1":
            self._path = "/write?" + urlencode({"db": database, "precision": "ns"})
        else:
            self._path = "/api/v2/write?" + urlencode(
                {"org": org, "bucket": bucket, "precision": "ns"}, quote_via=quote
            )
        self._headers: dict[str, str] = {}
        self._shown: tuple[int, ...] = ()

    def write(self, lines: Sequence[str]) -> None:
        """Writes points. Raises `Unavailable` or `Rejected`: of what it rejects it may have taken a part."""
        body = "\n".join(lines).encode()
        kept = self._http.sock is not None
        try:
            status, said = self._post(body)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            # A connection that was idle may have been closed by the other side meanwhile.
            if kept and not isinstance(error, TimeoutError):
                return self.write(lines)
            raise Unavailable(f"database: {error or type(error).__name__}") from None
        if status == 204:
            return
        why = f"database: {status} {_message(said)}"
        if status in (400, 413, 422) and not any(trouble in said for trouble in DISK_TROUBLE):
            raise Rejected(why)
        # Another credential may be in the file by now.
        self.close()
        raise Unavailable(why)

    def _post(self, body: bytes) -> tuple[int, bytes]:
        changed = self._state_of_credential()
        if self._http.sock is None or changed != self._shown:
            self._headers, self._shown = self._authorization(), changed
        self._http.request("POST", self._path, body, self._headers)
        answer = self._http.getresponse()
        return answer.status, answer.read(10_000)

    def _state_of_credential(self) -> tuple[int, ...]:
        """Another file, or the same one written anew; the one before where there is none now."""
        try:
            found = self._credential.stat()
        except OSError:
            return self._shown
        return found.st_ino, found.st_mtime_ns, found.st_size

    def close(self) -> None:
        """Ends the connection; the next write makes another."""
        self._http.close()

    def _authorization(self) -> dict[str, str]:
        try:
            secret = self._credential.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Unavailable(f"{self._credential}: can't be read ({error})") from None
        if self._engine == "influxdb2":
            return {"Authorization": f"Token {secret}", "Content-Type": "text/plain; charset=utf-8"}
        login = secret if ":" in secret else f"{self._user}:{secret}"
        both = base64.b64encode(login.encode()).decode()
        return {"Authorization": f"Basic {both}", "Content-Type": "text/plain; charset=utf-8"}


def _message(said: bytes) -> str:
    """What the database says is wrong, without what it was sent."""
    try:
        found = json.loads(said)
        text = str(found.get("error") or found.get("message") or "")
    except (ValueError, AttributeError, RecursionError):
        text = said.decode("utf-8", "replace")
    return "".join(c if c.isprintable() else " " for c in text)[:120]
