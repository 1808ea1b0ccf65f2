"""How an alert gets out: published at the gateway's own broker (MQTT 5), sent to a server by HTTPS, or by e-mail.

Each is over TLS with a certificate that is verified. A message counts as delivered when the other side has said so;
whatever else happens, it is sent again, so that it may arrive twice: `number` tells.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import smtplib
import socket
import ssl
import struct
from collections.abc import Callable, Generator
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from gatehouse.errors import GatehouseError
from gatehouse.messages.mqtt import packet, text

PATIENCE = 10.0  # seconds, for each step
SIGNATURE = "X-Gatehouse-Signature"
# MQTT 5.0 §2.4: delivered, and delivered to nobody.
_TAKEN = (0x00, 0x10)
_NOT_AUTHORISED = 0x87


class Undelivered(GatehouseError):
    """A message that the other side has not taken; says why, and nothing secret."""


class Way(Protocol):
    """A way out."""

    def send(self, bodies: list[bytes]) -> Generator[None, None, None]:
        """Sends messages in turn, and yields after each that was taken. Raises `Undelivered`."""


def way(kind: str, settings: dict[str, Any]) -> Way:
    """By its settings. Raises `Undelivered`, `KeyError` or `TypeError` where they are no use."""
    kinds: dict[str, Callable[..., Way]] = {"mqtt": Mqtt, "webhook": Webhook, "email": Email}
    return kinds[kind](**settings)


def _tls(authority: str, client: str = "") -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=authority or None)
        if client:
            context.load_cert_chain(client)
    except (OSError, ssl.SSLError) as error:
        raise Undelivered(f"{authority or 'certificates'}: {error} (deploy the gateway again)") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


class Mqtt:
    """Publishes at QoS 1; the certificate in `client` says who it is."""

    def __init__(self, address: str, port: int, name: str, ca: str, client: str, topic: str) -> None:
        self._place, self._name, self._topic = (address, port), name, topic
        self._tls = _tls(ca, client)

    def send(self, bodies: list[bytes]) -> Generator[None, None, None]:
        """In one session. Raises `Undelivered`."""
        try:
            with (
                socket.create_connection(self._place, PATIENCE) as plain,
                self._tls.wrap_socket(plain, server_hostname=self._name) as session,
            ):
                # §3.1: clean start, no client identifier: the certificate has it.
                session.sendall(packet(0x10, text("MQTT") + b"\x05\x02\x00\x3c\x00" + text("")))
                self._expect(session, 0x20, "the broker refuses the session", 1)
                for number, body in enumerate(bodies, start=1):
                    head = text(self._topic) + struct.pack(">HB", number % 65535 + 1, 0)
                    session.sendall(packet(0x32, head + body))
                    self._expect(session, 0x40, f"the broker does not take what is published to {self._topic}", 2)
                    yield
                session.sendall(b"\xe0\x00")
        except OSError as error:
            raise Undelivered(f"broker at {self._place[0]} port {self._place[1]}: {error}") from None

    @staticmethod
    def _expect(session: ssl.SSLSocket, kind: int, refused: str, at: int) -> None:
        first, length = _exactly(session, 2)
        if length & 0x80:
            raise Undelivered("the broker's answer is too long")
        answer = _exactly(session, length)
        if first != kind:
            raise Undelivered(f"{refused}: it answers with packet {first:#x}")
        code = answer[at] if len(answer) > at else 0
        if code not in _TAKEN:
            raise Undelivered(f"{refused}: {'not authorised' if code == _NOT_AUTHORISED else f'reason code {code}'}")


def _exactly(session: ssl.SSLSocket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = session.recv(size - len(data))
        if not more:
            raise Undelivered("the broker ends the connection")
        data += more
    return data


class Webhook:
    """Posts to a server. The header `X-Gatehouse-Signature` is `sha256=` and the HMAC of the body, in hexadecimal."""

    def __init__(self, url: str, secret: str, trust: str = "") -> None:
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname:
            raise Undelivered(f"{url[:80]!r}: is no HTTPS address")
        self._host, self._port = parts.hostname, parts.port or 443
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._secret = _secret(secret).encode()
        self._tls = _tls(trust)

    def send(self, bodies: list[bytes]) -> Generator[None, None, None]:
        """One request each, on one connection. Nothing is followed elsewhere. Raises `Undelivered`."""
        connection = http.client.HTTPSConnection(self._host, self._port, timeout=PATIENCE, context=self._tls)
        try:
            for body in bodies:
                headers = {"Content-Type": "application/json", SIGNATURE: signature(self._secret, body)}
                connection.request("POST", self._path, body, headers)
                answer = connection.getresponse()
                answer.read(65_536)
                if not 200 <= answer.status < 300:
                    raise Undelivered(f"{self._host}: answers {answer.status}")
                yield
        except (OSError, http.client.HTTPException) as error:
            raise Undelivered(f"{self._host}: {error or type(error).__name__}") from None
        finally:
            connection.close()


class Email:
    """Submits to a mail server (RFC 6409), over TLS and after a login. One message each, to all at once.

    It counts as taken when the server takes it for one of them. `hello` is the name that it says.
    """

    def __init__(
        self, server: str, port: int, security: str, user: str, sender: str, to: list[str], password: str, hello: str,
        trust: str = "",
    ) -> None:  # fmt: skip
        self._place, self._at_once, self._hello = (server, port), security == "tls", hello
        self._user, self._sender, self._to = user, sender, to
        self._password = _secret(password)
        self._tls = _tls(trust)

    def send(self, bodies: list[bytes]) -> Generator[None, None, None]:
        """In one session. Raises `Undelivered`."""
        try:
            with self._session() as session:
                session.login(self._user, self._password)
                for body in bodies:
                    session.send_message(self._mail(json.loads(body)))
                    yield
        except (smtplib.SMTPAuthenticationError, smtplib.SMTPSenderRefused, smtplib.SMTPDataError) as error:
            raise Undelivered(f"{self._place[0]}: answers {error.smtp_code} {_line(error.smtp_error)}") from None
        except OSError as error:  # smtplib's own are such
            raise Undelivered(f"{self._place[0]} port {self._place[1]}: {_line(str(error))}") from None

    def _session(self) -> smtplib.SMTP:
        server, port = self._place
        if self._at_once:
            return smtplib.SMTP_SSL(server, port, self._hello, timeout=PATIENCE, context=self._tls)
        session = smtplib.SMTP(server, port, self._hello, timeout=PATIENCE)
        try:
            session.starttls(context=self._tls)
        except OSError:
            session.close()
            raise
        return session

    def _mail(self, message: dict[str, Any]) -> EmailMessage:
        """RFC 5322; a text for people, and the same for programs."""
        mail = EmailMessage()
        mail["From"], mail["To"] = self._sender, ", ".join(self._to)
        mail["Subject"] = _line(f"[{message['gateway']}] {message['state']}: {message['text']}")
        mail["Date"] = formatdate(message.get("at"))
        mail["Message-ID"] = make_msgid(f"{message.get('number', 0)}", self._hello)
        mail["Auto-Submitted"] = "auto-generated"
        mail.set_content(f"{message['text']}\n\n{json.dumps(message, indent=1)}\n")
        return mail


def _line(text: str | bytes) -> str:
    """One line, and not a long one."""
    said = text.decode(errors="replace") if isinstance(text, bytes) else text
    return "".join(c if c.isprintable() else " " for c in said)[:120]


def _secret(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Undelivered(f"{path}: can't be read ({error}; deploy the gateway again)") from None


def signature(secret: bytes, body: bytes) -> str:
    """What vouches for a body."""
    return f"sha256={hmac.new(secret, body, hashlib.sha256).hexdigest()}"
