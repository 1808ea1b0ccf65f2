"""Enrolment that is killed, or whose disk is full: the next run finishes it, and nothing half made is ever a device."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gatehouse.errors import GatehouseError
from gatehouse.identity import bundle as bundles
from gatehouse.identity import enrolment
from gatehouse.identity.enrolment import Request, hmac_secret
from tests.unit.enrolling import House, a_house, a_request

NAMES = ["one", "two", "three"]
STEPS = ("mkdir", "open", "write", "link", "fsync", "replace", "unlink")


@pytest.fixture
def house(tmp_path: Path) -> House:
    return a_house(tmp_path)


def whole(house: House, names: list[str]) -> None:
    """Every device has one identity: in its bundle, in the registry and in the vault alike."""
    devices, vault = house.devices(), house.vault()
    assert list(devices) == names
    assert sorted(path.name for path in house.out.iterdir() if path.is_dir()) == sorted(names)
    for name, device in devices.items():
        found = bundles.read(house.out / name)
        assert found is not None
        certificate = x509.load_pem_x509_certificate(found.certificate_pem)
        assert device.serials[0] == f"{certificate.serial_number:x}" == found.serial
        assert found.key_pem is None or (
            serialization.load_pem_private_key(found.key_pem, None).public_key() == certificate.public_key()
        )
        assert vault.get_text(hmac_secret(name, 1)) == found.hmac_key.hex()
    assert vault.names("devices/") == sorted(hmac_secret(name, 1) for name in names)
    assert [path for path in house.root.rglob("*") if path.name.endswith(".new")] == []


def in_child(work: Callable[[], Any]) -> int:
    """Run in a forked child; returns the number of the signal that ended it, 0 when none did."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    status = os.waitpid(child, 0)[1]
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def killed_at(house: House, step: int, enrol: Callable[[], Any]) -> bool:
    """Enrol in a child that is killed before its step-th change of the file system; False when it had fewer."""

    def work() -> None:
        count = 0

        def counted(real: Callable[..., Any]) -> Callable[..., Any]:
            def wrapper(*args: Any, **named: Any) -> Any:
                nonlocal count
                count += 1
                if count == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **named)

            return wrapper

        for name in STEPS:
            setattr(os, name, counted(getattr(os, name)))
        enrol()

    return in_child(work) == signal.SIGKILL


def test_killed_at_any_step_the_next_run_finishes_and_all_is_whole(tmp_path: Path) -> None:
    step, registered = 0, set()
    while True:
        step += 1
        root = tmp_path / str(step)
        root.mkdir()
        house = a_house(root)
        if not killed_at(house, step, lambda: house.enrol(*NAMES)):  # noqa: B023 - run at once
            break
        registered.add(len(house.devices()))
        for name, device in house.devices().items():
            assert bundles.read(house.out / name) is not None, "a registered device has its bundle"
            assert device.serials
        house.enrol(*NAMES)
        whole(house, NAMES)
    whole(house, NAMES)
    assert step > 60
    assert registered == {0, 3}


