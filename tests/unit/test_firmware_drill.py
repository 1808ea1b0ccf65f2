"""Signing firmware with the commands that the documentation gives, and with ones that can't work."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatehouse.identity import Vault
from gatehouse.updates import read
from gatehouse.updates.keys import trusted_keys
from tests.documented import example
from tests.unit.machine import INIT, Machine, commands


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    machine = Machine.new(tmp_path_factory.mktemp("machine"))
    machine.did(INIT)
    return machine


def test_the_documented_commands_make_keys_sign_an_image_and_replace_a_key(machine: Machine) -> None:
    no_keys = machine.sh("echo image >x.bin; ./kit firmware.sign x.bin --site home --model relay --version 1.0")
    assert (no_keys.returncode, no_keys.stdout) == (1, "")
    assert "no keys for firmware" in no_keys.stderr and "Traceback" not in no_keys.stderr

    signing, replacing, *_ = commands("firmware.md")
    manifest = "out/home/firmware.signed/relay/1.4.2.manifest"
    for line in (
        example("firmware.md", "./kit firmware.keys --site home"),
        example("firmware.md", f"./kit firmware.show {manifest} --image app.bin --site home"),
    ):
        assert line in signing
    said = machine.did(signing)
    first, second = trusted_keys(Vault.open(machine.vault, [machine.identity]))
    assert f"GATEHOUSE_FIRMWARE_KEY {{ 0x{first.hex(',').replace(',', ', 0x')} }}" in said
    assert "PRIVATE" not in said and said.count("counter   1") == 2  # sign and show say the same
    folder = machine.checkout / "out" / "home" / "firmware.signed" / "relay"
    assert (folder / "1.4.2.bin").read_bytes() == (machine.checkout / "app.bin").read_bytes()
    assert read((folder / "1.4.2.manifest").read_bytes()).keys == (first, second)

    machine.did(replacing)
    bridge = read((folder / "1.4.3.manifest").read_bytes())
    assert (bridge.counter, bridge.keys[0]) == (2, second)
    assert bridge.keys[1] not in (first, second)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("firmware.keys --replace both", "current or backup"),
        ("firmware.sign nowhere.bin --model relay --version 2.0", "can't be read"),
        ("firmware.sign empty.bin --model relay --version 2.0", "0 bytes"),
        ("firmware.sign huge.bin --model relay --version 2.0", "no slot holds"),
        ("firmware.sign y.bin --model relay --version 2.0 --expires soon", "--expires soon"),
        ("firmware.sign y.bin --model relay --version 2.0 --rollout 101%", "--rollout 101%"),
        ("firmware.sign y.bin --model relay --version 2.0 --device pump-02", "no device of model"),
        ("firmware.sign y.bin --model ../relay --version 2.0", "model '../relay'"),
        ("firmware.show y.bin", "is no manifest"),
        ("firmware.publish --model relay --version 1.4.3", "add updates=True"),
        ("firmware.status", "add updates=True"),
    ],
)
def test_what_can_t_work_is_said_in_a_line_and_leaves_everything_as_it_was(
    machine: Machine, command: str, said: str
) -> None:
    (machine.checkout / "y.bin").write_text("image")
    (machine.checkout / "empty.bin").touch()
    with (machine.checkout / "huge.bin").open("wb") as huge:
        huge.truncate(100 * 10**6)
    before = contents(machine)
    done = machine.sh(f"./kit {command} --site home")
    assert done.returncode == 1 and said in done.stderr and done.stderr.count("\n") == 1
    assert contents(machine) == before


def contents(machine: Machine) -> dict[Path, bytes | int]:
    """Of every file; of large ones how large."""
    found = [path for path in machine.checkout.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return {path: size if (size := path.stat().st_size) > 10**7 else path.read_bytes() for path in found}
