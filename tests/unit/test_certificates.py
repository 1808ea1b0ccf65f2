"""Certificates of a public CA on the gateway: when they are due, which are of use, and how they get to who shows them.

A program of the name `certbot` takes the place of the real one, which tests/lab has issue and renew in earnest.
"""

from __future__ import annotations

import datetime
import grp
import json
import os
import stat
import sys
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from gatehouse.identity.pki import Pki
from gatehouse.identity.store import SecretStore
from roles.base.version import ROOT

NAME = "home.test.internal"
NOW = datetime.datetime.now(datetime.UTC)
GROUP = grp.getgrgid(os.getgid()).gr_name


@pytest.fixture(scope="module")
def program() -> ModuleType:
    loader = SourceFileLoader("certificates", str(ROOT / "roles/certbot/gateway.py"))
    spec = spec_from_loader("certificates", loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pki() -> Pki:
    return Pki(SecretStore(), "test", "test.internal").ensure()


CERTBOT = """#!{python}
import json, os, sys
folder = os.environ["FOLDER"]
with open(folder + "/asked", "a") as file:
    print(json.dumps(sys.argv[1:]), file=file)
outcome = json.load(open(folder + "/outcome"))
if outcome["fails"]:
    print(outcome["fails"].pop(0), file=sys.stderr)
    json.dump(outcome, open(folder + "/outcome", "w"))
    sys.exit(1)
if "--dry-run" not in sys.argv:
    live, archive = folder + "/letsencrypt/live/{name}", folder + "/letsencrypt/archive/{name}"
    os.makedirs(live, exist_ok=True); os.makedirs(archive, exist_ok=True)
    number = len(os.listdir(archive)) // 2 + 1
    for name in ("fullchain", "privkey"):
        path = f"{{archive}}/{{name}}{{number}}.pem"
        open(path, "w").write(outcome[name])
        if os.path.lexists(f"{{live}}/{{name}}.pem"):
            os.unlink(f"{{live}}/{{name}}.pem")
        os.symlink(path, f"{{live}}/{{name}}.pem")
"""


class Bench:
    """A gateway's folders, a certbot that does as it is told, and a consumer that notes when it is told to read."""

    def __init__(self, program: ModuleType, pki: Pki, folder: Path) -> None:
        self.program, self.folder, self.pki = program, folder, pki
        self.used = folder / "web" / "certificates" / NAME
        self.enabled = folder / "web" / "enabled" / f"{NAME}.conf"
        for path in (self.used.parent, self.enabled.parent, folder / "web" / "names"):
            path.mkdir(parents=True)
        (folder / "web" / "names" / f"{NAME}.conf").write_text("server {}\n")
        (folder / "anchors.pem").write_bytes(pki.trust_anchor)
        certbot = folder / "bin" / "certbot"
        certbot.parent.mkdir()
        certbot.write_text(CERTBOT.format(python=sys.executable, name=NAME))
        certbot.chmod(0o755)
        self.offers()
        self.consumer: dict[str, Any] = {
            "folder": str(self.used),
            "group": GROUP,
            "enables": [str(self.enabled), str(folder / "web" / "names" / f"{NAME}.conf")],
            "reloads": ["sh", "-c", f"echo read >>{folder}/reads"],
            "proves": ["true"],
        }
        self.settings = program.Settings(
            {
                "directory": "https://ca.test/dir",
                "staging": "https://staging.test/dir",
                "email": None,
                "dns": None,
                "webroot": str(folder),
                "renew_at": 2 / 3,
                "trust": None,
                "anchors": str(folder / "anchors.pem"),
                "folder": str(folder / "letsencrypt"),
                "state": str(folder / "state"),
                "names": {NAME: [self.consumer]},
            }
        )

    def offers(self, *fails: str, pki: Pki | None = None, name: str = NAME, key: bytes | None = None) -> None:
        """What the next call of certbot gives, after so many failures."""
        made = (pki or self.pki).server(f"x{len(self.asked())}-{name}", [name])
        content = {
            "fails": fails,
            "fullchain": made.chain_pem.decode(),
            "privkey": (key or made.private_key_pem).decode(),
        }
        (self.folder / "outcome").write_text(json.dumps(content))

    def asked(self) -> list[list[str]]:
        path = self.folder / "asked"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def renew(self) -> list[str]:
        found: list[str] = self.program.renew(self.settings)
        return found

    def reads(self) -> int:
        path = self.folder / "reads"
        return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.fixture
def bench(program: ModuleType, pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("FOLDER", str(tmp_path))
    return Bench(program, pki, tmp_path)


@pytest.fixture
def at(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the program's clock to when so much of a year's certificate is over."""

    def move(part: float) -> None:
        moment = NOW + datetime.timedelta(days=365 * part)
        monkeypatch.setattr(bench.program, "now_utc", lambda: moment)

    return move


def test_a_new_name_is_tried_at_the_staging_directory_then_issued_installed_and_served(bench: Bench) -> None:
    assert bench.renew() == []
    trial, real = bench.asked()
    assert "--dry-run" in trial and "https://staging.test/dir" in trial
    assert "--dry-run" not in real and "https://ca.test/dir" in real
    assert bench.enabled.resolve() == bench.folder / "web" / "names" / f"{NAME}.conf"
    key = bench.used / "key.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o640
    assert key.read_text() == json.loads((bench.folder / "outcome").read_text())["privkey"]
    assert bench.reads() == 1
    assert bench.program.due(bench.settings) == []


def test_what_is_in_order_is_left_alone(bench: Bench) -> None:
    bench.renew()
    before = bench.used.resolve()
    assert bench.renew() == []
    assert (len(bench.asked()), bench.reads(), bench.used.resolve()) == (2, 1, before)


@pytest.mark.parametrize(("part", "renewed"), [(0.6, False), (0.7, True)])
def test_a_certificate_is_renewed_after_a_fraction_of_its_life(
    bench: Bench, at: Callable[[float], None], part: float, renewed: bool
) -> None:
    bench.renew()
    bench.offers()
    at(part)
    assert bench.program.due(bench.settings) == [NAME] * renewed
    assert bench.renew() == []
    assert bench.reads() == 1 + renewed


def test_keys_that_nobody_uses_any_more_are_removed(bench: Bench, at: Callable[[float], None]) -> None:
    bench.renew()
    bench.offers()
    at(0.7)
    bench.renew()
    assert len(list((bench.folder / "letsencrypt" / "archive" / NAME).iterdir())) == 2
    assert len([p for p in bench.used.parent.iterdir() if not p.is_symlink()]) == 1


def test_what_the_consumer_does_not_show_is_taken_back(bench: Bench, at: Callable[[float], None]) -> None:
    bench.renew()
    before = (bench.used / "chain.pem").read_bytes()
    bench.offers()
    at(0.7)
    bench.consumer["proves"] = ["sh", "-c", "echo another certificate is shown >&2; false"]
    (problem,) = bench.renew()
    assert "the former certificate is back" in problem and "another certificate is shown" in problem
    assert (bench.used / "chain.pem").read_bytes() == before
    assert bench.program.due(bench.settings) == [NAME]
    bench.consumer["proves"] = ["true"]
    assert bench.renew() == []
    assert (bench.used / "chain.pem").read_bytes() != before


def test_a_first_certificate_that_is_not_shown_leaves_nothing_to_serve(bench: Bench) -> None:
    bench.consumer["proves"] = ["false"]
    assert len(bench.renew()) == 1
    assert not bench.enabled.is_symlink() and not bench.used.exists()


def test_a_certificate_that_no_client_trusts_is_not_installed(bench: Bench) -> None:
    bench.offers(pki=Pki(SecretStore(), "other", "test.internal").ensure())
    (problem,) = bench.renew()
    assert "is trusted by no client" in problem
    assert not bench.used.exists()


def test_a_certificate_for_another_name_or_key_is_not_installed(bench: Bench) -> None:
    bench.offers(name="other.test.internal")
    assert "is for another name" in bench.renew()[0]
    bench.offers(key=bench.pki.server("stranger", ["stranger.test.internal"]).private_key_pem)
    assert "does not belong to its key" in bench.renew()[0]
    assert not bench.used.exists()


def test_a_key_that_the_consumer_cannot_read_is_installed_again(bench: Bench) -> None:
    bench.renew()
    (bench.used / "key.pem").chmod(0o600)
    assert bench.program.due(bench.settings) == [NAME]
    assert bench.renew() == []
    assert stat.S_IMODE((bench.used / "key.pem").stat().st_mode) == 0o640


def test_after_too_many_requests_the_ca_is_left_alone_for_a_day(bench: Bench) -> None:
    bench.offers("urn:ietf:params:acme:error:rateLimited :: There were too many requests")
    assert "asked again tomorrow" in bench.renew()[0]
    assert "asked again tomorrow" in bench.renew()[0]
    assert len(bench.asked()) == 1
    note = bench.settings.state / f"{NAME}.limited"
    os.utime(note, (0, NOW.timestamp() - 90_000))
    assert bench.renew() == []
    assert not note.exists()


def test_an_account_that_the_ca_has_forgotten_is_made_anew(bench: Bench, at: Callable[[float], None]) -> None:
    bench.renew()
    account = bench.folder / "letsencrypt" / "accounts" / "one"
    account.mkdir(parents=True)
    bench.offers("urn:ietf:params:acme:error:accountDoesNotExist :: unable to find existing account")
    at(0.7)
    assert bench.renew() == []
    assert not account.exists()


WORDS = [
    ("HTTPSConnectionPool(host='ca', port=443): NewConnectionError('...')", "does not answer"),
    ("SSLError: CERTIFICATE_VERIFY_FAILED: certificate is not yet valid", "clock"),
    ("CERTIFICATE_VERIFY_FAILED: certificate has expired", "clock"),
    ("CERTIFICATE_VERIFY_FAILED: self-signed certificate", "nobody vouches for"),
    ("Type: urn:ietf:params:acme:error:unauthorized\n  Detail: 404\nHint: …", "another answer to its challenge"),
    ("urn:ietf:params:acme:error:connection\n  Detail: refused", "does not reach the gateway"),
    ("nobody has ever seen this\nAsk for help", "nobody has ever seen this"),
]


@pytest.mark.parametrize(("said", "meaning"), WORDS)
def test_what_certbot_says_is_said_in_the_operators_words(program: ModuleType, said: str, meaning: str) -> None:
    assert meaning in program.explained(said)
