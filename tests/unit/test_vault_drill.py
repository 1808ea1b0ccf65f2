"""Losing the vault: the documented commands, and nothing else, bring a site back on another machine."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gatehouse.identity import Pki, Vault, new_identity
from tests.unit.machine import INIT, Machine, commands

DRILL = commands("vault.md")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A machine with a site, whose PKI has revoked one device; and that device's serial number."""
    machine = Machine.new(tmp_path_factory.mktemp("made"))
    machine.did(INIT)
    vault = Vault.open(machine.vault, [machine.identity])
    vault.set("mosquitto/influx-token", "correct-horse")
    pki = Pki(vault, "home", "home.internal").ensure()
    serial = pki.device("lost-01").serial
    pki.revoke(serial, "keyCompromise")
    vault.save()
    return machine.home.parent, serial


@pytest.fixture
def site(made: tuple[Path, int], tmp_path: Path) -> tuple[Machine, int]:
    """A machine like that, for one test."""
    folder = shutil.copytree(made[0], tmp_path / "one")
    return Machine(folder / "checkout", folder / "home"), made[1]


def places(tmp_path: Path, script: str) -> str:
    """The drill with its two places where this test may write, and nothing else changed."""
    for place in ("safe", "drawer"):
        (tmp_path / place).mkdir(exist_ok=True)
        script = script.replace(f"=/media/{place} ", f"={tmp_path / place} ")
    return script


def test_the_drill_as_documented_brings_the_site_back_on_another_machine(site, tmp_path):
    one, serial = site
    assert len(DRILL) == 2
    before, after = DRILL
    assert "vault.backup" in before and "vault.restore" in after
    one.did(places(tmp_path, before))
    old = Vault.open(one.vault, [one.identity])
    lost = {
        path.relative_to(one.checkout): path.read_bytes() for path in sorted(one.checkout.glob("inventories/**/home*"))
    }
    shutil.rmtree(one.home.parent)

    two = Machine.new(tmp_path / "two")
    shown = two.did(after, SAFE=str(tmp_path / "safe"), DRAWER=str(tmp_path / "drawer"))
    assert "mosquitto/influx-token" in shown and "correct-horse" not in shown
    assert {path: (two.checkout / path).read_bytes() for path in lost if path.suffix not in (".lock", ".previous")} == {
        path: content for path, content in lost.items() if path.suffix not in (".lock", ".previous")
    }
    new = Vault.open(two.vault, [two.identity])
    assert new.get_text("mosquitto/influx-token") == "correct-horse"
    assert new.get_authority_key("pki/root/key") == old.get_authority_key("pki/root/key")
    assert set(Pki(new, "home", "home.internal").revoked()) == {serial}
    assert two.did("./kit vault.show --site home --name mosquitto/influx-token") == "correct-horse"


def test_a_backup_is_nobody_elses_and_opens_with_the_sites_identity_only(site, tmp_path):
    machine, _ = site
    backup = tmp_path / "home.backup"
    machine.did(f"./kit vault.backup {backup} --site home")
    assert backup.stat().st_mode & 0o777 == 0o600
    assert b"correct-horse" not in backup.read_bytes() and b"192.0.2.1" not in backup.read_bytes()
    new_identity(tmp_path / "stranger")
    refused = machine.sh(f"./kit vault.restore {backup} --site home", GATEHOUSE_IDENTITY=str(tmp_path / "stranger"))
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "this identity can't open it" in refused.stderr
    assert "there already" in machine.did(f"./kit vault.restore {backup} --site home")


def test_a_newer_vault_is_replaced_only_when_agreed_to_and_then_kept_beside(site, tmp_path):
    machine, serial = site
    backup = tmp_path / "home.backup"
    machine.did(f"./kit vault.backup {backup} --site home")
    vault = Vault.open(machine.vault, [machine.identity])
    vault.set("later", "on")
    vault.save()
    newer = machine.vault.read_bytes()

    refused = machine.sh(f"./kit vault.restore {backup} --site home")
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "another vault already (--yes replaces it" in refused.stderr
    assert machine.vault.read_bytes() == newer

    machine.did(f"./kit vault.restore {backup} --site home --yes")
    restored = Vault.open(machine.vault, [machine.identity])
    assert "later" not in restored and restored.get_text("mosquitto/influx-token") == "correct-horse"
    assert restored.previous.read_bytes() == newer


