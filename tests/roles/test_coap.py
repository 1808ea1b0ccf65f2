"""The CoAP endpoint's own files and program, the real broker, and clients that are not the kit's: libcoap's."""

from __future__ import annotations

import contextlib
import datetime
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from gatehouse.identity.pins import coap_host
from gatehouse.identity.pki import Credential, Pki
from gatehouse.proof.plays import SUITES_NOT_WANTED
from gatehouse.proof.probes import coap as probes
from gatehouse.proof.probes.coap import Device
from roles.coap import files
from roles.target import Target
from tests.roles import debian
from tests.roles.broker import NOT_AUTHORISED, SECONDS, Broker, Client, free_port, running
from tests.roles.coapserver import TOPIC, Endpoint, everything, serving

# Debian 12's pyOpenSSL knows its own classes only.
pytestmark = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")

DEBIAN = "/usr/bin/python3"
DEVICES = [
    {"name": name, "model": "m", "gateway": "gw", "status": status}
    for name, status in (("kitchen-01", "active"), ("pump-02", "active"), ("lamp-03", "quarantined"))
]


@pytest.fixture(scope="module")
def pki(new_pki: Callable[[], Pki]) -> Pki:
    return new_pki()


@pytest.fixture(scope="module")
def target(programs: Callable[..., None], gateway_of: Callable[..., Target], pki: Pki) -> Target:
    programs("mosquitto", "mosquitto")
    programs("coap-client-openssl", "libcoap3-bin")
    ports = {"mosquitto": {"ports": {"mqtts": free_port()}}, "coap": {"ports": {"coaps": free_datagram_port()}}}
    # As many messages on their way as one device has at a time: the others wait.
    broker = {"max_inflight_messages": 2}
    site = {"settings": ports, "devices": DEVICES, "coap": {"max_sessions": 5, "idle_seconds": 30}, "broker": broker}
    return gateway_of(iot={"ipv4": "127.0.0.1/8"}, pki=pki, **site)


def free_datagram_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def broker(target: Target) -> Iterator[Broker]:
    with running(target) as started:
        yield started


@pytest.fixture(scope="module", params=["debian", "environment"])
def python(request: pytest.FixtureRequest, target: Target) -> str:
    """Debian's Python with Debian's pyOpenSSL, as on a gateway; and the newest there is."""
    if request.param == "environment":
        return sys.executable
    if subprocess.run([DEBIAN, "-I", "-c", "import OpenSSL"], capture_output=True, check=False).returncode:
        assert not (failed := debian.install("python3-openssl")), failed
    return DEBIAN


@pytest.fixture(scope="module")
def endpoint(target: Target, broker: Broker, python: str) -> Iterator[Endpoint]:
    with serving(target, python) as started:
        started.until(lambda: started.number("connected") == 1, "not connected")
        yield started


@pytest.fixture(scope="module")
def kitchen(pki: Pki) -> Credential:
    return pki.device("kitchen-01")


@pytest.fixture
def listener(broker: Broker, pki: Pki) -> Iterator[Client]:
    """Who hears what devices report, as the intake does."""
    with broker.client(pki.ephemeral_client("gatehouse-intake")) as client:
        client.subscribe("devices/+/telemetry/#")
        yield client


def posting(payload: bytes = b"\x02a message", path: str = TOPIC, **more: Any) -> dict[str, Any]:
    return {"path": path, "payload": payload.hex(), **more}


def codes(found: dict[str, Any]) -> list[str]:
    return [answer["code"] for answer in found["answers"]]


def test_what_a_device_posts_is_published_as_it_is_under_its_topic(
    endpoint: Endpoint, listener: Client, kitchen: Credential
) -> None:
    payload = bytes(range(256)) * 4
    found = endpoint.asked(kitchen, requests=[posting(payload), posting(b"\x02x", confirmable=False)])
    assert codes(found) == ["2.04", "2.04"], (found, endpoint.log())
    assert listener.next_message() == (TOPIC, payload) and listener.next_message() == (TOPIC, b"\x02x")
    assert [answer["kind"] for answer in found["answers"]] == [2, 1]  # in the acknowledgement, and of its own
    assert (found["version"], found["cipher"]) == ("1.2", "ECDHE-ECDSA-AES256-GCM-SHA384")


def client_files(tmp_path: Path, credential: Credential, pki: Pki) -> list[str]:
    for name, content in (
        ("crt", credential.chain_pem), ("key", credential.private_key_pem), ("ca", pki.trust_anchor), ("m", b"\x02m")
    ):  # fmt: skip
        (tmp_path / name).write_bytes(content)
    return ["-c", str(tmp_path / "crt"), "-j", str(tmp_path / "key"), "-R", str(tmp_path / "ca")]


