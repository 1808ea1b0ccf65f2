"""A simulated device at the update server that a gateway has: nginx, as the role renders it."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from roles.target import Target
from tests.device.bench import HOST, Bench, Device, an_image
from tests.roles.updateserver import ADDRESS, NAME, PORT, Server, serving

FLOOD = 1000  # requests at most, many times what a device may ask for in a minute
STRANGERS = 100  # connections that say nothing


@pytest.fixture
def device(bench: Bench) -> Device:
    found = bench.device("pump-02")
    found.configure(server=f"https://{HOST}:{PORT}/", server_address=ADDRESS, server_port=PORT)
    return found


@pytest.fixture
def server(
    bench: Bench, device: Device, gateway_of: Callable[..., Target], programs: Callable[..., None], tmp_path: Path
) -> Iterator[Server]:
    """It has a release for `pump-02`, and knows another device, of another model."""
    programs("nginx", "nginx")
    assert NAME == HOST
    pki = bench.broker.target.pki
    credentials = {**bench.credentials, "lamp-07": pki.device("lamp-07"), "stranger": pki.device("stranger")}
    image = an_image("1.1", size=60_000)
    manifest = bench.sign(image, "1.1", url=f"https://{HOST}:{PORT}/relay/1.1.bin")
    contents = {"relay/1.1.bin": image, "relay/manifest": manifest, "lamp/manifest": b"none"}
    (folder := tmp_path / "nginx").mkdir()
    with serving(gateway_of, folder, pki, credentials, {"pump-02": "relay", "lamp-07": "lamp"}, contents) as found:
        yield found


def takes(device: Device) -> None:
    assert device.check() == "installed"
    assert (device.start().prove, device.start().running) == ("confirmed", "1.1")


def test_a_device_gets_its_update_while_another_and_strangers_flood_the_server(server: Server, device: Device) -> None:
    answers: list[int] = []
    ends = threading.Event()

    def flood() -> None:
        for _ in range(FLOOD):
            if ends.is_set():
                return
            with contextlib.suppress(OSError):
                answers.append(server.ask("lamp-07", "/lamp/manifest")[0])

    floods = [threading.Thread(target=flood, daemon=True) for _ in range(3)]
    with contextlib.ExitStack() as stack:
        for _ in range(STRANGERS):
            stack.enter_context(socket.create_connection((ADDRESS, PORT), 5))
        for each in floods:
            each.start()
        try:
            until = time.monotonic() + 60
            while set(answers) <= {200} and time.monotonic() < until:
                time.sleep(0.05)
            # Who asks too much has to wait, and nobody else.
            assert answers[:1] == [200] and not set(answers) <= {200}, Counter(answers)
            takes(device)
        finally:
            ends.set()
            for each in floods:
                each.join(30)


def test_an_image_is_read_by_nobody_but_the_models_own_devices(server: Server, device: Device) -> None:
    image = (server.served / "relay/1.1.bin").read_bytes()
    for who in (None, "stranger", "lamp-07"):
        status, said = server.ask(who, "/relay/1.1.bin")
        assert status in (400, 403) and image[:64] not in said, who
    with socket.create_connection((ADDRESS, PORT), 5) as plain:
        plain.sendall(f"GET /relay/1.1.bin HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n".encode())
        heard = b""
        while some := plain.recv(65_536):
            heard += some
    assert b" 400 " in heard[:20] and image[:64] not in heard
    assert server.ask("pump-02", "/relay/1.1.bin") == (200, image)
    takes(device)
