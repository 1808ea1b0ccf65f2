"""CoAP over DTLS probes: what an endpoint answers before it knows a client, whom it lets in, and what it says to posts.

The first is put together by hand and works anywhere. The others need Debian's pyOpenSSL, which is on a gateway that has
the endpoint.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
import struct
import time
from typing import Any

from gatehouse.proof.probes.reach import (
    DEFAULT_TIMEOUT,
    Probe,
    Result,
    exchange,
    family_of,
    outcome_of,
    patience,
    patient,
)

VERSIONS = {"1.0": 0xFEFF, "1.2": 0xFEFD}
ACK_TIMEOUT = 3.0  # seconds until a request is sent again (RFC 7252 §4.8)
_RECORD = 13
_URI_PATH = 11


def hello(probe: Probe) -> Result:
    """Sends a ClientHello without a cookie (RFC 6347 §4.2.1); `asks_for_cookie` where that is all that comes back."""
    message = client_hello()
    answer, result = exchange(probe["address"], probe["port"], message, patience(probe))
    if answer is None:
        return result
    verify = answer[:1] == b"\x16" and answer[_RECORD : _RECORD + 1] == b"\x03"
    length = _RECORD + int.from_bytes(answer[11:13], "big")
    asks = verify and length == len(answer)
    return {**result, "asks_for_cookie": asks, "sent_bytes": len(message), "got_bytes": len(answer)}


def client_hello() -> bytes:
    """DTLS 1.2, with the suites and curves that are common today, in one record."""

    def extension(number: int, content: bytes) -> bytes:
        return struct.pack(">HH", number, len(content)) + content

    suites = struct.pack(">4H", 0xC02C, 0xC02B, 0xCCA9, 0x00FF)
    extensions = extension(10, struct.pack(">3H", 4, 23, 29)) + extension(11, b"\x01\x00")
    extensions += extension(13, struct.pack(">3H", 4, 0x0403, 0x0804))
    body = struct.pack(">H", VERSIONS["1.2"]) + os.urandom(32) + b"\0\0"  # neither session nor cookie
    body += struct.pack(">H", len(suites)) + suites + b"\x01\0" + struct.pack(">H", len(extensions)) + extensions
    size = len(body).to_bytes(3, "big")
    handshake = b"\x01" + size + b"\0\0" + b"\0\0\0" + size + body
    return b"\x16" + struct.pack(">H", VERSIONS["1.0"]) + bytes(8) + struct.pack(">H", len(handshake)) + handshake


class Refused(Exception):
    """A handshake that did not come to its end: as `result` says."""

    def __init__(self, **result: Any) -> None:
        super().__init__(result["outcome"])
        self.result: Result = result


class Device:
    """A client's DTLS session. `probe` is as `tls.client` takes it; `server_name` must be in the server's certificate.

    Raises `Refused`, OSError; ImportError where there is no pyOpenSSL.
    """

    def __init__(self, probe: Probe) -> None:
        self._ssl: Any = importlib.import_module("OpenSSL.SSL")
        self._crypto: Any = importlib.import_module("OpenSSL.crypto")
        self._timeout = patience(probe, 2 * DEFAULT_TIMEOUT)
        self._number = int.from_bytes(os.urandom(2), "big")
        self._connection = self._ssl.Connection(self._context(probe), None)
        # A hello in one piece, however many suites it names: one in pieces no server can answer without a memory.
        self._connection.set_ciphertext_mtu(1400)
        self._connection.set_connect_state()
        self._wire = socket.socket(family_of(probe["address"]), socket.SOCK_DGRAM)
        if "source_port" in probe:
            self._wire.bind(("", probe["source_port"]))
        self._wire.connect((probe["address"], probe["port"]))
        try:
            self._do(self._connection.do_handshake, time.monotonic() + self._timeout)
            self._check_name(probe.get("server_name"))
        except BaseException:
            self._wire.close()
            raise

    def _context(self, probe: Probe) -> Any:
        ssl, crypto = self._ssl, self._crypto
        context = ssl.Context(ssl.DTLS_CLIENT_METHOD)
        context.set_min_proto_version(VERSIONS[probe.get("minimum", "1.2")])
        context.set_max_proto_version(VERSIONS[probe.get("maximum", "1.2")])
        context.set_options(ssl.OP_NO_QUERY_MTU)
        if probe.get("ciphers"):
            context.set_cipher_list(probe["ciphers"].encode())
        if probe.get("ca"):
            context.get_cert_store().add_cert(crypto.load_certificate(crypto.FILETYPE_PEM, probe["ca"].encode()))
            context.set_verify(ssl.VERIFY_PEER)
        if probe.get("chain"):
            context.use_certificate(crypto.load_certificate(crypto.FILETYPE_PEM, probe["chain"].encode()))
            context.use_privatekey(crypto.load_privatekey(crypto.FILETYPE_PEM, probe["key"].encode()))
        return context

    def _check_name(self, wanted: str | None) -> None:
        if wanted and wanted not in self.names:
            raise Refused(outcome="distrusted", reason=f"it is {', '.join(self.names)}")

    @property
    def names(self) -> list[str]:
        """The names in the server's certificate."""
        kind = importlib.import_module("cryptography.x509").SubjectAlternativeName
        found = self._connection.get_peer_certificate().to_cryptography().extensions.get_extension_for_class(kind)
        return [str(each.value) for each in found.value]

    @property
    def agreed(self) -> Result:
        """Version, suite and the server's certificate."""
        return {
            "version": self._connection.get_protocol_version_name().removeprefix("DTLSv"),
            "cipher": self._connection.get_cipher_name(),
            "fingerprint": self.fingerprint,
        }

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the server's certificate (DER), in lower-case hex."""
        return _fingerprint(self._connection.get_peer_certificate())

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Asks, and asks again when no answer comes; the `code` of the answer, its `kind`, `number` and `data` (hex).

        `request` has `path`, and where they are not as usual `method` (2, POST), `payload` (hex), `options` (number and
        hex, beside the path), `confirmable`, `number` (of the message). Without an answer `code` is empty.
        """
        self._number = (self._number + 1) & 0xFFFF
        number, token = request.get("number", self._number), os.urandom(4)
        kind = 0 if request.get("confirmable", True) else 1
        message = struct.pack(">BBH", 0x40 | kind << 4 | len(token), request.get("method", 2), number) + token
        options = [(_URI_PATH, part.encode()) for part in request["path"].split("/") if part]
        options += [(option, bytes.fromhex(value)) for option, value in request.get("options", ())]
        message += (
            _options(options) + b"\xff" * bool(request.get("payload")) + bytes.fromhex(request.get("payload", ""))
        )
        began = time.monotonic()
        try:
            for _ in range(3):
                self.say(message)
                answer = self._answer(token, time.monotonic() + patient(ACK_TIMEOUT))
                if answer is not None:
                    return {**answer, "ms": round(1000 * (time.monotonic() - began))}
        except Refused as error:
            return {"code": "", **error.result}
        return {"code": "", "outcome": "silent"}

    def _answer(self, token: bytes, until: float) -> dict[str, Any] | None:
        while (data := self.hear(until)) is not None:
            if len(data) >= 4 and data[4 : 4 + (data[0] & 15)] == token:
                code = f"{data[1] >> 5}.{data[1] & 31:02d}"
                return {"code": code, "kind": data[0] >> 4 & 3, "number": data[2] << 8 | data[3], "data": data.hex()}
        return None

    def say(self, message: bytes) -> None:
        """Sends a datagram's content."""
        try:
            self._connection.send(message)
        except self._ssl.Error as error:
            raise self._ended(error) from None
        self._flush()

    def hear(self, until: float) -> bytes | None:
        """What comes next, until then; None for nothing. Raises `Refused` where the session is over."""
        try:
            found: bytes = self._do(lambda: self._connection.recv(65_535), until)
        except Refused as error:
            if error.result["outcome"] == "silent":
                return None
            raise
        return found

    def close(self, goodbye: bool = True) -> None:
        """Ends it; the server is told, or is not."""
        if goodbye:
            with contextlib.suppress(self._ssl.Error):
                self._connection.shutdown()
            self._flush()
        self._wire.close()

    def _do(self, step: Any, until: float) -> Any:
        while True:
            try:
                done = step()
                self._flush()
                return done
            except self._ssl.WantReadError:
                self._flush()
            except self._ssl.Error as error:
                self._flush()
                raise self._ended(error) from None
            left = until - time.monotonic()
            if left <= 0:
                raise Refused(outcome="silent")
            self._wire.settimeout(min(left, 0.5))
            try:
                self._connection.bio_write(self._wire.recv(65_535))
            except TimeoutError:
                continue  # the next step sends again what seems to be lost

    def _ended(self, error: Exception) -> Refused:
        if isinstance(error, self._ssl.ZeroReturnError):
            return Refused(outcome="cut", reason="goodbye")
        given = error.args[0] if error.args else ""
        text = (str(given[-1][-1]) if isinstance(given, list) and given else str(given)).lower().replace("_", " ")
        outcome = "alert" if "alert" in text else "distrusted" if "verify failed" in text else "failed"
        shown = self._connection.get_peer_certificate()
        return Refused(outcome=outcome, reason=text, **({"fingerprint": _fingerprint(shown)} if shown else {}))

    def _flush(self) -> None:
        """A record a datagram: memory knows none."""
        written = b""
        while True:
            try:
                written += self._connection.bio_read(65_535)
            except self._ssl.Error:
                break
        while written:
            end = _RECORD + int.from_bytes(written[11:13], "big")
            self._wire.send(written[:end])
            written = written[end:]