@pytest.mark.parametrize("library", ["openssl", "gnutls"])
def test_a_client_of_another_make_gets_in_with_its_certificate_and_no_other_way(
    endpoint: Endpoint, listener: Client, kitchen: Credential, pki: Pki, library: str, tmp_path: Path
) -> None:
    shown = client_files(tmp_path, kitchen, pki)
    uri = f"coaps://127.0.0.1:{endpoint.port}/"

    def post(path: str, *options: str) -> str:
        command = [f"coap-client-{library}", "-B", "5", "-v", "7", "-m", "post", "-f", str(tmp_path / "m"), "-t", "42"]
        done = subprocess.run([*command, *options, uri + path], capture_output=True, text=True, timeout=30, check=False)
        return done.stdout + done.stderr

    assert "c:2.04" in post(TOPIC, *shown), endpoint.log()
    assert listener.next_message() == (TOPIC, b"\x02m")
    assert "c:4.03" in post("devices/pump-02/telemetry/climate", *shown)
    without = post(TOPIC, *shown[4:])
    assert "c:2.04" not in without and "c:4" not in without
    assert listener.messages.empty()


def test_blocks_are_told_how_large_a_message_may_be(
    endpoint: Endpoint, kitchen: Credential, pki: Pki, tmp_path: Path
) -> None:
    shown = client_files(tmp_path, kitchen, pki)
    (tmp_path / "m").write_bytes(bytes(3000))
    command = ["coap-client-openssl", "-B", "5", "-v", "7", "-m", "post", "-f", str(tmp_path / "m"), *shown]
    done = subprocess.run(
        [*command, f"coaps://127.0.0.1:{endpoint.port}/{TOPIC}"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert "c:4.13" in done.stdout + done.stderr, done.stdout + done.stderr


def test_every_refusal_has_its_code_and_the_good_one_stands_beside_it(
    endpoint: Endpoint, listener: Client, kitchen: Credential
) -> None:
    asked = {
        "4.03": posting(path="devices/pump-02/telemetry/climate"),
        "4.04": posting(path="devices/kitchen-01/commands/climate"),
        "4.05": posting(method=1),
        "4.15": posting(options=[[12, "32"]]),
        "4.13": posting(bytes(1025)),
        "4.00": posting(b""),
        "4.02": posting(options=[[15, "78"]]),
        "2.04": posting(b"\x02 after all"),
    }
    assert codes(endpoint.asked(kitchen, requests=list(asked.values()))) == list(asked)
    assert listener.next_message() == (TOPIC, b"\x02 after all") and listener.messages.empty()


def test_the_same_message_again_is_answered_the_same_and_published_once(
    endpoint: Endpoint, listener: Client, kitchen: Credential
) -> None:
    with endpoint.device(kitchen) as device:
        message = probes.struct.pack(">BBH", 0x41, 2, 4711) + b"t"
        message += probes._options([(11, part.encode()) for part in TOPIC.split("/")]) + b"\xff\x02once"
        answers = []
        for _ in range(3):
            device.say(message)
            answers.append(device.hear(time.monotonic() + SECONDS))
        assert answers[0] is not None and answers[0][1] == 0x44 and set(answers) == {answers[0]}
        assert device.ask(posting(b"\x02next"))["code"] == "2.04"
    assert [listener.next_message()[1] for _ in range(2)] == [b"\x02once", b"\x02next"] and listener.messages.empty()


def test_who_shows_no_certificate_in_order_gets_no_session(
    endpoint: Endpoint, pki: Pki, new_pki: Callable[[], Pki], kitchen: Credential
) -> None:
    revoked = pki.ephemeral_client("kitchen-01")
    pki.revoke(revoked.serial)
    endpoint.put(files.admission(endpoint.target))
    endpoint.until(lambda: endpoint.asked(revoked)["outcome"] == "alert", "revoked, and let in")
    shown = {
        "none": (None, "alert"),
        "revoked": (revoked, "certificate revoked"),
        "foreign": (new_pki().device("kitchen-01"), "alert"),
        "a server's": (pki.ephemeral_server("kitchen-01"), "alert"),
    }
    for who, (credential, why) in shown.items():
        found = endpoint.asked(credential, requests=[posting()])
        assert found["outcome"] == "alert" and why in found["reason"] + "alert", (who, found)
    assert codes(endpoint.asked(kitchen, requests=[posting()])) == ["2.04"]


def test_who_is_no_active_device_here_is_told_so_and_cut_off(endpoint: Endpoint, pki: Pki) -> None:
    for name in ("lamp-03", "unknown-04", "gatehouse-control"):
        own = posting(path=f"devices/{name}/telemetry/climate")
        found = endpoint.asked(pki.ephemeral_client(name), requests=[own, own])
        assert codes(found) == ["4.01", ""], (name, found)


def test_a_device_that_is_cut_off_loses_its_session_and_the_others_keep_theirs(
    endpoint: Endpoint, target: Target, kitchen: Credential, pki: Pki
) -> None:
    pump = pki.device("pump-02")
    own = posting(path="devices/pump-02/telemetry/flow")
    with endpoint.device(kitchen) as stays, endpoint.device(pump) as goes:
        assert (stays.ask(posting())["code"], goes.ask(own)["code"]) == ("2.04", "2.04")
        devices = tuple(
            device.model_copy(update={"status": "quarantined"}) if device.name == "pump-02" else device
            for device in target.site.devices
        )
        changed = Target(target.site.model_copy(update={"devices": devices}), "gw", lambda: pki)
        endpoint.put(files.admission(changed))
        with pytest.raises(probes.Refused, match="cut"):
            goes.hear(time.monotonic() + SECONDS)
        assert codes(endpoint.asked(pump, requests=[own])) == ["4.01"]
        endpoint.put(files.admission(target))
        endpoint.until(lambda: codes(endpoint.asked(pump, requests=[own])) == ["2.04"], "not let in again")
        # A certificate that is revoked while it is in use.
        with endpoint.device(pump) as goes_too:
            pki.revoke(pump.serial)
            endpoint.put(files.admission(target))
            with pytest.raises(probes.Refused, match="cut"):
                goes_too.hear(time.monotonic() + SECONDS)
        assert stays.ask(posting())["code"] == "2.04"


def test_a_session_ends_with_its_certificate(endpoint: Endpoint, pki: Pki) -> None:
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=2)
    brief = pki.ephemeral_client("kitchen-01", not_before=soon - datetime.timedelta(minutes=5), not_after=soon)
    with endpoint.device(brief) as device:
        assert device.ask(posting())["code"] == "2.04"
        with pytest.raises(probes.Refused, match="cut"):
            device.hear(time.monotonic() + SECONDS)
    assert endpoint.asked(brief)["outcome"] == "alert"


def test_files_that_are_broken_change_nothing(endpoint: Endpoint, target: Target, kitchen: Credential) -> None:
    before = endpoint.number("reloads_total")
    for broken in (files.TRUST, files.DEVICES, files.CERTIFICATE):
        (endpoint.root / broken[1:]).write_text("nonsense")
    endpoint.until(lambda: "the former ones stay" in endpoint.log(), "nothing said")
    assert codes(endpoint.asked(kitchen, requests=[posting()])) == ["2.04"]
    endpoint.put(everything(target))
    endpoint.until(lambda: (endpoint.number("reloads_total") or 0) > (before or 0), "not read again")
    assert codes(endpoint.asked(kitchen, requests=[posting()])) == ["2.04"]


def sha256_of(chain: bytes) -> str:
    return x509.load_pem_x509_certificate(chain).fingerprint(hashes.SHA256()).hex()


def test_a_renewed_certificate_of_its_own_is_taken_up_without_a_start(
    endpoint: Endpoint, target: Target, kitchen: Credential, pki: Pki
) -> None:
    assert endpoint.process is not None
    pid, served = endpoint.process.pid, endpoint.asked(kitchen)["fingerprint"]
    pki.vault.delete("server/coap-gw/certificate")
    pki.vault.delete("server/coap-gw/key")
    endpoint.put(files.certificate(target))
    endpoint.until(lambda: endpoint.asked(kitchen)["fingerprint"] != served, "still the former one")
    # Who shows none sees it, too, and is not let in: as a rotation looks.
    assert probes.certificate(endpoint.probe(None)) == {
        "outcome": "agreed", "fingerprint": sha256_of(files.certificate(target)[0].content)
    }  # fmt: skip
    assert endpoint.process.pid == pid and endpoint.process.poll() is None


@contextlib.contextmanager
def held(endpoint: Endpoint, passing: int) -> Iterator[tuple[int, threading.Event, threading.Event]]:
    """A way to the endpoint that holds back what a client sends after so many datagrams.

    Its port; set once something is held; to be set so that it goes on.
    """
    holding, goes_on = threading.Event(), threading.Event()
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as near,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far,
    ):
        near.bind(("127.0.0.1", 0))
        far.connect(("127.0.0.1", endpoint.port))
        client: list[Any] = []
        ended = threading.Event()

        def there() -> None:
            count = 0
            while not ended.is_set():
                with contextlib.suppress(TimeoutError):
                    datagram, place = near.recvfrom(65535)
                    client[:] = [place]
                    count += 1
                    if count > passing and not goes_on.is_set():
                        holding.set()
                        goes_on.wait(4 * SECONDS)
                    far.send(datagram)

        def back() -> None:
            while not ended.is_set():
                with contextlib.suppress(TimeoutError):
                    near.sendto(far.recv(65535), client[0])

        ways = [threading.Thread(target=way) for way in (there, back)]
        for each in (near, far):
            each.settimeout(0.2)
        for way in ways:
            way.start()
        try:
            yield near.getsockname()[1], holding, goes_on
        finally:
            goes_on.set()
            ended.set()
            for way in ways:
                way.join()


