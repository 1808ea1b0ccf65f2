"""What a stranger is answered on a listener of the broker: by certificate, by password, by key."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path
from typing import BinaryIO

from .layout import PATIENCE, POLL, Refused

TRIAL = "gatehouse-trial"  # a user name that nobody has
ATTEMPTS = 3  # of a connection that is reset before anything is served
# MQTT 5: CONNECT with clean start, no identifier (§3.1); PUBLISH of nothing at QoS 1 to `gatehouse` as packet 1 (§3.3).
CONNECT = bytes([0x10, 13, 0, 4, *b"MQTT", 5, 2, 0, 30, 0, 0, 0])
PUBLISH = bytes([0x32, 14, 0, 9, *b"gatehouse", 0, 1, 0])
PUBACK, NOT_AUTHORISED = 0x40, 0x87
_END = "-----END CERTIFICATE-----\n"


def prove_listener(
    place: tuple[str, int], by_certificate: bool, certificate: Path, authorities: Path, allow_older: bool
) -> None:
    """One connection that must come as far as the request for a certificate, and must fail there without one.

    Where passwords are asked for: as far as CONNECT, and fail there without a name, and with a wrong password.
    """
    where = f"{place[0]} port {place[1]}"
    served, answer = ask(place, authorities)
    if served != ssl.PEM_cert_to_DER_cert(certificate.read_text().partition("-----END CERTIFICATE-----")[0] + _END):
        raise Refused(f"{where} does not serve the certificate that is in the file")
    if by_certificate and answer:
        raise Refused(f"{where} answers a client that has no certificate")
    if not by_certificate:
        guess = ask(place, authorities, say=connect_as(TRIAL, os.urandom(16).hex()))[1]
        if lets_in(answer) or lets_in(guess) or not answer[:1] == guess[:1] == b"\x20":
            raise Refused(f"{where} does not turn away who has no password")
    if not allow_older:
        try:
            ask(place, authorities, newest=ssl.TLSVersion.TLSv1_2)
        except (ssl.SSLError, Refused):
            return
        raise Refused(f"{where} speaks TLS 1.2")


def prove_keyed(place: tuple[str, int], keys: Path, allow_older: bool) -> None:
    """A client must be turned away, and told so, with no key, with one that nobody has, and with another's name."""
    where = f"{place[0]} port {place[1]}"
    name = keys.read_text().partition(":")[0]
    random = os.urandom(32).hex()
    for who, what in ((name, "a wrong key"), ("gatehouse-nobody", "a name that nobody has"), ("", "no key")):
        answer, said = ask_with_key(place, who, random)
        if answer:
            raise Refused(f"{where} answers a client with {what}")
        if "alert" not in said:
            raise Refused(f"{where} does not say no to a client with {what}: {said.strip()[-100:] or 'silence'}")
    if not allow_older and "protocol version" not in ask_with_key(place, name, random, "-tls1_2")[1]:
        raise Refused(f"{where} speaks TLS 1.2")


def ask(
    place: tuple[str, int],
    authorities: Path,
    newest: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED,
    say: bytes = CONNECT,
) -> tuple[bytes, bytes]:
    """The certificate that is served (DER), and what is answered to a CONNECT without one of the client's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(authorities)
    context.check_hostname = False  # The address is known; it is the certificate itself that is compared.
    context.maximum_version = newest
    for left in reversed(range(ATTEMPTS)):
        try:
            with socket.create_connection(place, PATIENCE) as plain, context.wrap_socket(plain) as connection:
                served = connection.getpeercert(binary_form=True) or b""
                try:
                    connection.sendall(say)
                    return served, connection.recv(4)
                except (ssl.SSLError, ConnectionError):
                    return served, b""
        except ssl.SSLError:
            raise
        except OSError as error:
            # Before anything was served, a busy broker's reset is no answer.
            if not (left and isinstance(error, ConnectionResetError)):
                raise Refused(f"{place[0]} port {place[1]}: {error}") from None
        time.sleep(POLL)
    raise AssertionError("the last attempt returns or raises")


def ask_with_key(place: tuple[str, int], name: str, key: str, *options: str) -> tuple[bytes, str]:
    """What is answered to a CONNECT of a client with a name and a key, or with neither; and what openssl says of it.

    Python's own TLS can show no keys, and an argument is no secret: only keys of nobody's come here, and the trial's.
    """
    host = f"[{place[0]}]" if ":" in place[0] else place[0]
    shown = ["-psk_identity", name, "-psk", key] if name else []
    command = ["openssl", "s_client", "-quiet", "-connect", f"{host}:{place[1]}", *shown, *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as client:
        assert client.stdin and client.stdout and client.stderr  # noqa: S101  pipes
        stop = threading.Timer(PATIENCE, client.kill)
        stop.start()
        # Past the buffer: what is left there when openssl has ended already would raise once more at the end.
        with contextlib.suppress(BrokenPipeError):
            os.write(client.stdin.fileno(), CONNECT)
        answer = client.stdout.read(4)
        client.kill()
        stop.cancel()
        return answer, client.stderr.read().decode(errors="replace").lower()


def is_closed(place: tuple[str, int], trial: str) -> None:
    """A client without rights must not be allowed to publish: with a lost ACL everybody may do everything."""
    with socket.create_connection(place, PATIENCE) as connection:
        answers = connection.makefile("rb")
        connection.sendall(connect_as(TRIAL, trial))
        _packet(answers)
        connection.sendall(PUBLISH)
        kind, body = _packet(answers)
    if kind != PUBACK or body[2:3] != bytes([NOT_AUTHORISED]):
        raise Refused("the ACL is not in force: a client without rights may publish")


def connect_as(name: str, password: str) -> bytes:
    """CONNECT with a user name and a password (MQTT 5 §3.1.3)."""
    fields = b"".join(len(part).to_bytes(2, "big") + part for part in (name.encode(), password.encode()))
    body = bytes([0, 4, *b"MQTT", 5, 0xC2, 0, 30, 0, 0, 0]) + fields
    return bytes([0x10, len(body)]) + body


def lets_in(answer: bytes) -> bool:
    """Whether this is a CONNACK with reason code 0."""
    return answer[:1] == b"\x20" and answer[3:4] == b"\0"


def _packet(answers: BinaryIO) -> tuple[int, bytes]:
    """Type with flags, and body, of the next packet, none longer than 127 bytes; (0, b"") when there is none."""
    head = answers.read(2)
    return (head[0], answers.read(head[1])) if len(head) == 2 else (0, b"")
