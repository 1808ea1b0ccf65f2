"""A ClientHello made by hand, against servers on loopback: what it is told, and what it makes of what is no TLS."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import struct
import threading

import pytest
from cryptography.x509 import load_der_x509_certificate

from gatehouse.identity import Pki, SecretStore
from gatehouse.proof import suites
from gatehouse.proof.probes import hello


@pytest.fixture(scope="module")
def context():
    server = Pki(SecretStore(), "home", "home.arpa").ensure().server("broker")
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    handle = os.memfd_create("credential")
    try:
        os.write(handle, server.private_key_pem + server.chain_pem)
        made.load_cert_chain(f"/proc/self/fd/{handle}")
    finally:
        os.close(handle)
    return made


@contextlib.contextmanager
def serving(handle):
    """A server on a free port of loopback, for one connection after the other."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def work():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with contextlib.suppress(OSError), connection:
                        handle(connection)

        threading.Thread(target=work, daemon=True).start()
        yield listener.getsockname()[1]
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)


def asked(port, offer=suites.SOUND, groups=suites.GROUPS):
    found = {"address": "127.0.0.1", "port": port, "server_name": "broker.home.arpa", "timeout": 3}
    return hello.hello({**found, "suites": list(offer), "groups": list(groups)})


def speaks(context, **changes):
    for name, value in changes.items():
        setattr(context, name, value)
    return serving(lambda connection: context.wrap_socket(connection, server_side=True))


def test_a_server_agrees_to_a_sound_offer_and_says_to_what(context):
    with speaks(context) as port:
        found = asked(port)
        assert found["outcome"] == "agreed" and found["suite"] in suites.ECDSA_GCM, found
        assert {suites.RENEGOTIATION_INFO, suites.EXTENDED_MASTER_SECRET} <= set(found["extensions"])
        leaf = load_der_x509_certificate(bytes.fromhex(found["certificates"][0]))
        assert "broker" in leaf.subject.rfc4514_string()
        assert asked(port, groups=[suites.X25519, suites.P256])["group"] == suites.X25519
        assert asked(port, groups=[suites.P256])["group"] == suites.P256


@pytest.mark.parametrize("offer", [*suites.WEAK.values(), *suites.STATIC.values(), suites.RSA_GCM])
def test_what_a_server_does_not_speak_it_refuses_with_an_alert(context, offer):
    with speaks(context) as port:
        assert asked(port, offer)["outcome"] == "alert"


def test_curves_that_are_too_small_are_passed_over(context):
    with speaks(context) as port:
        assert asked(port, groups=suites.SMALL_GROUPS)["outcome"] == "alert"
        assert asked(port, groups=[*suites.SMALL_GROUPS, suites.P256])["group"] == suites.P256


def test_a_server_that_has_left_tls_1_2_behind_says_so(context):
    with speaks(context, minimum_version=ssl.TLSVersion.TLSv1_3) as port:
        assert asked(port) == {"outcome": "alert", "alert": suites.PROTOCOL_VERSION}


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        (b"", "cut"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "cut"),
        (b"SSH-2.0-OpenSSH\r\n" + b"x" * 70_000, "failed"),
        (struct.pack(">BHH", 22, 0x0303, 6) + b"\x02\x00\x00\x02\x03\x03", "failed"),
        (struct.pack(">BHH", 21, 0x0303, 1) + b"\x02", "failed"),
    ],
)
def test_what_is_no_tls_is_told_as_such(said, outcome):
    def answer(connection):
        connection.recv(4096)
        connection.sendall(said)

    with serving(answer) as port:
        assert asked(port)["outcome"] == outcome


def test_whoever_says_nothing_is_not_waited_for():
    with serving(lambda connection: connection.recv(100_000) and connection.recv(1)) as port:
        probe = {"address": "127.0.0.1", "port": port, "suites": [1], "groups": [1], "timeout": 0.2}
        assert hello.hello(probe)["outcome"] == "silent"
