"""The vault keeps what it is given, shows it to its recipients only, and says what is wrong when it can't."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pyrage
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gatehouse.errors import GatehouseError
from gatehouse.identity.store import CA_KEY, SecretStore
from gatehouse.identity.vault import Vault, VaultError, new_identity

SECRET = "correct-horse-battery"


@pytest.fixture
def identity(tmp_path: Path) -> Path:
    new_identity(tmp_path / "operator.age-key")
    return tmp_path / "operator.age-key"


def recipient(identity: Path) -> str:
    return identity.read_text().splitlines()[0].removeprefix("# public key: ")


@pytest.fixture
def path(tmp_path: Path, identity: Path) -> Path:
    path = tmp_path / "vaults" / "home.age"
    with Vault.create(path, [recipient(identity)]).transaction() as secrets:
        secrets.set("mosquitto/token", SECRET)
    return path


def refusal(call, *args, **named) -> str:
    with pytest.raises(VaultError) as caught:
        call(*args, **named)
    message = str(caught.value)
    assert "\n" not in message
    assert SECRET not in message
    return message


def test_what_was_set_is_there_after_it_is_opened_again(path, identity):
    vault = Vault.open(path, [identity])
    vault.set("binary", b"\x00\xff\xfe")
    vault.set("text", "Zürich\n")
    vault.save()
    again = Vault.open(path, [str(identity)])
    assert again.names() == ["binary", "mosquitto/token", "text"]
    assert again.names("mosq") == ["mosquitto/token"]
    assert (again.get("binary"), again.get_text("text")) == (b"\x00\xff\xfe", "Zürich\n")
    assert again.about("text").kind == "secret"
    assert again.about("text").created.endswith("Z")


@given(
    secrets=st.dictionaries(
        st.from_regex(r"[a-z0-9]{1,8}(/[a-z0-9]{1,8})?", fullmatch=True), st.binary(max_size=64) | st.text(max_size=64)
    )
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_and_any_text_come_back_as_they_were(path, identity, secrets):
    Vault.create(path, [recipient(identity)], overwrite=True)
    vault = Vault.open(path, [identity])
    try:
        wanted = {name: value.encode() if isinstance(value, str) else value for name, value in secrets.items()}
    except UnicodeEncodeError:
        return  # a lone surrogate is no text
    for name, value in secrets.items():
        vault.set(name, value)
    vault.save()
    again = Vault.open(path, [identity])
    assert {name: again.get(name) for name in again.names()} == wanted


def test_obtain_makes_a_secret_once_and_saves_it_at_once(path, identity):
    made = iter([b"first", b"second"])
    assert Vault.open(path, [identity]).obtain("grafana/admin", lambda: next(made)) == b"first"
    assert Vault.open(path, [identity]).obtain("grafana/admin", lambda: next(made)) == b"first"
    assert next(made) == b"second"


def test_a_deleted_secret_is_gone_and_the_others_stay(path, identity):
    vault = Vault.open(path, [identity])
    vault.set("other", "x")
    vault.delete("mosquitto/token")
    vault.save()
    again = Vault.open(path, [identity])
    assert again.names() == ["other"]
    assert "no secret named 'mosquitto/token'" in refusal(again.get, "mosquitto/token")


def test_setting_the_same_value_changes_nothing_on_disk(path, identity):
    before = path.read_bytes()
    vault = Vault.open(path, [identity])
    vault.set("mosquitto/token", SECRET)
    vault.save()
    assert path.read_bytes() == before
    vault.set("mosquitto/token", "another")
    vault.save()
    assert path.read_bytes() != before


def test_the_generation_before_is_kept_and_opens(path, identity):
    vault = Vault.open(path, [identity])
    generation = vault.generation
    vault.set("mosquitto/token", "new")
    vault.save()
    assert (vault.get_text("mosquitto/token"), vault.generation) == ("new", generation + 1)
    old = Vault.open(vault.previous, [identity])
    assert (old.get_text("mosquitto/token"), old.generation) == (SECRET, generation)


def test_every_file_is_the_owners_alone_whatever_the_umask_and_nothing_else_is_left(path, identity):
    old = os.umask(0)
    try:
        vault = Vault.open(path, [identity])
        vault.set("a", "b")
        vault.save()
        new_identity(path.parent / "id")
    finally:
        os.umask(old)
    modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    assert modes == dict.fromkeys(["home.age", "home.age.previous", "home.age.lock", "id"], 0o600)


def test_each_recipient_opens_it_after_any_of_them_saved(tmp_path, identity):
    new_identity(tmp_path / "second")
    path = tmp_path / "two.age"
    Vault.create(path, [recipient(identity), recipient(tmp_path / "second")])
    second = Vault.open(path, [tmp_path / "second"])
    second.set("a", SECRET)
    second.save()
    assert Vault.open(path, [identity]).get_text("a") == SECRET
    assert Vault.open(path, [tmp_path / "second"]).recipients == (recipient(identity), recipient(tmp_path / "second"))


def test_plain_age_alone_can_rescue_the_content(path, identity):
    secret_key = identity.read_text().splitlines()[1]
    plain = pyrage.decrypt(path.read_bytes(), [pyrage.x25519.Identity.from_str(secret_key)])
    assert json.loads(plain)["secrets"]["mosquitto/token"]["text"] == SECRET
    if shutil.which("age"):
        rescued = subprocess.run(["age", "-d", "-i", identity, path], capture_output=True, check=True).stdout
        assert rescued == plain


def test_no_repr_shows_a_secret_or_an_identity(path, identity):
    vault = Vault.open(path, [identity])
    assert repr(vault) == f"<Vault {path}: 1 secrets, 1 recipients>"
    assert SECRET not in repr(vault.about("mosquitto/token"))
    assert SECRET not in repr(vars(vault)["_entries"])
    assert SECRET.encode() not in path.read_bytes()


def test_an_authoritys_private_key_is_not_handed_out_like_other_secrets(path, identity):
    vault = Vault.open(path, [identity])
    vault.set("pki/root/key", SECRET, CA_KEY)
    vault.set("pki/root/certificate", "public")
    vault.save()
    again = Vault.open(path, [identity])
    assert "authority's private key" in refusal(again.get, "pki/root/key")
    assert "authority's private key" in refusal(again.get_text, "pki/root/key")
    assert "authority's private key" in refusal(again.obtain, "pki/root/key", lambda: b"")
    assert again.get_text("pki/root/certificate") == "public"
    assert again.get_authority_key("pki/root/key") == SECRET.encode()
    assert "no key of a certification authority" in refusal(again.get_authority_key, "pki/root/certificate")


@pytest.mark.parametrize("name", ["", "/a", "a/", "a//b", "A", "a b", "../a", "a\n", "é", "a" * 201])
def test_an_odd_name_is_refused(name):
    store = SecretStore()
    assert "is no name for a secret" in refusal(store.set, name, SECRET)
    store.set("a/b-c_d.e", SECRET)
    assert store.names() == ["a/b-c_d.e"]


def test_binary_is_not_given_out_as_text():
    store = SecretStore()
    store.set("raw", b"\xff" + SECRET.encode())
    assert "raw is binary" in refusal(store.get_text, "raw")
    assert store.get("raw")[0] == 0xFF


# what can be wrong with the files


def test_a_missing_vault_says_how_to_make_one(tmp_path, identity):
    message = refusal(Vault.open, tmp_path / "shed.age", [identity])
    assert message.startswith(f"{tmp_path}/shed.age: no vault; `./kit init shed` makes one")


def test_a_vault_that_is_there_is_not_replaced_unless_asked(path, identity):
    before = path.read_bytes()
    assert "there is a vault already" in refusal(Vault.create, path, [recipient(identity)])
    assert path.read_bytes() == before
    Vault.create(path, [recipient(identity)], overwrite=True)
    assert Vault.open(path, [identity]).names() == []
    assert Vault.open(f"{path}.previous", [identity]).names() == ["mosquitto/token"]


def test_a_vault_needs_real_recipients(tmp_path, identity):
    secret_key = identity.read_text().splitlines()[1]
    message = refusal(Vault.create, tmp_path / "x.age", [secret_key])
    assert "starts with 'age1'" in message
    assert secret_key not in message
    assert "at least one recipient" in refusal(Vault.create, tmp_path / "x.age", [])
    assert not (tmp_path / "x.age").exists()


def test_a_wrong_identity_is_told_from_a_damaged_file(path, identity, tmp_path):
    stranger = new_identity(tmp_path / "stranger")
    message = refusal(Vault.open, path, [tmp_path / "stranger"])
    assert "not among its recipients" in message
    assert stranger in message
    assert Vault.open(path, [tmp_path / "stranger", identity]).get_text("mosquitto/token") == SECRET


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_bytes_give_one_clear_error(path, identity, data):
    good = path.read_bytes()
    kind = data.draw(st.sampled_from(["truncated", "flipped", "junk", "tail"]))
    if kind == "truncated":
        bad = good[: data.draw(st.integers(0, len(good) - 1))]
    elif kind == "flipped":
        at = data.draw(st.integers(0, len(good) - 1))
        bad = good[:at] + bytes([good[at] ^ data.draw(st.integers(1, 255))]) + good[at + 1 :]
    elif kind == "junk":
        bad = data.draw(st.binary(max_size=400))
    else:
        bad = good + data.draw(st.binary(min_size=1, max_size=40))
    bad_path = path.with_name("bad.age")
    bad_path.write_bytes(bad)
    message = refusal(Vault.open, bad_path, [identity])
    assert "damaged" in message or "not among its recipients" in message
    assert Vault.open(path, [identity]).get_text("mosquitto/token") == SECRET


def test_a_damaged_vault_points_at_the_generation_before_it_when_there_is_one(path, identity):
    vault = Vault.open(path, [identity])
    vault.previous.unlink()
    path.write_bytes(b"")
    assert "restore it from its backup" in refusal(Vault.open, path, [identity])
    vault.previous.write_bytes(b"x")
    assert "home.age.previous" in refusal(Vault.open, path, [identity])


@given(
    document=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(
                    ["format", "generation", "recipients", "secrets", "text", "base64", "kind", "created", "a"]
                ),
                inner,
            )
        ),
        max_leaves=12,
    )
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_age_file_that_holds_no_vault_is_refused(tmp_path, identity, document):
    path = tmp_path / "odd.age"
    key = pyrage.x25519.Recipient.from_str(recipient(identity))
    for content in (
        document,
        {"format": 1, "secrets": document},
        {"format": 1, "generation": 1, "recipients": document},
    ):
        path.write_bytes(pyrage.encrypt(json.dumps(content).encode(), [key]))
        message = refusal(Vault.open, path, [identity])
        assert "holds no vault" in message or "newer version" in message


def test_a_vault_of_a_newer_kit_is_refused_by_name(path, identity):
    key = pyrage.x25519.Recipient.from_str(recipient(identity))
    path.write_bytes(pyrage.encrypt(json.dumps({"format": 2, "secrets": {"a": {"text": SECRET}}}).encode(), [key]))
    assert "newer version of the kit" in refusal(Vault.open, path, [identity])


def test_no_exception_on_the_way_carries_a_secret(path, identity):
    key = pyrage.x25519.Recipient.from_str(recipient(identity))
    path.write_bytes(pyrage.encrypt(f'{{"secrets": {{"a": "{SECRET}"'.encode(), [key]))
    with pytest.raises(VaultError) as caught:
        Vault.open(path, [identity])
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in f"{error!r} {vars(error)} {getattr(error, 'doc', '')}"
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_an_identity_that_others_can_read_is_refused(path, identity, mode):
    identity.chmod(mode)
    assert f"mode {mode:04o}); chmod 600 {identity}" in refusal(Vault.open, path, [identity])
    identity.chmod(0o600)
    assert Vault.open(path, [identity]).get_text("mosquitto/token") == SECRET


def test_an_identity_file_that_is_missing_or_holds_none_is_named(path, identity, tmp_path):
    assert f"{tmp_path}/nowhere: no such identity file" in refusal(Vault.open, path, [tmp_path / "nowhere"])
    assert "can't be read (Is a directory)" in refusal(Vault.open, path, [tmp_path])
    assert "no age identity given" in refusal(Vault.open, path, [])
    broken = tmp_path / "broken"
    secret_key = identity.read_text().splitlines()[1]
    # The last is a marker with no key behind it.
    for text in (b"", b"# only a comment\n", b"\xff\xfe\x00", secret_key[:-2].encode(), b"AGE-SECRET-KEY-1QQQ"):
        broken.write_bytes(text)
        broken.chmod(0o600)
        message = refusal(Vault.open, path, [broken])
        assert message.startswith(f"{broken}: no age identity")
        assert secret_key[:30] not in message


def test_an_identity_may_be_given_as_its_secret_key(path, identity):
    secret_key = identity.read_text().splitlines()[1]
    assert Vault.open(path, [secret_key]).get_text("mosquitto/token") == SECRET
    message = refusal(Vault.open, path, [secret_key[:-1]])
    assert message.startswith("the age identity given: no age identity")
    assert secret_key[:-1] not in message


def test_a_new_identity_never_replaces_one(identity):
    before = identity.read_bytes()
    assert "there is an identity already" in refusal(new_identity, identity)
    assert identity.read_bytes() == before
    assert [file.name for file in identity.parent.iterdir() if file.name.startswith(".")] == []
    assert issubclass(VaultError, GatehouseError)