@pytest.mark.parametrize("revoked", [False, True])
def test_who_is_in_the_middle_of_a_handshake_while_files_are_read_again_is_judged_by_the_new_ones(
    endpoint: Endpoint, target: Target, pki: Pki, revoked: bool
) -> None:
    credential = pki.ephemeral_client("kitchen-01")
    met: list[dict[str, Any]] = []
    # A hello, and another with the cookie: from then on the endpoint knows of it.
    with held(endpoint, passing=2) as (port, holding, goes_on):
        asks = {"port": port, "timeout": 4 * SECONDS, "requests": [posting()]}
        client = threading.Thread(target=lambda: met.append(endpoint.asked(credential, **asks)))
        client.start()
        assert holding.wait(2 * SECONDS)
        before = endpoint.number("reloads_total") or 0
        if revoked:
            pki.revoke(credential.serial)
        endpoint.put(files.admission(target))
        endpoint.until(lambda: (endpoint.number("reloads_total") or 0) > before, "not read again")
        refused = endpoint.number("refused_handshakes_total") or 0
        goes_on.set()
        client.join()
    answers = [answer["code"] for answer in met[0].get("answers", [])]
    assert answers == ([""] if revoked else ["2.04"]), met
    endpoint.until(lambda: (endpoint.number("refused_handshakes_total") or 0) - refused == revoked, "not counted")


