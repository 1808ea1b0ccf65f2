"""Probes against servers on loopback: what they say of those that answer, and of those that don't."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
import os
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from gatehouse.identity import Pki, SecretStore
from gatehouse.proof.channel import START, Agent, ProbeError, asking, opening
from gatehouse.proof.observation import Observation
from gatehouse.proof.probes import facts, mqtt, reach, scan, ssh, tls
from gatehouse.proof.probes.agent import _work, perform, perform_all


@contextlib.contextmanager
def serving(handle, kind=socket.SOCK_STREAM):
    """A server on a free port of loopback whose `handle` gets each connection, or (socket, message, sender)."""
    with socket.socket(socket.AF_INET, kind) as listener:
        listener.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            listener.listen()

        def work():
            with contextlib.suppress(OSError):
                while True:
                    if kind == socket.SOCK_STREAM:
                        connection, _ = listener.accept()
                        threading.Thread(target=handled, args=(connection,), daemon=True).start()
                    else:
                        message, sender = listener.recvfrom(2048)
                        if sender is None:  # shut down
                            return
                        handle(listener, message, sender)

        def handled(connection):
            with contextlib.suppress(OSError), connection:
                handle(connection)

        threading.Thread(target=work, daemon=True).start()
        yield listener.getsockname()[1]
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)


def unused(kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def at(port, **more):
    return {"address": "127.0.0.1", "port": port, "timeout": 1, **more}


def test_a_tcp_port_is_open_or_refused():
    with serving(lambda connection: connection.sendall(connection.recv(100))) as port:
        assert asyncio.run(reach.tcp(at(port, say="hello")))["answer"] == "hello"
    assert asyncio.run(reach.tcp(at(unused())))["outcome"] == "refused"


def test_a_udp_port_answers_refuses_or_is_silent():
    with serving(lambda listener, message, sender: listener.sendto(message, sender), socket.SOCK_DGRAM) as port:
        assert reach.udp(at(port, say="hello"))["answer"] == "hello"
    with serving(lambda *_: None, socket.SOCK_DGRAM) as port:
        assert reach.udp(at(port, say="hello"))["outcome"] == "silent"
    assert reach.udp(at(unused(socket.SOCK_DGRAM), say="hello"))["outcome"] == "refused"


def test_datagrams_that_have_a_time_are_sent_then_and_what_is_overdue_is_left_out():
    came = []
    with serving(lambda listener, message, sender: came.append(message.decode()), socket.SOCK_DGRAM) as port:
        payloads = [text.encode().hex() for text in ("overdue", "late", "next", "last")]
        timing = {"at": time.monotonic() - 0.7, "pause": 0.5}
        assert reach.datagrams(at(port, payloads=payloads, **timing))["outcome"] == "silent"
        assert came == ["late", "next", "last"]
        reach.datagrams(at(port, payloads=payloads, pause=0.01))
        assert came[3:] == ["overdue", "late", "next", "last"]


@pytest.mark.parametrize("pause", [0.0, 0.005])
def test_datagrams_without_a_time_are_all_sent_however_busy_the_machine_is(monkeypatch, pause):
    clock = itertools.count(step=0.05)
    monkeypatch.setattr(reach.time, "monotonic", lambda: next(clock))
    came = []
    with serving(lambda listener, message, sender: came.append(message), socket.SOCK_DGRAM) as port:
        reach.datagrams(at(port, payloads=["01", "02", "03"], pause=pause))
    assert came == [b"\1", b"\2", b"\3"]


def test_all_positions_send_by_one_clock():
    given = []

    class Noted:
        def ask(self, message):
            given.append(message["probes"])
            return {"results": [{} for _ in message["probes"]]}

    timed = [{"id": number, "kind": "datagrams", "after": number / 10} for number in range(4)]
    begun = time.monotonic()
    positions: dict[str, Any] = {"one": Noted(), "other": Noted()}
    _work(positions, {"one": [timed[0], timed[3]], "other": [timed[1], {"id": 9}, timed[2]]})
    due = {probe["id"]: probe["at"] for probes in given for probe in probes if "at" in probe}
    assert due[0] > begun
    assert [round(due[number] - due[0], 6) for number in range(4)] == [0, 0.1, 0.2, 0.3]


def test_what_has_a_time_does_not_wait_for_its_turn():
    came = []
    with (
        serving(lambda *_: came.append("somebody"), socket.SOCK_DGRAM) as port,
        ThreadPoolExecutor(1) as pool,
    ):
        silent = [{"id": n, "kind": "udp", **at(port, say="?"), "timeout": 0.4} for n in range(3)]
        timed = {"id": "timed", "kind": "datagrams", **at(port, payloads=["00"]), "at": time.monotonic()}
        results = perform_all([*silent, {**timed, "timeout": 0.2}], pool)
    assert [result["id"] for result in results] == [0, 1, 2, "timed"]
    assert all(result["outcome"] == "silent" for result in results)
    ended = {r["id"]: datetime.fromisoformat(r["at"]) + timedelta(milliseconds=r["ms"]) for r in results}
    assert ended["timed"] < ended[1]


def dns_answer(listener, message, sender):
    name_and_type = message[12:]
    answer = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + bytes([10, 0, 0, 1])
    listener.sendto(message[:2] + b"\x81\x80" + struct.pack(">HHHH", 1, 1, 0, 0) + name_and_type + answer, sender)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_ping_is_answered_to_who_may_send_one(address):
    wanted = "answered" if os.geteuid() == 0 else "prohibited"
    assert perform({"kind": "ping", "address": address})["outcome"] == wanted


class Echoes:
    """A raw socket on which somebody else's pings are answered."""

    def __init__(self, *_):
        self._answers = [bytes([129, 0, 0, 0]) + b"theirs, not mine"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def connect(self, _): ...

    def send(self, _): ...

    def settimeout(self, _): ...

    def recv(self, _):
        if not self._answers:
            raise TimeoutError
        return self._answers.pop()


def test_the_answer_to_somebody_elses_ping_is_none(monkeypatch):
    monkeypatch.setattr(reach.socket, "socket", Echoes)
    assert reach.ping({"address": "::1", "timeout": 0.2})["outcome"] == "silent"


def test_a_resolvers_answer_is_read():
    with serving(dns_answer, socket.SOCK_DGRAM) as port:
        result = reach.dns(at(port, name="gateway.home.arpa"))
    assert (result["outcome"], result["code"], result["addresses"]) == ("answered", "NOERROR", ["10.0.0.1"])


def test_what_answers_another_question_is_no_resolver():
    with serving(lambda listener, message, sender: listener.sendto(b"x" * 20, sender), socket.SOCK_DGRAM) as port:
        assert reach.dns(at(port, name="gateway.home.arpa"))["outcome"] == "error"


@pytest.mark.parametrize(("first", "stratum", "synchronised"), [(0x24, 2, True), (0xE4, 2, False), (0x24, 0, False)])
def test_a_time_server_says_whether_it_is_synchronised(first, stratum, synchronised):
    def answer(listener, message, sender):
        listener.sendto(bytes([first, stratum]) + bytes(46), sender)

    with serving(answer, socket.SOCK_DGRAM) as port:
        assert reach.ntp(at(port))["synchronised"] is synchronised


def test_the_internet_checksum_is_that_of_the_rfc():
    data = bytes.fromhex("0001f203f4f5f6f7")  # RFC 1071 §3
    assert reach.checksum(data) == 0xFFFF - 0xDDF2


def kexinit(lists):
    payload = b"\x14" + bytes(16) + b"".join(struct.pack(">I", len(n)) + n for n in lists) + bytes(5)
    return struct.pack(">IB", len(payload) + 5, 4) + payload + bytes(4)


def test_the_proposal_of_an_ssh_server_is_read():
    lists = [b"curve25519-sha256", b"ssh-ed25519", b"a,b", b"c", b"d", b"e", b"none", b"zlib", b"", b""]

    def answer(connection):
        connection.sendall(b"SSH-2.0-test\r\n" + kexinit(lists))
        connection.recv(1000)

    with serving(answer) as port:
        result = ssh.ssh(at(port))
    assert (result["outcome"], result["banner"]) == ("open", "SSH-2.0-test")
    assert (result["kex"], result["ciphers_in"], result["compression_out"]) == (
        ["curve25519-sha256"],
        ["a", "b"],
        ["zlib"],
    )


def test_what_is_no_ssh_server_is_told_apart():
    with serving(lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n" + bytes(40))) as port:
        assert ssh.ssh(at(port))["outcome"] == "error"


REPORT = """<nmaprun><host><ports><extraports state="filtered" count="65532"/>
<port protocol="tcp" portid="8883"><state state="open"/></port>
<port protocol="tcp" portid="22"><state state="closed"/></port>
<port protocol="udp" portid="53"><state state="open|filtered"/></port></ports></host></nmaprun>"""


def test_nmaps_report_is_read():
    assert scan.states(REPORT) == {"open": ["8883/tcp"], "closed": ["22/tcp"], "others": 65533}


def test_many_ports_of_one_kind_are_not_lost():
    report = '<nmaprun><host><ports><extraports state="closed" count="65535"/></ports></host></nmaprun>'
    assert scan.states(report)["closed"] == ["65535 more"]


# TLS and MQTT, with a PKI of the kit's own


@pytest.fixture(scope="module")
def pki():
    return Pki(SecretStore(), "home", "home.arpa").ensure()


def pem(credential):
    return {"chain": credential.chain_pem.decode(), "key": credential.private_key_pem.decode()}


@pytest.fixture(scope="module")
def server_context(pki, tmp_path_factory):
    file = tmp_path_factory.mktemp("server") / "server.pem"
    made = pki.ephemeral_server("broker")
    file.write_bytes(made.private_key_pem + made.chain_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(file)
    context.load_verify_locations(cadata=pki.trust_chain_for_devices().decode())
    context.verify_mode = ssl.CERT_REQUIRED
    return context


class Broker:
    """As much of a broker as a session needs: takes all, says no to what is under `forbidden/`, echoes the rest."""

    def __init__(self, context):
        self.context = context

    def __call__(self, plain):
        with self.context.wrap_socket(plain, server_side=True) as connection:
            data = b""
            while piece := connection.recv(4096):
                data += piece
                while len(data) >= 2 and len(data) >= 2 + data[1]:
                    kind, body, data = data[0], data[2 : 2 + data[1]], data[2 + data[1] :]
                    if kind == mqtt.DISCONNECT:
                        return
                    connection.sendall(self.answer(kind, body))

    def answer(self, kind, body):
        if kind == mqtt.CONNECT:
            return mqtt.packet(mqtt.CONNACK, b"\0\0\0")
        if kind == mqtt.SUBSCRIBE:
            return mqtt.packet(mqtt.SUBACK, body[:2] + b"\0\1")
        if kind == mqtt.PINGREQ:
            return mqtt.packet(mqtt.PINGRESP, b"")
        length = int.from_bytes(body[:2], "big")
        topic, number, payload = body[2 : 2 + length], body[2 + length : 4 + length], body[5 + length :]
        if topic.startswith(b"forbidden/"):
            return mqtt.packet(mqtt.PUBACK, number + b"\x87\0")
        message = mqtt.packet(mqtt.PUBLISH, mqtt.text(topic.decode()) + b"\0" + payload)
        return mqtt.packet(mqtt.PUBACK, number) + message


def play(port, pki, credential, *steps):
    credentials = {"it": pem(credential)} if credential else {}
    connect = {"do": "connect", "as": "a", "with": "it" if credential else "", "client_id": "a"}
    server = at(port, ca=pki.trust_anchor.decode(), server_name="broker.home.arpa")
    return mqtt.mqtt({**server, "credentials": credentials, "steps": [connect, *steps]})


def test_a_session_publishes_and_receives(server_context, pki):
    steps = [
        {"do": "subscribe", "as": "a", "topic": "x"},
        {"do": "publish", "as": "a", "topic": "x", "payload": "hello"},
        {"do": "await", "as": "a", "payload": "hello", "seconds": 2},
        {"do": "publish", "as": "a", "topic": "forbidden/x", "payload": "no"},
        {"do": "ping", "as": "a"},
    ]
    with serving(Broker(server_context)) as port:
        result = play(port, pki, pki.ephemeral_client("a"), *steps)
    outcomes = [step["outcome"] for step in result["steps"]]
    assert outcomes == ["accepted", "granted", "taken", "received", "denied", "answered"]
    assert result["steps"][4]["code"] == 135
    assert result["received"] == {"a": [{"topic": "x", "payload": "hello", "retained": False}]}


def test_a_client_without_certificate_gets_the_alert_and_not_a_session(server_context, pki):
    with serving(Broker(server_context)) as port:
        result = play(port, pki, None, {"do": "ping", "as": "a"})
        good = play(port, pki, pki.ephemeral_client("a"))
    assert [step["outcome"] for step in result["steps"]] == ["alert", "skipped"]
    assert "certificate required" in result["steps"][0]["reason"]
    assert good["steps"][0]["outcome"] == "accepted"


def test_secrets_are_in_no_result(server_context, pki):
    credential = pki.ephemeral_client("a")
    with serving(Broker(server_context)) as port:
        result = play(port, pki, credential)
    seen = Observation("iot", {"kind": "mqtt", **at(port), "credentials": {"it": pem(credential)}}, result)
    assert "PRIVATE KEY" not in json.dumps([result, seen.evidence(), str(seen)])


def test_a_handshake_tells_version_and_trust(server_context, pki):
    other = Pki(SecretStore(), "home", "home.arpa").ensure()
    client = pem(pki.ephemeral_client("a"))
    with serving(Broker(server_context)) as port:
        server = at(port, server_name="broker.home.arpa", **client)
        good = tls.tls({**server, "ca": pki.trust_anchor.decode()})
        foreign = tls.tls({**server, "ca": other.trust_anchor.decode()})
        wrong = tls.tls({**server, "ca": pki.trust_anchor.decode(), "server_name": "other.home.arpa"})
        old = tls.tls({**server, "ca": pki.trust_anchor.decode(), "maximum": "1.2"})
    assert (good["outcome"], good["version"], good["names"]) == ("agreed", "1.3", ["broker.home.arpa"])
    assert [foreign["outcome"], wrong["outcome"], old["outcome"]] == ["distrusted", "distrusted", "alert"]


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_a_ticket_for_the_next_session_is_seen_where_one_is_given(server_context, pki, version):
    given, least = {}, server_context.minimum_version
    server_context.minimum_version = tls.VERSIONS["1.2"]
    try:
        for tickets in (2, 0):
            server_context.num_tickets = tickets
            server_context.options |= 0 if tickets else ssl.OP_NO_TICKET
            with serving(Broker(server_context)) as port:
                server = at(port, maximum=version, **pem(pki.ephemeral_client("a")))
                given[tickets] = mqtt.Session().connect(server, "a", None)["ticket"], tls.tls(server).get("ticket")
    finally:
        server_context.minimum_version, server_context.num_tickets = least, 2
        server_context.options &= ~ssl.OP_NO_TICKET
    # With TLS 1.3 it comes after the handshake, so a probe that hangs up then says nothing of it.
    assert given == ({2: (True, True), 0: (False, False)} if version == "1.2" else {2: (True, None), 0: (False, None)})


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_a_position_knows_which_versions_it_can_speak(pki, version):
    able = tls.capable({"minimum": version, "maximum": version, **pem(pki.ephemeral_server("loopback"))})
    assert able == {"outcome": "agreed", "version": version}


def test_a_port_where_nobody_listens_is_no_refusal_by_tls(pki):
    assert tls.tls(at(unused()))["outcome"] == "refused"


@pytest.mark.parametrize("length", [0, 127, 128, 16_383, 16_384, 200_000])
def test_the_length_of_a_packet_is_encoded_as_the_standard_says(length):
    made = mqtt.packet(0x30, bytes(length))
    assert mqtt.properties_end(made, 1) == len(made)


def test_an_answer_that_is_no_mqtt_ends_the_session(server_context, pki):
    class Strange(Broker):
        def answer(self, kind, body):
            return b"\x20\xff\xff\xff\xff\xff"

    with serving(Strange(server_context)) as port:
        assert play(port, pki, pki.ephemeral_client("a"))["steps"][0]["outcome"] == "error"


def test_an_expired_credential_can_be_shown(pki):
    begin = pki._clock() - timedelta(days=2)
    made = pki.ephemeral_client("a", not_before=begin, not_after=begin + timedelta(days=1))
    assert tls.client({**pem(made)})


# facts


def test_private_keys_are_found_with_their_owners_and_others_are_not(tmp_path, pki):
    made = pki.ephemeral_client("a")
    (tmp_path / "sub").mkdir()
    key = tmp_path / "sub" / "hidden.txt"
    key.write_bytes(b"a line before\n" + made.private_key_pem)
    os.chmod(key, 0o640)
    (tmp_path / "certificate.pem").write_bytes(made.certificate_pem)
    (tmp_path / "link").symlink_to(key)
    (found,) = facts.keys({"root": str(tmp_path)})["keys"]
    assert (found["path"], found["mode"], found["kind"]) == (str(key), "0640", "PRIVATE KEY")
    assert found["spki"] == made.spki_sha256


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_private_keys_in_der_are_found_and_what_only_begins_like_one_is_not(tmp_path, form, kind):
    key = ec.generate_private_key(ec.SECP256R1()) if kind == "ec" else rsa.generate_private_key(65537, 2048)
    encoded = key.private_bytes(Encoding.DER, form, NoEncryption())
    (tmp_path / "backup.bin").write_bytes(encoded)
    (tmp_path / "cut.bin").write_bytes(encoded[: len(encoded) // 2])
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "public.bin").write_bytes(public)
    (found,) = facts.keys({"root": str(tmp_path)})["keys"]
    assert found["path"] == str(tmp_path / "backup.bin")
    assert found["spki"] == hashlib.sha256(public).hexdigest()


def test_a_program_that_is_missing_is_told(tmp_path):
    assert facts.run({"argv": [str(tmp_path / "none")]})["outcome"] == "incapable"
    assert facts.run({"argv": ["sh", "-c", "echo yes; exit 3"]})["status"] == 3


def test_a_probe_that_breaks_is_told_and_the_others_go_on():
    assert perform({"kind": "unknown", "id": "x"})["outcome"] == "error"
    assert perform({"kind": "run", "argv": ["true"], "id": "y"})["outcome"] == "ran"


# the agent, as it is sent over


def test_the_agent_works_where_nothing_of_the_kit_is_installed(tmp_path):
    command = ["env", "-C", str(tmp_path), sys.executable, "-I", "-c", START]
    with Agent("here", command, {}) as agent:
        results = agent.ask(
            {"gateway": [{"id": "a", "kind": "run", "argv": ["echo", "yes"]}], "nowhere": [{"kind": "run"}]}
        )
    assert results["gateway"][0]["output"] == "yes\n"
    assert results["nowhere"][0]["error"] == "no position nowhere"


# A process of a position that takes its time before it has a network of its own, as on a busy machine.
LATE = """
agent = sys.modules[sent["entry"]]
class Late:
    real = agent._libc
    prctl = real.prctl
    def unshare(self, flags):
        import time
        time.sleep(0.5)
        return UNSHARED
agent._libc = Late()
sys.modules[sent["entry"]].main"""
BRIDGE = "ip link set lo up; ip link add br-iot up type bridge; ip address add 10.9.0.1/24 dev br-iot"


def positioned(unshared):
    """What the agent says of its position in a bridge of a network that only this test has."""
    late = START.replace('sys.modules[sent["entry"]].main', LATE.replace("UNSHARED", unshared))
    inside = ["sh", "-euc", f'{BRIDGE}; exec "$0" -I -c "$1"', sys.executable, late]
    with Agent("here", ["unshare", "-n", *inside], {"segments": {"iot": {"bridge": "br-iot"}}, "pace": 1}) as agent:
        return agent.positions["iot"], agent.ask({"gateway": [{"kind": "run", "argv": ["ip", "-br", "link"]}]})


@pytest.mark.skipif(os.geteuid() != 0, reason="making network namespaces needs root")
def test_a_position_is_placed_once_it_has_a_network_of_its_own():
    position, links = positioned("self.real.unshare(flags)")
    assert position["addresses"] == ["10.9.0.254"]
    assert "probe0" not in links["gateway"][0]["output"]


@pytest.mark.skipif(os.geteuid() != 0, reason="making network namespaces needs root")
def test_a_position_that_gets_no_network_of_its_own_is_put_nowhere():
    position, links = positioned("-1")
    assert "no network namespace" in position["error"]
    assert "probe0" not in links["gateway"][0]["output"]


def sleep_for(seconds):
    return {"gateway": [{"kind": "run", "argv": ["sleep", str(seconds)]}]}


def test_what_is_asked_later_is_answered_sooner_if_it_takes_less_time():
    done = []
    with Agent("here", [sys.executable, "-I", "-c", START], {}) as agent:

        def ask(seconds):
            assert agent.ask(sleep_for(seconds))["gateway"][0]["status"] == 0
            done.append(seconds)

        threads = [threading.Thread(target=ask, args=(seconds,)) for seconds in (1.5, 0)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert done == [0, 1.5]


def test_an_agent_ends_when_it_is_told_to_and_whoever_waits_for_it_learns_that():
    agent = Agent("here", [sys.executable, "-I", "-c", START], {})
    told = []

    def ask():
        try:
            agent.ask(sleep_for(60))
        except ProbeError as error:
            told.append(str(error))

    waiting = threading.Thread(target=ask)
    waiting.start()
    began = time.monotonic()
    agent.close()
    waiting.join(10)
    assert time.monotonic() - began < 10
    assert told == ["here: the probes ended: no word why"]
    with pytest.raises(ProbeError, match="the probes ended"):
        agent.ask(sleep_for(0))


def test_an_agent_whose_input_ends_answers_everything_first():
    sent = opening({}) + asking(sleep_for(0.5), 7) + asking(sleep_for(0), 8)
    done = subprocess.run([sys.executable, "-I", "-c", START], input=sent, capture_output=True, text=True, timeout=30)
    assert [json.loads(line).get("number") for line in done.stdout.splitlines()] == [None, 8, 7]


def test_an_agent_that_ends_says_why():
    with pytest.raises(ProbeError, match="gw: the probes ended: no such host"):
        Agent("gw", ["sh", "-c", "echo no such host >&2; exit 255"], {})


def test_an_agent_that_says_nothing_is_given_up():
    with pytest.raises(ProbeError, match="gave no answer in 0 s"):
        Agent("gw", ["sh", "-c", "exec sleep 30"], {}, patience=0.1)


def test_what_a_login_script_prints_is_no_answer():
    with pytest.raises(ProbeError, match="no answer of a probe: 'Welcome"):
        Agent("gw", ["sh", "-c", "echo Welcome; exec sleep 5"], {})
