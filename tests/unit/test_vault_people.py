"""Who can open a vault: people come and go, and what they have seen is not forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatehouse.identity import store
from gatehouse.identity.store import CA_KEY
from gatehouse.identity.vault import Vault, VaultError, new_identity


@pytest.fixture
def anna(tmp_path: Path) -> Path:
    new_identity(tmp_path / "anna")
    return tmp_path / "anna"


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    new_identity(tmp_path / "bert")
    return tmp_path / "bert"


def key_of(identity: Path) -> str:
    return identity.read_text().splitlines()[0].removeprefix("# public key: ")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The time that the vault notes: the last of these."""
    times = ["2025-01-01T00:00:00Z"]
    for module in ("store", "vault"):
        monkeypatch.setattr(f"gatehouse.identity.{module}.now_text", lambda: times[-1])
    assert store.now_text() == times[0]
    return times


@pytest.fixture
def vault(tmp_path: Path, anna: Path, clock: list[str]) -> Vault:
    Vault.create(tmp_path / "home.age", [key_of(anna)])
    vault = Vault.open(tmp_path / "home.age", [anna])
    with vault.transaction():
        vault.set("mosquitto/token", "one")
        vault.set("pki/root/key", "two", CA_KEY)
        vault.set("pki/root/certificate", "public", "certificate")
    return vault


def refusal(call, *args) -> str:
    with pytest.raises(VaultError) as caught:
        call(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_new_recipient_opens_the_vault_and_a_stranger_does_not(vault, bert):
    assert "not among its recipients" in refusal(Vault.open, vault.where, [bert])
    vault.add_recipient(key_of(bert), "bert")
    theirs = Vault.open(vault.where, [bert])
    assert theirs.get_text("mosquitto/token") == "one"
    assert theirs.people.shown(key_of(bert)) == f"bert ({key_of(bert)})"


def test_adding_twice_changes_nothing_but_the_name(vault, anna, bert):
    vault.add_recipient(key_of(bert))
    generation = vault.generation
    vault.add_recipient(key_of(bert))
    assert (vault.recipients, vault.generation) == ((key_of(anna), key_of(bert)), generation)
    vault.add_recipient(key_of(bert), "bert")
    assert (vault.recipients, vault.people.names) == ((key_of(anna), key_of(bert)), {key_of(bert): "bert"})
    assert "another recipient's name" in refusal(vault.add_recipient, key_of(anna), "bert")


@pytest.mark.parametrize("name", ["a\nb", "x" * 61, "age1abc"])
def test_a_recipient_or_name_that_is_none_is_refused_and_not_quoted(vault, bert, name):
    secret_key = bert.read_text().splitlines()[1]
    message = refusal(vault.add_recipient, secret_key)
    assert "starts with 'age1'" in message and secret_key not in message
    assert "no name for a recipient" in refusal(vault.add_recipient, key_of(bert), name)
    vault.add_recipient(key_of(bert), "x" * 60)


@pytest.mark.parametrize("by", ["name", "key"])
def test_who_was_removed_opens_neither_the_vault_nor_the_generation_before(vault, anna, bert, by):
    vault.add_recipient(key_of(bert), "bert")
    copy = Path(vault.where).read_bytes()
    assert vault.remove_recipient("bert" if by == "name" else key_of(bert)) == key_of(bert)
    for file in (vault.where, vault.previous):
        assert "not among its recipients" in refusal(Vault.open, file, [bert])
        assert Vault.open(file, [anna]).get_text("mosquitto/token") == "one"
    Path(vault.where).write_bytes(copy)
    assert Vault.open(vault.where, [bert]).get_text("mosquitto/token") == "one"  # what they copied, they have


def test_what_a_leaver_has_seen_is_listed_until_it_is_replaced(vault, bert, clock):
    vault.add_recipient(key_of(bert), "bert")
    assert vault.exposed() == {}
    clock.append("2025-02-01T00:00:00Z")
    vault.remove_recipient("bert")
    assert list(vault.exposed()) == ["mosquitto/token", "pki/root/key"]
    assert [(who.name, who.when) for who in vault.exposed()["pki/root/key"]] == [("bert", clock[-1])]
    clock.append("2025-02-02T00:00:00Z")
    vault.set("mosquitto/token", "three")
    vault.set("mosquitto/other", "four")
    vault.save()
    vault.rekey()
    assert list(vault.exposed()) == ["pki/root/key"]
    vault.add_recipient(key_of(bert))
    assert vault.exposed() == {}  # who is back may know it


def test_nobody_shuts_himself_out_and_a_stranger_is_not_removed(vault, anna, bert):
    assert "have another recipient remove" in refusal(vault.remove_recipient, key_of(anna))
    vault.add_recipient(key_of(bert))
    assert "have another recipient remove" in refusal(vault.remove_recipient, key_of(anna))
    assert "is no recipient; name one that" in refusal(vault.remove_recipient, "carla")
    Vault.open(vault.where, [bert]).remove_recipient(key_of(anna))
    assert "not among its recipients" in refusal(Vault.open, vault.where, [anna])


def test_rekeying_encrypts_both_generations_anew_and_keeps_what_is_in_them(vault, anna):
    before = [Path(file).read_bytes() for file in (vault.where, vault.previous)]
    generation = vault.generation
    vault.rekey()
    after = [Path(file).read_bytes() for file in (vault.where, vault.previous)]
    assert not set(before) & set(after)
    again = Vault.open(vault.where, [anna])
    assert (again.get_text("mosquitto/token"), again.generation) == ("one", generation + 1)
    assert Vault.open(vault.previous, [anna]).generation == generation


def test_people_and_secrets_that_change_at_once_are_both_kept(vault, anna, bert):
    stale = Vault.open(vault.where, [anna])
    stale.set("mine", "x")
    vault.add_recipient(key_of(bert), "bert")
    stale.save()
    again = Vault.open(vault.where, [bert])
    assert (again.get_text("mine"), again.people.names) == ("x", {key_of(bert): "bert"})


def test_a_change_of_people_that_fails_leaves_them_as_they_were(vault, anna, bert):
    with pytest.raises(ZeroDivisionError), vault.transaction():
        vault.add_recipient(key_of(bert), "bert")
        1 / 0  # noqa: B018
    assert vault.recipients == Vault.open(vault.where, [anna]).recipients == (key_of(anna),)


def test_a_copy_is_restored_byte_for_byte_and_replaces_another_only_when_agreed_to(vault, anna, bert, tmp_path):
    copy = Path(vault.where).read_bytes()
    assert Vault.restore(tmp_path / "there" / "home.age", copy, [anna]).get_text("mosquitto/token") == "one"
    assert (tmp_path / "there" / "home.age").read_bytes() == copy
    vault.set("mosquitto/token", "newer")
    vault.save()
    newer = Path(vault.where).read_bytes()
    assert "there is another vault already" in refusal(Vault.restore, vault.where, copy, [anna])
    assert Path(vault.where).read_bytes() == newer
    assert Vault.restore(vault.where, copy, [anna], True).get_text("mosquitto/token") == "one"
    assert vault.previous.read_bytes() == newer
    for bad in (b"", copy[:-1], copy + b"x"):
        assert "damaged" in refusal(Vault.restore, vault.where, bad, [anna], True)
    assert "not among its recipients" in refusal(Vault.restore, vault.where, copy, [bert], True)
    assert Path(vault.where).read_bytes() == copy