def test_a_client_is_sent_no_more_than_it_sent_until_it_has_returned_a_cookie(endpoint: Endpoint) -> None:
    found = probes.hello({"address": "127.0.0.1", "port": endpoint.port})
    assert found["outcome"] == "answered" and found["asks_for_cookie"]
    assert found["got_bytes"] < found["sent_bytes"]


def test_noise_is_answered_by_nothing_and_harms_nobody(endpoint: Endpoint, kitchen: Credential) -> None:
    noises = (
        b"",
        b"\x16",
        b"\x16\xfe\xff" + bytes(60),
        b"\x80" * 2000,
        b"\x40\x01\x00\x01",
        probes.client_hello()[:90],
        # As if encrypted, and too short for it: OpenSSL 3.0 would end the session.
        *(b"\x15\xfe\xfd" + bytes([0, 1]) + bytes(6) + bytes([0, n]) + bytes(n) for n in (0, 1, 6, 15, 16, 23, 24, 30)),
        b"\x17\xfe\xfd\x00\x01" + bytes(5) + b"\x99\x00\x06" + bytes(30),
    )
    with endpoint.device(kitchen) as device, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
        for noise in noises:
            wire.sendto(noise, ("127.0.0.1", endpoint.port))
            device._wire.send(noise)  # in the midst of a session, too
        assert device.ask(posting())["code"] == "2.04"
        wire.settimeout(0.3)
        with pytest.raises(TimeoutError):
            wire.recv(100)


def test_older_versions_and_suites_are_refused(endpoint: Endpoint, kitchen: Credential) -> None:
    old = {"minimum": "1.0", "maximum": "1.0", "ciphers": "ALL:@SECLEVEL=0"}
    assert endpoint.asked(kitchen, **old)["outcome"] == "alert"
    assert endpoint.asked(kitchen, ciphers=SUITES_NOT_WANTED)["outcome"] == "alert"
    assert endpoint.asked(kitchen)["outcome"] == "agreed"


def test_a_device_knows_its_gateway(endpoint: Endpoint, kitchen: Credential, new_pki: Callable[[], Pki]) -> None:
    assert coap_host(endpoint.target.site) in endpoint.asked(kitchen)["names"]
    assert endpoint.asked(kitchen, server_name="coap.elsewhere")["outcome"] == "distrusted"
    assert endpoint.asked(kitchen, ca=new_pki().trust_anchor.decode())["outcome"] == "distrusted"