def _fingerprint(certificate: Any) -> str:
    found: str = certificate.digest("sha256").decode().replace(":", "").lower()
    return found


def certificate(probe: Probe) -> Result:
    """Which certificate a server shows to who has none, and is not let in: `agreed`, with its `fingerprint`."""
    try:
        device = Device(probe)
    except Refused as error:
        shown = error.result.get("fingerprint")
        return {"outcome": "agreed", "fingerprint": shown} if shown else error.result
    except OSError as error:
        return outcome_of(error)
    device.close(goodbye=True)
    return {"outcome": "agreed", "fingerprint": device.fingerprint}


def _options(options: list[tuple[int, bytes]]) -> bytes:
    found, before = b"", 0
    for number, value in sorted(options, key=lambda entry: entry[0]):
        (delta, more), (size, longer) = _four_bits(number - before), _four_bits(len(value))
        found += bytes([delta << 4 | size]) + more + longer + value
        before = number
    return found


def _four_bits(value: int) -> tuple[int, bytes]:
    if value < 13:
        return value, b""
    return (13, bytes([value - 13])) if value < 269 else (14, (value - 269).to_bytes(2, "big"))


def coap(probe: Probe) -> Result:
    """Shakes hands, makes the `requests` one after the other (see `Device.ask`), and hangs up; `answers` to each."""
    try:
        device = Device(probe)
    except ImportError:
        return {"outcome": "incapable", "reason": "no pyOpenSSL at this position"}
    except Refused as error:
        return error.result
    except OSError as error:
        return outcome_of(error)
    except Exception as error:  # OpenSSL's own, of a context that can't be made: its class is known only here
        return {"outcome": "incapable", "reason": str(error)}
    try:
        answers = [device.ask(request) for request in probe.get("requests", ())]
        return {"outcome": "agreed", **device.agreed, "names": device.names, "answers": answers}
    except OSError as error:
        return outcome_of(error)
    finally:
        device.close()