def test_a_whole_bundle_that_a_killed_run_left_is_taken_up_as_it_is(house: House, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(enrolment.bundles, "settle", lambda directory: os.kill(os.getpid(), signal.SIGKILL))
        assert in_child(lambda: house.enrol(*NAMES)) == signal.SIGKILL
    before = {name: bundles.read(house.out / name) for name in NAMES}
    assert house.devices() == {}
    house.enrol(*NAMES)
    whole(house, NAMES)
    assert {name: bundles.read(house.out / name) for name in NAMES} == before


@pytest.mark.parametrize(
    "spoil",
    [
        lambda place: (place / "bundle.json").unlink(),
        lambda place: (place / "bundle.json").write_text("{"),
        lambda place: (place / "bundle.json").write_text((place / "bundle.json").read_text().replace("esp32", "esp8")),
        lambda place: (place / "hmac.key").write_text("0" * 64),
        lambda place: (place / "hmac.key").write_text("nonsense"),
        lambda place: (place / "certificate.pem").write_bytes((place / "ca.pem").read_bytes()),
        lambda place: (place / "key.pem").write_bytes(
            ec.generate_private_key(ec.SECP256R1()).private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        ),
        lambda place: (place / "key.pem").unlink(),
        lambda place: (place / "nested").mkdir(),
    ],
    ids=["unfinished", "cut off", "other facts", "other HMAC key", "no HMAC key", "other certificate", "other key",
         "no key", "more in it"],
)  # fmt: skip
def test_a_bundle_that_is_not_as_it_should_be_is_made_anew_until_it_is_registered(
    house: House, monkeypatch, spoil
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(enrolment.bundles, "settle", lambda directory: os.kill(os.getpid(), signal.SIGKILL))
        assert in_child(lambda: house.enrol(*NAMES)) == signal.SIGKILL
    spoil(house.out / "two")
    house.enrol(*NAMES)
    whole(house, NAMES)


def test_the_certificate_of_a_bundle_that_is_replaced_can_still_be_revoked(house: House, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(enrolment.bundles, "settle", lambda directory: os.kill(os.getpid(), signal.SIGKILL))
        assert in_child(lambda: house.enrol("one")) == signal.SIGKILL
    left = bundles.read(house.out / "one")
    assert left is not None
    house.enroller().enrol([Request("one", "esp32", csr=a_request("one"))])
    serials = house.devices()["one"].serials
    assert (len(serials), serials[1]) == (2, left.serial)
    assert serials[0] != left.serial


def test_a_bundle_of_another_site_or_of_a_lab_that_is_gone_leaves_nothing_behind(house: House, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = a_house(tmp_path / "other")
    other.enrol("one")
    house.out.parent.mkdir()
    other.out.rename(house.out)
    house.enrol("one")
    whole(house, ["one"])
    assert len(house.devices()["one"].serials) == 1


def test_killed_between_batches_only_the_rest_is_left_to_do(house: House, monkeypatch) -> None:
    monkeypatch.setattr(enrolment, "BATCH", 2)
    names = [f"d{number}" for number in range(7)]

    def work() -> None:
        requests = [Request(name, "esp32") for name in names]
        house.enroller().enrol(
            requests, progress=lambda done, total: done == 4 and os.kill(os.getpid(), signal.SIGKILL)
        )

    assert in_child(work) == signal.SIGKILL
    before = house.devices()
    assert list(before) == names[:4]
    outcome = house.enroller().enrol([Request(name, "esp32") for name in names])
    assert (outcome.already, outcome.enrolled) == (names[:4], names[4:])
    assert {name: device for name, device in house.devices().items() if name in before} == before
    whole(house, names)


def test_a_process_that_is_killed_at_any_moment_can_be_run_again(house: House) -> None:
    script = (
        "import sys; from pathlib import Path; from tests.unit.enrolling import House, a_site;"
        "House(Path(sys.argv[1]), a_site()).enrol(*(f'd{n}' for n in range(400)))"
    )
    command = [sys.executable, "-c", script, str(house.root)]
    for delay in (0.9, 1.2, 1.5):
        child = subprocess.Popen(command)
        try:
            child.wait(delay)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    subprocess.run(command, check=True)
    whole(house, [f"d{number}" for number in range(400)])


@pytest.mark.parametrize("failing", ["mkdir", "write", "fsync", "replace", "open"])
@pytest.mark.parametrize("at", [1, 2, 3, 5, 12, 29, 30, 31, 33])
def test_a_full_disk_is_told_in_one_line_and_the_next_run_finishes(house: House, monkeypatch, failing, at) -> None:
    real, count = getattr(os, failing), 0

    def fails(*args: Any, **named: Any) -> Any:
        nonlocal count
        count += 1
        if count >= at:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args, **named)

    enroller = house.enroller()
    with monkeypatch.context() as patch:
        patch.setattr(os, failing, fails)
        try:
            enroller.enrol([Request(name, "esp32") for name in NAMES])
        except GatehouseError as error:
            message = str(error)
        else:
            message = ""
    assert (count < at) == (message == ""), "it failed when the disk was full, and only then"
    if message:
        assert "No space left on device" in message
        assert "\n" not in message
    house.enrol(*NAMES)
    whole(house, NAMES)
