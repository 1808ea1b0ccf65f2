"""The port audit: what is found is compared with what is declared, and who has a stray port is named."""

from __future__ import annotations

import http.server
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gatehouse.identity.pki import Pki
from gatehouse.identity.store import SecretStore
from gatehouse.proof import audit
from gatehouse.proof.observation import Observation
from gatehouse.proof.probes import scan
from gatehouse.proof.sockets import Socket
from gatehouse.site import Site, derive
from roles import declared
from tests.unit.test_site_model import description

AT = "10.10.10.1"


def site() -> Site:
    return Site(**{**description(), "services": declared()})


def scanned(open_: list[str], closed: list[str] = [], position: str = "iot", **result: Any) -> Observation:  # noqa: B006
    probe = {"kind": "nmap", "transport": "tcp", "address": AT}
    return Observation(position, probe, {"outcome": "scanned", "open": open_, "closed": closed, **result})


def judged(*seen: Observation, spoken: dict[str, str] | None = None, sockets: list[Socket] | None = None) -> Any:
    where = site()
    said = {("iot", AT, label): {"speaks": speaks, "version": ""} for label, speaks in (spoken or {}).items()}
    return audit.ports(where, derive(where, "gw"), "gw", seen, said, sockets or [], {"iot": "iot", "operator": "iot"})


AS_DECLARED = ["53/tcp", "8883/tcp"]


def test_what_is_as_declared_is_listed_and_no_finding() -> None:
    findings, found = judged(scanned(AS_DECLARED), spoken={"8883/tcp": "tls"})
    assert findings == []
    assert [(port.port, port.declared, port.speaks) for port in found] == [
        ("53/tcp", "dnsmasq dns-tcp", ""), ("8883/tcp", "mosquitto mqtts", "tls"),
    ]  # fmt: skip


@pytest.mark.parametrize("position", ["iot", "operator"])
def test_a_stray_port_is_named_with_its_program_its_unit_and_what_ends_it(position: str) -> None:
    stray = Socket("2323/tcp", "*", "python3", "stray-service.service")
    (finding,), _ = judged(scanned([*AS_DECLARED, "2323/tcp"], position=position), sockets=[stray])
    assert (finding.what, finding.port, finding.position) == (audit.OPEN, "2323/tcp", position)
    assert (finding.program, finding.unit) == ("python3", "stray-service.service")
    assert finding.close == "sudo systemctl disable --now stray-service.service"


def test_a_program_without_a_unit_is_ended_by_its_port() -> None:
    stray = Socket("2323/tcp", AT, "nc", "session-4.scope")
    (finding,), _ = judged(scanned([*AS_DECLARED, "2323/tcp"]), sockets=[stray])
    assert finding.close == "sudo fuser -k -n tcp 2323"


def test_what_listens_behind_the_firewall_is_found_as_well() -> None:
    strays = [
        Socket("9090/tcp", "*", "python3", "stray.service"),
        Socket("8883/tcp", AT, "mosquitto", "mosquitto.service"),
    ]
    (finding,), _ = judged(scanned(AS_DECLARED), sockets=strays)
    assert (finding.what, finding.port, finding.position) == (audit.HIDDEN, "9090/tcp", "gateway")


def test_a_declared_port_that_is_not_open_is_found() -> None:
    (finding,), _ = judged(scanned(["53/tcp"]))
    assert (finding.what, finding.port, finding.close) == (
        audit.CLOSED, "8883/tcp", "sudo systemctl restart mosquitto.service",
    )  # fmt: skip


@pytest.mark.parametrize(("speaks", "what"), [("mqtt", audit.PLAIN), ("http", audit.PLAIN), ("ssh", audit.PLAIN)])
def test_plaintext_where_tls_is_declared_is_found(speaks: str, what: str) -> None:
    there = Socket("8883/tcp", AT, "mosquitto", "mosquitto.service")
    (finding,), _ = judged(scanned(AS_DECLARED), spoken={"8883/tcp": speaks}, sockets=[there])
    assert (finding.what, finding.got, finding.unit) == (what, speaks, "mosquitto.service")


def test_another_service_than_declared_is_found() -> None:
    (finding,), _ = judged(scanned(AS_DECLARED), spoken={"53/tcp": "ssh", "8883/tcp": "tls"})
    assert (finding.what, finding.got) == (audit.WRONG, "ssh")


def test_a_port_that_the_firewall_lets_through_to_nobody_is_found() -> None:
    (finding,), _ = judged(scanned(AS_DECLARED, ["7000/tcp"]))
    assert (finding.what, finding.port) == (audit.THROUGH, "7000/tcp")


def test_a_scan_that_was_not_made_is_no_clean_one() -> None:
    (finding,), found = judged(scanned([], outcome="incapable", reason="nmap took too long"))
    assert (finding.what, finding.got) == (audit.BLIND, "nmap took too long") and found == []


def test_the_table_and_the_document_say_the_same() -> None:
    findings, found = judged(scanned([*AS_DECLARED, "2323/tcp"]), spoken={"8883/tcp": "tls"})
    lines = audit.table(findings, found)
    assert "2323/tcp" in lines[1] and audit.OPEN in lines[1]
    said = json.loads(json.dumps(audit.document(site(), findings, found)))
    assert [f["port"] for f in said["findings"]] == ["2323/tcp"] and len(said["open"]) == 2
    assert audit.table([], found)[0] == "every port is as declared"


# What answers, told by real servers.


@contextmanager
def serving(answer: Any) -> Iterator[int]:
    """A server on loopback that hands each connection to `answer`."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.settimeout(3)
                    try:
                        answer(connection)
                    except OSError:
                        continue

        threading.Thread(target=serve, daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)


def spoken(port: int) -> str:
    answers = scan.speaks({"address": "127.0.0.1", "ports": [port]})["answers"]
    return str(answers[f"{port}/tcp"]["speaks"])


@pytest.fixture
def unversioned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "_versions", lambda address, ports: {})


@pytest.mark.usefixtures("unversioned")
def test_tls_is_told_even_where_it_refuses(tmp_path: Path) -> None:
    pki = Pki(SecretStore(), "home", "home.arpa").ensure()
    credential = pki.ephemeral_server("home")
    pem = tmp_path / "server.pem"
    pem.write_bytes(credential.chain_pem + credential.private_key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=pki.trust_anchor.decode())
    with serving(lambda connection: context.wrap_socket(connection, server_side=True)) as port:
        assert spoken(port) == "tls"


@pytest.mark.usefixtures("unversioned")
def test_ssh_plain_http_and_silence_are_told_apart() -> None:
    with serving(lambda connection: connection.sendall(b"SSH-2.0-x\r\n")) as port:
        assert spoken(port) == "ssh"
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert spoken(server.server_address[1]) == "http"
        server.shutdown()
    mqtt = lambda connection: connection.recv(99)[:1] == b"\x10" and connection.sendall(b"\x20\x02\x00\x05")  # noqa: E731
    with serving(mqtt) as port:
        assert spoken(port) == "mqtt"
    with serving(lambda connection: connection.recv(99)) as port:
        assert spoken(port) == ""
