"""Rolling an authority over with the commands that the documentation gives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gatehouse.identity import Pki, Vault
from tests.documented import example
from tests.unit.machine import INIT, Machine, commands


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine.new(tmp_path)
    machine.did(INIT)
    machine.did("./kit ca.status --site home")  # makes the authorities
    return machine


def pki(machine: Machine) -> Pki:
    return Pki(Vault.open(machine.vault, [machine.identity]), "home", "home.internal")


def status(machine: Machine) -> dict[str, tuple[str, bool]]:
    rows = json.loads(machine.did("./kit ca.status --json --site home"))
    assert all(0 <= row["left"] <= 1 for row in rows)
    return {row["name"].rsplit(" ", 1)[-1]: (row["state"], row["needs_care"]) for row in rows if " CA " in row["name"]}


def enter(machine: Machine, serial: int, made: str) -> None:
    """What enrolling and renewing write: the registry's entry of one device."""
    registry = machine.checkout / "inventories" / "devices" / "home.toml"
    head = registry.read_text().partition("\n[[device]]")[0]
    registry.write_text(
        f'{head}\n[[device]]\nname = "pump-02"\nmodel = "esp32"\ngateway = "gateway"\n'
        f'serials = ["{serial:x}"]\nnot_before = {made}\n'
    )


def test_the_roll_over_as_documented_waits_for_the_device_that_moves_late(machine):
    (steps,) = (block for block in commands("pki.md") if "ca.rollover" in block)
    mine = [line for line in steps.splitlines() if "./kit ca." in line]
    assert [line.split()[1] for line in mine] == ["ca.rollover", "ca.rollover", "ca.drop"]
    assert mine[2].startswith(example("pki.md", "./kit ca.drop --role devices --site home"))
    old, device = pki(machine).rollover("devices").issuing, pki(machine).device("pump-02")
    enter(machine, device.serial, f"{device.not_before:%Y-%m-%dT%H:%M:%SZ}")

    said = machine.did(mine[0])
    new = pki(machine).rollover("devices").coming
    assert f"devices CA {new} is made and trusted, {old} issues still" in said
    assert machine.did(mine[0]) == said  # once more: no other one is made
    assert machine.did(mine[1]).startswith(f"devices CA {new} issues; trusted still: {old}.")
    assert machine.did(mine[1]).startswith(f"devices CA {new} issues; trusted still: {old}.")
    assert {old: "former", new: "issuing"}.items() <= {
        name: state for name, (state, _) in status(machine).items()
    }.items()

    refused = machine.sh(mine[2])
    assert (refused.returncode, refused.stderr) == (
        1, f"devices CA {old}: 1 need it still (pump-02); renew them, or force it\n"
    )  # fmt: skip
    enter(machine, device.serial, "2099-01-01T00:00:00Z")
    assert machine.did(mine[2]).startswith(f"devices CA {old}: forgotten, key destroyed.")
    assert machine.did(mine[2]) == "there is no former devices CA\n"
    assert old not in status(machine)


def test_without_preparation_nothing_is_switched_and_a_wrong_role_is_refused(machine):
    issuing = pki(machine).rollover("devices").issuing
    assert "no devices CA is prepared" in machine.did("./kit ca.rollover --role devices --issue --site home")
    assert pki(machine).rollover("devices").issuing == issuing
    refused = machine.sh("./kit ca.rollover --role root --site home")
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "a new root is a new identity for every device" in refused.stderr