def test_a_device_that_comes_anew_from_the_same_port_replaces_its_session(
    endpoint: Endpoint, kitchen: Credential
) -> None:
    first = Device(endpoint.probe(kitchen))
    assert first.ask(posting())["code"] == "2.04"
    port = first._wire.getsockname()[1]
    first.close(goodbye=False)  # as with a flat battery
    again = Device({**endpoint.probe(kitchen), "source_port": port})
    assert again._wire.getsockname()[1] == port
    assert again.ask(posting())["code"] == "2.04"
    again.close()


def test_there_is_one_session_a_device_and_a_limit_of_all(endpoint: Endpoint, kitchen: Credential, pki: Pki) -> None:
    with endpoint.device(kitchen) as first, endpoint.device(kitchen) as second:
        with pytest.raises(probes.Refused, match="cut"):
            first.hear(time.monotonic() + SECONDS)
        assert second.ask(posting())["code"] == "2.04"
        others = [Device(endpoint.probe(pki.ephemeral_client(f"other-{number}"))) for number in range(5)]
        with pytest.raises(probes.Refused, match="cut"):  # said least lately
            second.hear(time.monotonic() + SECONDS)
        for other in others:
            other.close()


def test_without_its_broker_it_says_so_and_goes_on_when_it_is_back(
    target: Target, broker: Broker, python: str, kitchen: Credential
) -> None:
    # A broker of its own, that can be taken away.
    with running(target_with_ports(target)) as other:
        moved = other.target
        with serving(moved, python) as here:
            here.until(lambda: here.number("connected") == 1, "not connected")
            assert codes(here.asked(kitchen, requests=[posting()])) == ["2.04"]
            other.process.send_signal(19)  # it stands still
            began = time.monotonic()
            (answer,) = here.asked(kitchen, requests=[posting()])["answers"]
            assert answer["code"] == "5.03" and time.monotonic() - began < 3
            assert bytes.fromhex(answer["data"]).endswith(b"\xd1\x01\x0a")  # Max-Age: ten seconds
            other.process.send_signal(18)
            here.until(lambda: codes(here.asked(kitchen, requests=[posting()])) == ["2.04"], "not taken again")
            other.process.kill()
            other.process.wait()
            here.until(lambda: here.number("connected") == 0, "still connected")
            assert codes(here.asked(kitchen, requests=[posting()])) == ["5.03"]
            assert here.stop() == 0
            seen = json.loads((here.root / files.SEEN[1:]).read_text())
            assert seen.keys() == {"kitchen-01"} and 0 <= time.time() - seen["kitchen-01"] < 300


def target_with_ports(target: Target) -> Target:
    """The same gateway at other ports."""
    services = []
    for each in target.site.services:
        fresh = {"mqtts": free_port, "coaps": free_datagram_port}
        listeners = tuple(
            one.model_copy(update={"port": fresh[one.name]()}) if one.name in fresh else one for one in each.listeners
        )
        services.append(each.model_copy(update={"listeners": listeners}))
    return Target(target.site.model_copy(update={"services": tuple(services)}), "gw", target.open_pki)


def test_the_endpoint_may_write_telemetry_and_nothing_else(broker: Broker, pki: Pki) -> None:
    with broker.client(pki.client("gatehouse-coap")) as own:
        assert own.publish(TOPIC) in (0, 16)
        for topic in ("devices/kitchen-01/status", "devices/kitchen-01/commands/x", "gateway/gw/alerts", "x"):
            assert own.publish(topic) == NOT_AUTHORISED


def test_files_with_which_it_could_not_begin_are_refused_in_one_line(
    target: Target, python: str, tmp_path: Path
) -> None:
    def checked(*changed: Any) -> subprocess.CompletedProcess[str]:
        for entry in [*everything(target), *changed]:
            path = tmp_path / entry.path.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(entry.content)
        command = [python, "-I", str(tmp_path / files.PROGRAM[1:]), "--check", str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    fine = checked()
    assert (fine.returncode, fine.stderr) == (0, "")
    trust = next(entry for entry in everything(target) if entry.path == files.TRUST)
    without_list = trust.content.partition(b"-----BEGIN X509 CRL")[0]
    bad = {
        files.TRUST: without_list, files.KEY: b"no key", files.CERTIFICATE: b"", files.SETTINGS: b"{}",
        files.DEVICES: b"{}", files.CLIENT: b"",
    }  # fmt: skip
    for path, content in bad.items():
        refused = checked(files.rendering.File(path, content))
        assert refused.returncode == 1 and refused.stderr.startswith("gatehouse-coap: "), (path, refused)
        assert refused.stderr.count("\n") == 1, refused.stderr
