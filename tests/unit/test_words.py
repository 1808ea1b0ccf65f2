"""What is looked for in a log: the digests of secrets' words, found wherever a word of the log is one of them."""

from __future__ import annotations

import hashlib
import json
import subprocess

import pytest

from gatehouse.identity import SecretStore, passwords, strength
from gatehouse.identity.authority import key_to_pem, new_key
from gatehouse.proof import words
from gatehouse.proof.probes import log


@pytest.fixture
def vault():
    store = SecretStore()
    store.set("grafana.admin", passwords.password())
    store.set("wireguard/peers/laptop", "oA3mJ/Tn0aXk+Z2m8d3bVq1wEoQnYfR6uHsK4tLcPxU=")
    store.set("client/intake/key", key_to_pem(new_key()), "private-key")
    store.set("broker/salt", b"\xff" * 12)
    store.set("devices/pump/status", "a-record-that-is-public", "record")
    store.set("short", "hunter2")
    return store


def searched(monkeypatch, tmp_path, vault, journal="", **files):
    for name, text in files.items():
        (tmp_path / f"{name}.log").write_text(text)

    def run(command, **_):
        assert command[0] == "journalctl"
        return subprocess.CompletedProcess(command, 0, journal.encode(), b"")

    monkeypatch.setattr(log.subprocess, "run", run)
    return log.words({"digests": sorted(words.digests(vault)), "folder": str(tmp_path)})


def test_a_log_without_secrets_has_none(monkeypatch, tmp_path, vault):
    text = f"Accepted publickey for admin SHA256:{hashlib.sha256(b'x').hexdigest()} a-record-that-is-public hunter2"
    found = searched(monkeypatch, tmp_path, vault, text, other="/usr/lib/gatehouse/python/gatehouse/messages\n")
    assert found["outcome"] == "read" and found["found"] == [] and found["places"] == 2 and found["words"] >= 3


@pytest.mark.parametrize("name", ["grafana.admin", "wireguard/peers/laptop", "client/intake/key", "broker/salt"])
@pytest.mark.parametrize("told", ["{}", "login?password={}&x=1", "/path/{}", "token-{}", '{{"secret": "{}"}}'])
def test_a_secret_is_found_however_it_is_told(monkeypatch, tmp_path, vault, name, told):
    secret = vault.get(name)
    text = secret.hex() if name == "broker/salt" else secret.decode()
    line = told.format(text.splitlines()[1] if "PRIVATE" in text else text)
    assert searched(monkeypatch, tmp_path, vault, f"before\n{line}\nafter")["found"] == ["the journal"]
    assert searched(monkeypatch, tmp_path, vault, "", app=line)["found"] == [str(tmp_path / "app.log")]


def test_the_beginning_of_any_private_key_is_found_though_it_is_not_the_vaults(monkeypatch, tmp_path, vault):
    assert searched(monkeypatch, tmp_path, vault, key_to_pem(new_key()).decode())["found"] == ["the journal"]


def test_no_secret_is_part_of_what_the_gateway_is_asked(vault):
    asked = json.dumps(sorted(words.digests(vault)))
    assert not any(word in asked for name in vault.names() for word in words.of(vault.get(name)))


@pytest.mark.parametrize("secret", [b"raspberry", b"", b"Tr0ub4dor&3", b"a" * 60, b"0" * 64, b"12345678901234567890"])
def test_what_a_person_thinks_of_is_too_weak(secret):
    assert strength.bits(secret) < strength.LEAST


def test_what_the_kit_makes_is_strong_enough():
    made = [
        passwords.password(),
        passwords.token(128),
        passwords.hex_key(128),
        passwords.raw_key(),
        key_to_pem(new_key()),
    ]
    for secret in made:
        data = secret.encode() if isinstance(secret, str) else secret
        assert strength.bits(data) >= strength.LEAST
