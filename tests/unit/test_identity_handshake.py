"""Real TLS over loopback: a server that asks for a device's certificate and has the CRL, and clients of every sort."""

from __future__ import annotations

import datetime
import queue
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gatehouse.identity.pki import Credential, Pki
from gatehouse.identity.store import SecretStore

DAY = datetime.timedelta(days=1)


@pytest.fixture
def pki() -> Pki:
    return Pki(SecretStore(), "home", "home.arpa", ["127.0.0.0/8"]).ensure()


def load(context: ssl.SSLContext, credential: Credential, folder: Path) -> None:
    file = folder / f"{credential.serial:x}.pem"
    file.write_bytes(credential.chain_pem + credential.private_key_pem)
    context.load_cert_chain(file)


class Broker:
    """A TLS server as strict as OpenSSL can be; it answers each client with the common name that it saw."""

    def __init__(self, pki: Pki, folder: Path) -> None:
        self._folder, self._pki = folder, pki
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_CRL_CHECK_LEAF
        load(self._context, pki.server("broker", addresses=["127.0.0.1"]), folder)
        self._context.load_verify_locations(cadata=pki.trust_chain_for_devices().decode())
        crl = folder / "crl.pem"
        crl.write_bytes(pki.crl())
        self._context.load_verify_locations(cafile=crl)
        self._verdicts: queue.Queue[str] = queue.Queue()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            try:
                with connection:
                    connection.settimeout(20)
                    with self._context.wrap_socket(connection, server_side=True) as tls:
                        greeting = tls.recv(16)
                        if greeting == b"stop":
                            return
                        subject = dict(pair for (pair,) in tls.getpeercert()["subject"])
                        tls.sendall(subject["commonName"].encode())
                self._verdicts.put("accepted")
            except ssl.SSLError as error:
                self._verdicts.put(getattr(error, "verify_message", "") or (error.reason or "").lower())

    def stop(self) -> None:
        self._exchange(self._client(self._pki.ephemeral_client("stop")), b"stop")
        self._thread.join()
        self._listener.close()

    def _client(self, credential: Credential | None, trust: bytes | None = None) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.load_verify_locations(cadata=(trust or self._pki.trust_anchor).decode())
        if credential is not None:
            load(context, credential, self._folder)
        return context

    def _exchange(self, context: ssl.SSLContext, message: bytes, name: str = "127.0.0.1") -> str:
        with (
            socket.create_connection(self._listener.getsockname(), timeout=20) as connection,
            context.wrap_socket(connection, server_hostname=name) as tls,
        ):
            tls.sendall(message)
            return tls.recv(100).decode()

    def greet(self, credential: Credential | None, trust: bytes | None = None, name: str = "127.0.0.1") -> str:
        """Return the name that the server knows the client by, or why the server, or else the client, ended it."""
        answer = ""
        try:
            answer = self._exchange(self._client(credential, trust), b"hello", name)
        except ssl.SSLCertVerificationError as error:
            answer = f"client: {error.verify_message}"
        except OSError:
            pass  # the server's side knows why; under TLS 1.3 the client may only see the connection end
        verdict = self._verdicts.get(timeout=30)
        return answer if answer.startswith("client: ") or verdict == "accepted" else verdict


@pytest.fixture
def lost(pki: Pki) -> Credential:
    lost = pki.device("lost-01")
    pki.revoke(lost.serial, "keyCompromise")
    return lost


@pytest.fixture
def broker(pki: Pki, lost: Credential, tmp_path: Path) -> Iterator[Broker]:
    broker = Broker(pki, tmp_path)
    yield broker
    broker.stop()


def test_a_device_with_a_valid_certificate_is_known_by_its_name(broker, pki):
    assert broker.greet(pki.device("kitchen-01")) == "kitchen-01"
    assert broker.greet(pki.ephemeral_client("gatehouse-probe")) == "gatehouse-probe"


def test_a_client_without_a_certificate_is_refused(broker, pki):
    assert broker.greet(None) == "peer_did_not_return_a_certificate"
    assert broker.greet(pki.device("kitchen-01")) == "kitchen-01"


def test_an_expired_certificate_is_refused(broker, pki):
    now = datetime.datetime.now(datetime.UTC)
    expired = pki.ephemeral_client("kitchen-01", not_before=now - 2 * DAY, not_after=now - DAY)
    assert broker.greet(expired) == "certificate has expired"
    assert broker.greet(pki.ephemeral_client("kitchen-01")) == "kitchen-01"


def test_a_certificate_of_a_foreign_authority_is_refused(broker, pki):
    foreign = Pki(SecretStore(), "home", "home.arpa").ensure().device("kitchen-01")
    assert "unable to get" in broker.greet(foreign)
    assert broker.greet(pki.device("kitchen-01")) == "kitchen-01"


def test_a_revoked_device_is_refused_and_its_new_certificate_is_not(broker, pki, lost):
    assert broker.greet(lost) == "certificate revoked"
    assert broker.greet(pki.device("lost-01")) == "lost-01"


def test_a_servers_certificate_does_for_no_client(broker, pki):
    answer = broker.greet(pki.server("other"))
    assert "certificate purpose" in answer
    assert broker.greet(pki.device("other")) == "other"


def test_a_device_tells_its_own_broker_from_any_other(broker, pki):
    device = pki.device("kitchen-01")
    foreign = Pki(SecretStore(), "home", "home.arpa", ["127.0.0.0/8"]).ensure()
    assert "client: unable to get" in broker.greet(device, trust=foreign.trust_anchor)
    assert "client: Hostname mismatch" in broker.greet(device, name="other.home.arpa")
    assert "client: IP address mismatch" in broker.greet(device, name="127.0.0.2")
    assert broker.greet(device, name="broker.home.arpa") == "kitchen-01"
    assert broker.greet(device, name="127.0.0.1", trust=pki.trust_anchor) == "kitchen-01"
