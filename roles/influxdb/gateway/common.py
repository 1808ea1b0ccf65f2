"""What both engines share: the settings that a deploy wrote, requests to the database, a consumer's credential."""

from __future__ import annotations

import contextlib
import grp
import hashlib
import http.client
import json
import os
import re
import secrets
import socket
import ssl
import stat
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path("/etc/gatehouse/database")
ADMIN = "admin"
FIRST_ADMINISTRATOR = "gatehouse-admin"
PATIENCE = 60  # seconds: an engine that has much to read at its start answers late
# What names a device: its certificate's common name. Nothing else is ever put into a query.
DEVICE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
# What devices tell of their firmware, under the kind `firmware`.
FIRMWARE = ("version", "counter", "failed", "update")


class Trouble(Exception):
    """What went wrong and what to do, for the operator."""


class Answer(NamedTuple):
    """Status, header fields and body of an answer."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        """The body as JSON; an object without anything where it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return {}


@dataclass(frozen=True)
class Settings:
    """`settings.json`: `database` is the devices', `numbers` the gateway's own; durations are in seconds.

    `accounts` says which group may read a consumer's credential.

    `passwords` are those in use, `others` what is taken beside them while one is replaced: `USER:PASSWORD`, by consumer
    or `ADMIN`. Where no user is named, it is the account's first: called as the consumer is.
    """

    engine: str
    port: int
    server_name: str
    database: str
    numbers: str
    administrator: str
    password: str
    passwords: dict[str, str]
    accounts: dict[str, str]
    retention: int
    shard: int
    summaries: dict[str, Any] | None
    others: dict[str, list[str]] = field(default_factory=dict)

    def logins(self, account: str) -> list[tuple[str, str]]:
        """User and password of a consumer, or of the administrator: the one in use, then what is taken beside it."""
        first = (self.administrator, self.password) if account == ADMIN else login(account, self.passwords[account])
        return [first, *(login(account, value) for value in self.others.get(account, ()))]

    @classmethod
    def read(cls) -> Settings:
        """From the file. Raises `Trouble`."""
        try:
            return cls(**json.loads((FOLDER / "settings.json").read_text()))
        except (OSError, ValueError, TypeError) as error:
            # an error of the parser shows where, not what
            raise Trouble(f"{FOLDER}/settings.json: {type(error).__name__} (deploy the gateway again)") from None


def login(account: str, value: str) -> tuple[str, str]:
    """User and password: `USER:PASSWORD`, or a password of the account's first user."""
    user, _, password = value.rpartition(":")
    return user or {ADMIN: FIRST_ADMINISTRATOR}.get(account, account), password


class _Connection(http.client.HTTPSConnection):
    """To loopback, whatever the name in the certificate resolves to."""

    def connect(self) -> None:
        plain = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = self._context.wrap_socket(plain, server_hostname=self.host)  # type: ignore[attr-defined]


class Http:
    """Requests to the database: over TLS, or in the clear to a private instance that nobody else can reach."""

    def __init__(self, settings: Settings, private: bool = False) -> None:
        if private:
            self._connection = http.client.HTTPConnection("127.0.0.1", settings.port, timeout=PATIENCE)
        else:
            context = ssl.create_default_context(cafile=str(FOLDER / "ca.crt"))
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            self._connection = _Connection(settings.server_name, settings.port, timeout=PATIENCE, context=context)

    def __call__(self, method: str, path: str, body: bytes | str = b"", **headers: str) -> Answer:
        """One request; `content_type` becomes `Content-Type`. Raises `Trouble` when there is no answer."""
        fields = {name.replace("_", "-").title(): value for name, value in headers.items()}
        try:
            self._connection.request(method, path, body.encode() if isinstance(body, str) else body, fields)
            answer = self._connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise Trouble(f"the database does not answer: {error or type(error).__name__}") from None

    def awake(self, path: str, patience: float = PATIENCE) -> None:
        """Waits until the database answers. Raises `Trouble` with the last reason why it did not."""
        end = time.monotonic() + patience
        while True:
            try:
                if self("GET", path).status < 300:
                    return
                if time.monotonic() > end:
                    raise Trouble("the database answers, but is not ready (look at `journalctl -u influxdb`)")
            except Trouble:
                if time.monotonic() > end:
                    raise
            time.sleep(0.1)


def credential(settings: Settings, consumer: str) -> tuple[Path, tuple[int, int, int]]:
    """The file of a consumer's credential, and its owner, group and mode; root's until the account is there."""
    group = 0
    with contextlib.suppress(KeyError):
        group = grp.getgrnam(settings.accounts.get(consumer, "root")).gr_gid
    return FOLDER / f"{consumer}.credential", (0, group, 0o640 if group else 0o600)


def kept(settings: Settings, consumer: str) -> str | None:
    """A consumer's credential as it is in its file; None where that is missing, or others could read or write it."""
    path, wanted = credential(settings, consumer)
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) != wanted:
            return None
        return path.read_text().strip()
    except OSError:
        return None


def keep(settings: Settings, consumer: str, secret: str) -> None:
    """Writes a consumer's credential: never readable by others, never half of it."""
    path, (owner, group, mode) = credential(settings, consumer)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    file = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(file, f"{secret}\n".encode())
        os.fchown(file, owner, group)
        os.fchmod(file, mode)
        os.fsync(file)
        os.rename(beside, path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    finally:
        os.close(file)


def generation(value: str) -> str:
    """Tells one credential of the vault from another, and nothing about it: what is hashed is 128 random bits."""
    password = value.rpartition(":")[2]
    return hashlib.sha256(b"gatehouse generation\0" + password.encode()).hexdigest()[:8]


def device(name: str) -> str:
    """The name of a device. Raises `Trouble` for anything else."""
    if not DEVICE.fullmatch(name):
        raise Trouble(f"{name[:64]!r} is no device's name (a to z, 0 to 9 and '-')")
    return name
