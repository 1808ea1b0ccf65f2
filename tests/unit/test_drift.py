"""Drift: each difference is named, nothing is changed, and what can't be compared is an error and no clean bill."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from invoke import Context
from pyinfra.context import ctx_host, ctx_state

from commands import common, proof
from deploy import drift, vaults
from deploy.inventory import ROOT
from deploy.remote import RemoteError
from deploy.shell import Shell
from gatehouse.proof.drift import (
    Difference,
    Looked,
    document,
    mend,
    once,
    rule_differences,
    settled,
    superusers,
    table,
)
from gatehouse.site import Site
from roles.lifecycle import _how, unit_differences
from tests.unit.enrolling import a_house
from tests.unit.test_foresight import Channel, Content, contains, fails, follows, sees

LISTING = """\
table inet gatehouse {
	set cut_off {
		type ether_addr
		elements = { 02:00:00:00:00:01 }
	}

	chain input {
		type filter hook input priority filter; policy drop;
		tcp dport 22 accept
		tcp dport 8883 accept
	}
}
""".splitlines()


def changed(old: str, new: str) -> list[str]:
    """The listing with a line replaced, or removed where `new` is empty."""
    lines = "\n".join(LISTING).replace(f"\t\t{old}", f"\t\t{new}" if new else "")
    return [line for line in lines.splitlines() if line.strip() or not new]


def test_the_same_ruleset_differs_in_nothing() -> None:
    assert list(rule_differences(LISTING, list(LISTING))) == []


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("tcp dport 22 accept", "", [("chain input", "declared, not running: tcp dport 22 accept")]),
        (
            "tcp dport 22 accept",
            "tcp dport 22 accept\n\t\taccept",
            [("chain input", "running, not declared: accept")],
        ),
        (
            "type filter hook input priority filter; policy drop;",
            "type filter hook input priority filter; policy accept;",
            [
                ("chain input", "declared, not running: type filter hook input priority filter; policy drop;"),
                ("chain input", "running, not declared: type filter hook input priority filter; policy accept;"),
            ],
        ),
        (
            "elements = { 02:00:00:00:00:01 }",
            "",
            [("set cut_off", "declared, not running: elements = { 02:00:00:00:00:01 }")],
        ),
        (
            "tcp dport 22 accept\n\t\ttcp dport 8883 accept",
            "tcp dport 8883 accept\n\t\ttcp dport 22 accept",
            [("chain input", "not in the declared order: tcp dport 22 accept")],
        ),
    ],
)
def test_each_rule_that_differs_is_named_with_its_chain(old: str, new: str, found: list[tuple[str, str]]) -> None:
    assert list(rule_differences(LISTING, changed(old, new))) == found


def test_a_ruleset_that_is_gone_is_all_missing() -> None:
    found = list(rule_differences(LISTING, []))
    assert ("chain input", "declared, not running: tcp dport 22 accept") in found
    assert ("chain input", "declared, not running") in found


@pytest.mark.parametrize(
    ("found", "how"),
    [
        (None, "missing"),
        (("root", "root", "644", "aa"), "content"),
        (("root", "root", "666", "bb"), "mode 666, not 644"),
        (("nobody", "root", "644", "bb"), "owner nobody:root, not root:root"),
        (("root", "root", "644", "directory"), "is a directory, not a file"),
        (("nobody", "root", "600", "aa"), "content; owner nobody:root, not root:root; mode 600, not 644"),
    ],
)
def test_what_of_a_file_differs_is_said_without_its_content(found: Any, how: str) -> None:
    assert _how(found, ("root", "root", "644", "bb")) == how


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, []),
        ({"ActiveState": "failed"}, ["failed, not running"]),
        ({"UnitFileState": "masked"}, ["masked, not enabled"]),
        ({"Loaded": "no"}, ["runs on other files than those on the disk"]),
        ({"NeedDaemonReload": "yes"}, ["systemd has not read its files as they are on the disk"]),
        ({"ActiveState": "inactive", "UnitFileState": "disabled"}, ["disabled, not enabled", "inactive, not running"]),
    ],
)
def test_what_of_a_unit_differs_is_said(changes: dict[str, str], found: list[str]) -> None:
    well = {"ActiveState": "active", "UnitFileState": "enabled", "NeedDaemonReload": "no", "Loaded": "yes"}
    assert unit_differences(well | changes) == found


def test_who_is_root_by_another_name_is_found() -> None:
    passwd = ["root:x:0:0:root:/root:/bin/sh", "toor:x:0:0::/:/bin/sh", "zero:x:000:1::/:/bin/sh", "www:x:33:33:::"]
    assert superusers([*passwd, "broken line"]) == ["toor", "zero"]


FOUND = (Difference("file", "/etc/a", "content", "Base | Files"), Difference("account", "toor", "is root"))


def test_people_read_what_differs_and_what_mends_it() -> None:
    lines = table("home", [Looked("gw1", FOUND, 2, 1.0)])
    assert [line.split()[:3] for line in lines[1:3]] == [["gw1", "file", "/etc/a"], ["gw1", "account", "toor"]]
    text = "\n".join(lines)
    assert "home: 2 differences" in text
    assert "./kit harden --site home" in text and "userdel -f -- toor" in text
    assert table("home", [Looked("gw1", (), 2, 1.0)]) == ["home: as declared (gw1)"]


def test_programs_read_the_same() -> None:
    said = document("home", [Looked("gw1", FOUND, 2, 1.2345), Looked("gw2", (), 2, 1.0)])
    assert said["drift"] is True
    assert said["gateways"]["gw1"]["round_trips"] == 2
    first = said["gateways"]["gw1"]["differences"][0]
    assert first == {"kind": "file", "name": "/etc/a", "how": "content", "operation": "Base | Files",
                     "mend": "./kit harden --site home"}  # fmt: skip
    assert document("home", [Looked("gw2", (), 2, 1.0)])["drift"] is False


def test_what_two_operations_find_is_said_once() -> None:
    twice = [Difference("package", "nmap", "not installed", "a"), Difference("package", "nmap", "not installed", "b")]
    assert once(twice) == (twice[0],)
    whole, rule = Difference("firewall", "inet gatehouse", "x", "f"), Difference("firewall", "chain input", "y", "f")
    assert settled([whole], {"rules": [rule]}) == (rule,)
    assert settled([whole], {"rules": []}) == (whole,)
    assert mend("home", rule) == "./kit harden --site home"


# following operations


class Here:
    """Operations that would be deployed to this machine."""

    def __init__(self) -> None:
        self.channel = Channel()
        target: Any = SimpleNamespace(name="@local", site=None)
        self.context = drift.foreseen(target, lambda: Shell(self.channel), layers=())
        self.look = self.context.__enter__()

    def add(self, operation: Any, *args: Any) -> None:
        operation(*args, name=f"operation {operation.__name__} {args}")

    def found(self, **extra: drift.Extra) -> list[tuple[str, str, str]]:
        return [(d.kind, d.name, d.how) for d in self.look.found(extra)]


@pytest.fixture
def here() -> Iterator[Here]:
    made = Here()
    yield made
    made.context.__exit__(None, None, None)
    made.channel.close()
    assert ctx_state.get() is None and ctx_host.get() is None


def test_operations_with_nothing_to_do_are_asked_at_once_and_differ_in_nothing(here: Here, tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).write_text("wanted")
        here.add(contains, tmp_path / name, "wanted")
    assert here.found() == []
    assert here.look.round_trips == 1


def test_what_an_operation_would_do_is_named_and_not_done(here: Here, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("other")
    here.add(contains, tmp_path / "file", "wanted")
    (found,) = here.found()
    assert found[0] == "step" and "contains" in found[1]
    assert (tmp_path / "file").read_text() == "other"


def test_a_question_that_depends_on_an_answer_is_in_the_next_look(here: Here, tmp_path: Path) -> None:
    (tmp_path / "one").write_text(str(tmp_path / "two"))
    (tmp_path / "two").write_text("found")
    seen: dict[str, str] = {}
    here.add(follows, tmp_path / "one", seen)
    (tmp_path / "three").write_text("other")
    here.add(sees, tmp_path / "three", seen)
    assert here.found() == []
    assert seen == {"followed": "found", "three": "other"}
    assert here.look.round_trips == 2


def test_an_answer_that_does_not_come_is_an_error_and_no_clean_bill(here: Here) -> None:
    here.add(fails)
    with pytest.raises(drift.DriftError, match="no answer"):
        here.found()


def test_questions_of_no_operation_travel_with_the_others(here: Here, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("wanted")
    here.add(contains, tmp_path / "file", "wanted")
    extra = drift.Extra("echo odd", lambda lines: [Difference("account", lines[0], "is there")])
    assert here.found(accounts=extra) == [("account", "odd", "is there")]
    assert here.look.round_trips == 1


class Slow(Content):
    """A fact that takes long."""

    takes_long = True


def test_what_takes_long_is_asked_only_once_the_other_answers_lead_there(here: Here, tmp_path: Path) -> None:
    from pyinfra import host
    from pyinfra.api import operation

    @operation()
    def patient(path: Path) -> Any:
        if not host.get_fact(Content, path=str(path)):
            host.get_fact(Slow, path=f"{path}; echo asked >{path}.slow")
        yield from ()

    (tmp_path / "there").write_text("content")
    here.add(patient, tmp_path / "there")
    here.add(patient, tmp_path / "missing")
    here.found()
    assert not (tmp_path / "there.slow").exists()
    assert (tmp_path / "missing.slow").exists()


# the whole of it


class Deaf:
    """A gateway that answers every question with nothing."""

    asked = 0

    def ask(self, commands: Sequence[str]) -> list[list[str]]:
        self.asked += 1
        return [
            ["gatehouse-declared", "table"] if "unshare" in command else self.marks(command) for command in commands
        ]

    def marks(self, command: str) -> list[str]:
        """What a common question about units prints even where there are none."""
        return (
            [part.rstrip(";") for part in shlex.split(command) if part.startswith("Files of ")]
            if "Files of" in command
            else []
        )


def connected_to(gateway: Deaf) -> Any:
    @contextmanager
    def connected(site: Site, name: str) -> Iterator[Any]:
        yield SimpleNamespace(shell=lambda: gateway)  # noqa: S604  no process

    return connected


@pytest.fixture
def lab_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """The lab's site, with a vault of its own that is not in any lab."""
    from gatehouse.identity import Vault, new_identity
    from gatehouse.site import load

    site = load("lab", ROOT)
    assert site.acme is not None
    (tmp_path / "trust.pem").write_text("a public CA's certificate")
    acme = site.acme.model_copy(update={"trust": tmp_path / "trust.pem", "anchors": None})
    site = site.model_copy(update={"acme": acme})
    Vault.create(tmp_path / "vault.age", [new_identity(tmp_path / "identity")])
    monkeypatch.setattr(vaults, "vault_path", lambda _: tmp_path / "vault.age")
    monkeypatch.setattr(vaults, "identity_path", lambda _: tmp_path / "identity")
    return site


