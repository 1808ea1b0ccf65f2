"""TLS probes: with which version, suite and certificate a server answers, and what it says to those it refuses."""

from __future__ import annotations

import hashlib
import os
import socket
import ssl
import warnings
from typing import Any

from gatehouse.proof.probes.reach import DEFAULT_TIMEOUT, Probe, Result, family_of, outcome_of, patience, patient

VERSIONS = {
    "1.0": ssl.TLSVersion.TLSv1,
    "1.1": ssl.TLSVersion.TLSv1_1,
    "1.2": ssl.TLSVersion.TLSv1_2,
    "1.3": ssl.TLSVersion.TLSv1_3,
}
_NAMES = {"TLSv1": "1.0", "TLSv1.1": "1.1", "TLSv1.2": "1.2", "TLSv1.3": "1.3"}


def client(probe: Probe) -> ssl.SSLContext:
    """A client's context. `probe` has `ca` (PEM; without it the server is not verified), `chain` and `key` (PEM,
    the client's own), `minimum` and `maximum` ("1.2"), `ciphers` (OpenSSL's words; only up to TLS 1.2)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if probe.get("ca"):
        context.load_verify_locations(cadata=probe["ca"])
        context.check_hostname = bool(probe.get("server_name"))
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = VERSIONS[probe.get("minimum", "1.2")]
        context.maximum_version = (
            VERSIONS[probe["maximum"]] if probe.get("maximum") else ssl.TLSVersion.MAXIMUM_SUPPORTED
        )
    if probe.get("ciphers"):
        context.set_ciphers(probe["ciphers"])
    elif probe.get("maximum") in ("1.0", "1.1"):
        # OpenSSL 3 has the hashes of these versions at level 0 only.
        context.set_ciphers("ALL:@SECLEVEL=0")
    if probe.get("chain"):
        _load(context, probe["chain"], probe["key"])
    return context


def _load(context: ssl.SSLContext, chain: str, key: str) -> None:
    """OpenSSL reads a private key from a file only: this one exists in memory, for this process."""
    handle = os.memfd_create("credential")
    try:
        os.write(handle, (key + chain).encode())
        context.load_cert_chain(f"/proc/self/fd/{handle}")
    finally:
        os.close(handle)


def described(error: ssl.SSLError) -> str:
    """`alert certificate revoked`, `certificate verify failed`: what OpenSSL says, without its file and line."""
    text = (error.reason or str(error)).lower().replace("_", " ")
    for version in ("sslv3 ", "tlsv1 ", "tlsv13 "):
        text = text.replace(f"{version}alert", "alert")
    return text


def session(connection: ssl.SSLSocket) -> Result:
    """What was agreed on, and whom the server said it is."""
    cipher = connection.cipher() or ("", "", 0)
    certificate = connection.getpeercert(binary_form=True) or b""
    result: Result = {
        "version": _NAMES.get(connection.version() or "", connection.version()),
        "cipher": cipher[0],
        "bits": cipher[2],
        "fingerprint": hashlib.sha256(certificate).hexdigest(),
    }
    parsed: Any = connection.getpeercert()
    if parsed:
        result["names"] = [value for _, value in parsed.get("subjectAltName", ())]
    return result


def has_ticket(connection: ssl.SSLSocket) -> bool:
    """Whether the server gave a ticket for the next session.

    With TLS 1.3 it comes after the handshake (RFC 8446 §4.6.1): to be asked once something was read.
    """
    return connection.session is not None and connection.session.has_ticket


def open_session(probe: Probe) -> tuple[ssl.SSLSocket | None, Result]:
    """Connects and shakes hands: `(connection, outcome "agreed")`, or None and `refused`, `alert`, `cut`, ….

    A TLS 1.3 server judges a client's certificate after the client is through with the handshake: read on to be sure.
    """
    timeout = patience(probe, 2 * DEFAULT_TIMEOUT)
    plain = socket.socket(family_of(probe["address"]), socket.SOCK_STREAM)
    plain.settimeout(timeout)
    try:
        plain.connect((probe["address"], probe["port"]))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        plain.close()
        return None, outcome_of(error)
    try:
        connection = client(probe).wrap_socket(plain, server_hostname=probe.get("server_name"))
    except OSError as error:
        plain.close()
        return None, failed(error)
    return connection, {"outcome": "agreed", "source": connection.getsockname()[0], **session(connection)}


def failed(error: OSError) -> Result:
    """How a TLS connection ended: with the server's `alert`, by this side's refusal (`distrusted`), or simply `cut`."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return {"outcome": "distrusted", "reason": error.verify_message}
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError | ConnectionError):
        return {"outcome": "cut"}
    if isinstance(error, ssl.SSLError):
        text = described(error)
        return {"outcome": "alert" if "alert" in text else "failed", "reason": text}
    return outcome_of(error)


def tls(probe: Probe) -> Result:
    """Shakes hands with `address`:`port` and hangs up; `certificate` is the server's, PEM; `ticket` up to TLS 1.2."""
    try:
        connection, result = open_session(probe)
    except (ssl.SSLError, ValueError) as error:
        return {"outcome": "incapable", "reason": str(error)}
    if connection is not None:
        if result["version"] != "1.3":
            result["ticket"] = has_ticket(connection)
        result["certificate"] = ssl.DER_cert_to_PEM_cert(connection.getpeercert(binary_form=True) or b"")
        connection.close()
    return result


def capable(probe: Probe) -> Result:
    """Whether this position's OpenSSL can speak version `maximum` at all: with itself, over loopback.

    Otherwise a refused handshake would say nothing about the server. `chain` and `key` are those of the server here.
    """
    import threading

    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        server.minimum_version = server.maximum_version = VERSIONS[probe["maximum"]]
    server.set_ciphers("ALL:@SECLEVEL=0")
    server.set_ecdh_curve("prime256v1")
    _load(server, probe["chain"], probe["key"])
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            server.wrap_socket(theirs, server_side=True).close()
        except OSError:
            theirs.close()

    ours.settimeout(patient(5))
    theirs.settimeout(patient(5))
    answering = threading.Thread(target=serve, daemon=True)
    answering.start()
    try:
        asked: Probe = {key: probe[key] for key in ("minimum", "maximum", "ciphers") if key in probe}
        with client(asked).wrap_socket(ours) as connection:
            return {"outcome": "agreed", "version": _NAMES.get(connection.version() or "")}
    except (OSError, ValueError) as error:
        return {"outcome": "incapable", "reason": str(error)}
    finally:
        answering.join(patient(5))
