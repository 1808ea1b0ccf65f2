"""The device API: who shows a good token is told which devices there are, and nobody is told anything else."""

from __future__ import annotations

import datetime
import http.client
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gatehouse.api.server import Server, Settings
from gatehouse.api.tokens import audience_of
from gatehouse.identity import jwt
from gatehouse.identity.store import SecretStore
from roles.base.version import ROOT

DEVICES = [{"name": "kitchen-01", "status": "active"}]
Ask = Callable[..., tuple[int, object]]


@pytest.fixture(scope="module")
def vault() -> SecretStore:
    store = SecretStore()
    jwt.issue(store, "home", "anna", "x")  # makes the key
    return store


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file with the devices."""
    path = tmp_path_factory.mktemp("api") / "devices.json"
    path.write_text(json.dumps(DEVICES))
    return path


@pytest.fixture(scope="module")
def ask(vault: SecretStore, listed: Path) -> Iterator[Ask]:
    """`ask(token, method="GET", path=…)`: status and content of the answer."""
    keys = jwt.public_keys(vault)
    settings = Settings("home", "gateway", keys, "127.0.0.1", 0, listed)

    def asked(token: str | None, method: str = "GET", path: str = "/api/devices") -> tuple[int, object]:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
        connection.request(method, path, headers={"Authorization": f"Bearer {token}"} if token is not None else {})
        answer = connection.getresponse()
        body = answer.read()
        return answer.status, json.loads(body) if body else None

    with Server(settings) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield asked
        server.shutdown()


def token(vault: SecretStore, gateway: str = "gateway", site: str = "home", ago: float = 0) -> str:
    """A token of an hour that was issued so many hours ago."""
    moment = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=ago)
    return jwt.issue(vault, site, "anna", audience_of(site, gateway), now=moment)


def test_a_good_token_is_told_which_devices_there_are(ask: Ask, vault: SecretStore) -> None:
    assert ask(token(vault)) == (200, DEVICES)


def test_what_changes_is_told_at_once_and_what_is_broken_is_no_list(ask: Ask, vault: SecretStore, listed: Path) -> None:
    try:
        listed.write_text('[{"name": "kitchen-01", "status": "revoked"}]')
        assert ask(token(vault)) == (200, [{"name": "kitchen-01", "status": "revoked"}])
        listed.write_text("[{")
        assert ask(token(vault))[0] == 503
    finally:
        listed.write_text(json.dumps(DEVICES))
    assert ask(token(vault)) == (200, DEVICES)


def test_no_other_token_is(ask: Ask, vault: SecretStore) -> None:
    foreign = SecretStore()
    good = token(vault)
    last = good[-10]
    forged = good[:-10] + ("A" if last != "A" else "B") + good[-9:]
    bad = {
        "none": None,
        "empty": "",
        "expired": token(vault, ago=2),
        "another gateway's": token(vault, gateway="gateway-2"),
        "another site's": token(vault, site="office"),
        "signed by a stranger": token(foreign),
        "changed": forged,
        "nonsense": "x.y.z",
    }
    assert {why: ask(shown)[0] for why, shown in bad.items()} == dict.fromkeys(bad, 401)
    assert ask(good)[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_can_be_changed_not_even_with_a_good_token(ask: Ask, vault: SecretStore, method: str) -> None:
    assert ask(token(vault), method)[0] == 405


@pytest.mark.parametrize("path", ["/", "/api/", "/api/devices/", "/api/devices?x=1", "/api/../etc/passwd"])
def test_there_is_nothing_else(ask: Ask, vault: SecretStore, path: str) -> None:
    assert ask(token(vault), path=path)[0] == 404


def test_settings_that_are_broken_end_it_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text("{")
    run = [sys.executable, "-c", f"from gatehouse.api.server import main; main({str(tmp_path)!r})"]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("device API: ") and done.stderr.count("\n") == 1