def test_what_the_registry_has_as_revoked_is_revoked_again_after_an_older_backup_came_back(site, tmp_path):
    machine, serial = site
    backup = tmp_path / "home.backup"
    machine.did(f"./kit vault.backup {backup} --site home")
    registry = machine.checkout / "inventories" / "devices" / "home.toml"
    with registry.open("a") as file:
        file.write(
            '\n[[device]]\nname = "pump-02"\nmodel = "esp32"\ngateway = "gateway"\n'
            'status = "revoked"\nserials = ["abc123"]\n'
        )
    said = machine.did(f"./kit vault.restore {backup} --site home --yes")
    assert "devices/home.toml: left as it is here" in said
    assert "1 certificates of devices that the registry has as revoked: revoked again" in said
    assert {serial, 0xABC123} <= set(
        Pki(Vault.open(machine.vault, [machine.identity]), "home", "home.internal").revoked()
    )


@pytest.mark.parametrize("content", [b"", b"no backup", b"age-encryption.org/v1\n-> X25519 junk\n"])
def test_what_is_no_backup_is_refused_in_one_line_and_never_overwritten(site, tmp_path, content):
    machine, _ = site
    file = tmp_path / "file"
    file.write_bytes(content)
    for command in ("backup", "restore"):
        refused = machine.sh(f"./kit vault.{command} {file} --site home")
        assert (refused.returncode, refused.stderr.count("\n")) == (1, 1), refused.stderr
        assert f"{file}: damaged, or no backup of a site" in refused.stderr
    assert file.read_bytes() == content


def test_a_backup_of_another_site_is_not_taken_for_this_one(site, tmp_path):
    machine, _ = site
    backup = tmp_path / "home.backup"
    machine.did(f"./kit vault.backup {backup} --site home")
    refused = machine.sh(f"./kit vault.restore {backup} --site shed", GATEHOUSE_IDENTITY=str(machine.identity))
    assert (refused.returncode, "is a backup of site 'home'" in refused.stderr) == (1, True)
    missing = machine.sh(f"./kit vault.restore {tmp_path}/nowhere --site home")
    assert (missing.returncode, missing.stderr) == (
        1,
        f"{tmp_path}/nowhere: No such file or directory (name the backup's file)\n",
    )


def test_a_secret_is_printed_only_when_asked_for_by_name_and_an_authoritys_key_never(site):
    machine, _ = site
    assert "correct-horse" not in machine.did("./kit vault.show --site home")
    assert machine.did("./kit vault.show --site home --name mosquitto/influx-token") == "correct-horse"
    refused = machine.sh("./kit vault.show --site home --name pki/root/key")
    assert (refused.returncode, refused.stdout, "authority's private key" in refused.stderr) == (1, "", True)
    assert "BEGIN" not in refused.stderr


def test_a_colleague_comes_and_goes_and_what_must_be_replaced_is_listed(site, tmp_path):
    machine, _ = site
    recipient = new_identity(tmp_path / "anna")
    assert "anna (age1" in machine.did(f"./kit vault.add-recipient {recipient} --name anna --site home")
    as_anna = {"GATEHOUSE_IDENTITY": str(tmp_path / "anna")}
    assert "mosquitto/influx-token" in machine.did("./kit vault.show --site home", **as_anna)
    said = machine.did("./kit vault.remove-recipient anna --site home")
    assert "mosquitto/influx-token (seen by anna)" in said
    assert "pki/devices/key (seen by anna): ./kit ca.rollover --role devices" in said
    assert "pki/devices/certificate" not in said
    assert "not among its recipients" in machine.sh("./kit vault.show --site home", **as_anna).stderr
    assert machine.did("./kit vault.rekey --site home").splitlines()[1:] == said.splitlines()[1:]