def test_on_a_blank_machine_everything_differs_and_the_vault_stays_as_it_is(
    lab_site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway = Deaf()
    monkeypatch.setattr(drift, "connected", connected_to(gateway))
    monkeypatch.setattr(common, "site", lambda _: lab_site)
    before = (tmp_path / "vault.age").read_bytes()
    with pytest.raises(SystemExit) as ended:
        proof.drift(Context())
    assert ended.value.code == 2
    said = capsys.readouterr().out
    for expected in (
        r"file +/etc/mosquitto/gatehouse/server\.key +missing",
        r"file +/etc/gatehouse/firewall\.nft +missing",
        r"unit +mosquitto\.service +unknown, not enabled",
        r"package +chrony +not installed",
        r"account +gatehouse-intake +missing",
        r"account +gatekeeper +missing",
        r"firewall +inet gatehouse +not what was loaded",
    ):
        assert re.search(expected, said), expected
    assert "PRIVATE KEY" not in said
    assert (tmp_path / "vault.age").read_bytes() == before
    assert gateway.asked <= 3


@pytest.mark.parametrize(
    ("answer", "says"),
    [(None, "no answer"), (["gatehouse-declared"], "does not take the declared ruleset")],
)
def test_a_gateway_that_can_not_be_compared_is_an_error(
    lab_site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: Any, says: str
) -> None:
    class Odd(Deaf):
        def ask(self, commands: Sequence[str]) -> list[Any]:
            return [answer if "unshare" in command else self.marks(command) for command in commands]

    monkeypatch.setattr(drift, "connected", connected_to(Odd()))
    monkeypatch.setattr(common, "site", lambda _: lab_site)
    with pytest.raises(SystemExit, match=rf"gateway: .*{says}"):
        proof.drift(Context())
    assert capsys.readouterr().out == ""


def test_a_gateway_that_does_not_answer_is_an_error(lab_site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def connected(site: Site, name: str) -> Iterator[Any]:
        raise RemoteError(f"{name}: no SSH")
        yield

    monkeypatch.setattr(drift, "connected", connected)
    with pytest.raises(RemoteError, match="gateway: no SSH"):
        drift.compare(lab_site)


def test_the_layers_are_those_of_a_deploy_in_its_order() -> None:
    applied = re.findall(r"^(\w+)\.apply\(target\)$", (ROOT / "deploy.py").read_text(), re.MULTILINE)
    assert [layer.__name__ for layer in drift.layers()] == [f"deploy.{name}" for name in applied]
    assert len(applied) >= 5


def test_what_is_made_apart_from_the_vault_is_kept_nowhere(tmp_path: Path) -> None:
    house = a_house(tmp_path)
    vault = house.vault()
    before = (tmp_path / "home.age").read_bytes()
    pki = house.pki(vault.apart())  # type: ignore[arg-type]
    assert pki.trust_anchor == house.pki().trust_anchor
    made = pki.server("mosquitto-gw1")
    assert made.certificate_pem and "server/mosquitto-gw1/certificate" not in vault
    assert (tmp_path / "home.age").read_bytes() == before


def test_bad_input_is_one_line_and_an_error() -> None:
    command = [sys.executable, "-m", "invoke", "drift", "--site", "nowhere"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "nowhere" in done.stderr and len(done.stderr.strip().splitlines()) == 1
