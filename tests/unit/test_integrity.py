"""Files of nobody: what AIDE finds is judged by who has brought it, shown, and accepted only as it was shown."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from invoke import Context

from commands import common, proof
from deploy import integrity as looking
from deploy.remote import RemoteError
from gatehouse.identity import Pki, SecretStore
from gatehouse.proof.integrity import Finding, IntegrityError, document, read, table
from gatehouse.site import Site
from roles import declared
from roles.integrity import files, operations
from roles.integrity.facts import Undecided
from roles.target import Target
from tests.unit.test_site_model import changed, description

PROGRAM = Path(__file__).parents[2] / "roles" / "integrity" / "integrity.py"


@pytest.fixture(scope="module")
def program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("integrity", PROGRAM)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Machine:
    """A folder with files, and what dpkg, ucf and the kit say of them."""

    def __init__(self, folder: Path, program: ModuleType) -> None:
        self.folder, self.program = folder, program
        self.info = folder / "dpkg" / "info"
        self.info.mkdir(parents=True)
        (folder / "dpkg" / "status").write_text("")
        (folder / "declared").write_text("[]")

    def file(self, name: str, content: str = "x", mode: int = 0o755) -> str:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        path.chmod(mode)
        return str(path)

    def ship(self, path: str, content: str | None = "x") -> str:
        (self.info / f"{len(path)}.list").open("a").write(f"{path}\n")
        if content is not None:
            digest = hashlib.md5(content.encode()).hexdigest()  # noqa: S324  as dpkg has it
            (self.info / f"{len(path)}.md5sums").open("a").write(f"{digest}  {path.lstrip('/')}\n")
        return path

    def declare(self, *paths: str) -> None:
        (self.folder / "declared").write_text(json.dumps(paths))

    def findings(self, strangers: tuple[str, ...] = (), **report: Any) -> list[str]:
        """`what how` of each finding."""
        known = self.program.Known(self.folder / "declared", self.folder / "dpkg", self.folder / "ucf")
        return [f"{f['what']} {f['how']}" for f in self.program.judged(report, known, set(strangers))]

    def added(self, *paths: str) -> list[str]:
        return self.findings(added=dict.fromkeys(paths, "f+++"))


@pytest.fixture
def machine(tmp_path: Path, program: ModuleType) -> Machine:
    return Machine(tmp_path, program)


def test_a_new_file_is_explained_by_its_package_and_its_digest_alone(machine: Machine) -> None:
    path = machine.file("sbin/tool")
    assert machine.added(path) == ["new a file of nobody"]
    machine.ship(path, "other")
    assert machine.added(path) == ["new not as its package brought it"]
    machine.ship(path)
    assert machine.added(path) == []


def test_a_file_without_a_digest_is_not_explained_by_its_name(machine: Machine) -> None:
    assert machine.added(machine.ship(machine.file("sbin/tool"), None)) == ["new not as its package brought it"]


def test_settings_that_dpkg_or_ucf_know_are_explained(machine: Machine) -> None:
    first, second = machine.file("etc/first.conf"), machine.file("etc/second.conf")
    digest = hashlib.md5(b"x").hexdigest()  # noqa: S324  as dpkg has it
    assert len(machine.added(first, second)) == 2
    (machine.folder / "dpkg" / "status").write_text(f"Package: a\nConffiles:\n {first} {digest}\n")
    (machine.folder / "ucf").mkdir()
    (machine.folder / "ucf" / "hashfile").write_text(f"{digest}  {second}\n")
    assert machine.added(first, second) == []


def test_what_the_kit_declares_is_explained_with_its_folders_and_nothing_beside_it(machine: Machine) -> None:
    path, beside = machine.file("etc/unit.d/kit.conf"), machine.file("etc/unit.d/own.conf")
    machine.declare(path)
    assert machine.added(path, str(Path(path).parent)) == []
    assert machine.added(beside) == ["new a file of nobody"]


@pytest.mark.parametrize(
    ("mode", "how"), [(0o4755, "new runs as its owner or group"), (0o2755, "new runs as its owner or group"),
                      (0o757, "new everybody may write it"), (0o755, "")],
)  # fmt: skip
def test_no_package_explains_a_privilege_of_a_new_file(machine: Machine, mode: int, how: str) -> None:
    assert machine.added(machine.ship(machine.file("sbin/tool", mode=mode))) == ([how] if how else [])


def test_a_changed_mode_is_a_finding_though_the_content_is_its_package_s(machine: Machine) -> None:
    path = machine.ship(machine.file("sbin/tool"))
    details = {"perm": {"old": "-rwxr-xr-x", "new": "-rwsr-xr-x"}, "acl": "A"}
    assert machine.findings(changed={path: "p"}, details={path: details}) == [
        "changed mode -rwxr-xr-x, now -rwsr-xr-x, acl"
    ]
    assert machine.findings(changed={path: "h"}, details={path: {"sha256": {"old": "a", "new": "b"}}}) == []
    Path(path).write_text("y")
    assert machine.findings(changed={path: "h"}, details={}) == ["changed not as its package brought it"]


def test_what_went_with_its_package_is_explained_and_what_an_installed_one_lacks_is_not(machine: Machine) -> None:
    kept = machine.ship(str(machine.folder / "sbin" / "kept"))
    gone, odd = str(machine.folder / "sbin" / "gone"), str(machine.folder / "sbin" / "odd")
    removed = dict.fromkeys((kept, gone, odd), "f---")
    assert machine.findings((odd,), removed=removed) == [
        "gone its package is still installed",
        "gone was of nobody, and accepted",
    ]


def test_a_link_is_judged_by_where_it_leads(machine: Machine) -> None:
    tool, own = machine.ship(machine.file("sbin/tool")), machine.file("sbin/own")
    for name, target in (("to-tool", tool), ("to-own", own), ("to-nothing", "/nowhere")):
        os.symlink(target, machine.folder / name)
    links = [str(machine.folder / name) for name in ("to-tool", "to-own", "to-nothing")]
    assert machine.added(*links) == [f"new a link of nobody to {t}" for t in ("/nowhere", own, tool)]
    for link in links:
        machine.ship(link, None)
    assert len(machine.added(*links)) == 2


def test_what_can_t_be_read_is_found(machine: Machine) -> None:
    assert machine.added(str(machine.folder / "away")) == ["new can't be read: No such file or directory"]


def test_packages_that_still_say_bin_are_understood(program: ModuleType) -> None:
    assert [program.merged(p) for p in ("/bin/ls", "/lib/x", "/usr/bin/ls", "/libexec/x", "/etc/x")] == [
        "/usr/bin/ls", "/usr/lib/x", "/usr/bin/ls", "/libexec/x", "/etc/x"
    ]  # fmt: skip


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"folder": 1, "rules": 2, "declared": 3}'])
def test_settings_that_are_none_are_refused_in_a_line(
    program: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    (tmp_path / "settings").write_text(content)
    assert program.main(["--check", str(tmp_path / "settings")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert program.main([]) == program.main(["a", "b"]) == 2


@pytest.mark.parametrize(
    ("effective", "reads"), [("0000000000000004", True), ("000001ffffffffff", True), ("0000000000000002", False)]
)
def test_who_may_not_read_every_file_is_told_from_who_may(program: ModuleType, effective: str, reads: bool) -> None:
    assert program.reads_everything(f"Name:\tpython3\nCapEff:\t{effective}\nCapBnd:\t0\n") is reads


# what is put on a gateway


def target(**changes: Any) -> Target:
    site = Site(**{**description(), "services": declared(), **changes})
    return Target(
        site, next(iter(site.gateways)), lambda: Pki(SecretStore(), "home", "home.arpa", ["10.0.0.0/8"]).ensure()
    )


def test_the_rules_look_at_where_code_runs_from_and_at_the_administrator_s_keys() -> None:
    here = target()
    rules = {f.path: f.content.decode() for f in files.configuration(here)}[files.RULES].splitlines()
    for folder in ("/etc", "/usr/bin", "/usr/sbin", "/usr/lib", "/usr/libexec", "/usr/local"):
        assert f"{folder} Code" in rules
    assert rf"/home/{here.site.ssh.user}/\.ssh Code" in rules and r"/root/\.ssh Code" in rules
    assert f"database_in=file:{files.DATABASE}" in rules
    assert any(line.startswith("Code = ") and line.endswith("+sha256") for line in rules)


def test_what_is_deployed_after_the_database_is_declared_before_it() -> None:
    assert "/usr/lib/gatehouse/verify" in files.later(target())
    without = changed("gateways/gw/without", ["watch"])
    assert files.later(target(**{**without, "services": declared()})) == []


def test_the_list_of_what_is_declared_names_itself_and_is_in_order() -> None:
    listed = json.loads(files.declared({"/b", "/a"}).content)
    assert listed == ["/a", "/b", files.DECLARED]


@pytest.mark.parametrize(
    ("said", "why"),
    [([], []), (["has no database", "noise"], ["has no database"])],
)
def test_a_deploy_has_it_look_only_where_it_must(said: list[str], why: list[str]) -> None:
    assert Undecided().process(said) == why
    assert operations.looked is not None


# what an operator sees

STATUS = {
    "when": 1_800_000_000.0, "seconds": 9.0, "files": 5562, "strangers": 73, "rules": "aa", "accepted": 0, "count": 1,
    "digest": "bb", "findings": [{"path": "/usr/bin/x\x1b[0m", "what": "new", "how": "a file of nobody"}],
}  # fmt: skip


def seen(**changes: Any) -> str:
    return json.dumps(STATUS | changes)


def test_people_and_programs_read_what_was_found_and_no_escape_sequences() -> None:
    found = read("gw", seen())
    assert found.findings == (Finding("/usr/bin/x\x1b[0m", "new", "a file of nobody"),)
    text = "\n".join(table("home", [found]))
    assert "\x1b" not in text and "/usr/bin/x\\x1b[0m" in text
    assert "home: gw: 1 finding (5562 files, 2027-01-15 08:00 UTC, 9 s)" in text
    assert "./kit integrity --site home --accept" in text
    assert "150 findings, 1 of them shown" in "\n".join(table("home", [read("gw", seen(count=150))]))
    clean = read("gw", seen(count=0, findings=[]))
    assert table("home", [clean]) == ["home: gw: nothing of nobody (5562 files, 2027-01-15 08:00 UTC, 9 s)"]
    assert document("home", [found])["found"] is True and document("home", [clean])["found"] is False
    json.dumps(document("home", [found]))


@pytest.mark.parametrize("status", ["", "[]", "{}", "null", seen(when="now"), seen(findings=[1]), seen(when=1e300)])
def test_a_status_that_is_none_is_an_error_and_no_clean_bill(status: str) -> None:
    with pytest.raises(IntegrityError, match="gw: what AIDE left can't be read"):
        read("gw", status)


class Gateway:
    """Answers with one status after the other; `scripts` are what it was told."""

    def __init__(self, gateway: str, *statuses: str) -> None:
        self.gateway, self.statuses, self.scripts = gateway, list(statuses), list[str]()

    def run(self, script: str, stdin: str = "") -> str:
        self.scripts.append(script)
        if "status.json" not in script:
            return ""
        if not self.statuses:
            raise RemoteError(f"{self.gateway}: gone")
        return self.statuses.pop(0)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Gateway:
    site = target().site
    gateway = Gateway(next(iter(site.gateways)))

    @contextmanager
    def connected(_: Site, name: str) -> Iterator[Gateway]:
        assert name == gateway.gateway
        yield gateway

    monkeypatch.setattr(looking, "connected", connected)
    monkeypatch.setattr(common, "site", lambda _: site)
    return gateway


def ended(**options: Any) -> Any:
    with pytest.raises(SystemExit) as stopped:
        proof.integrity(Context(), site="home", **options)
    return stopped.value.code


def test_it_looks_now_unless_it_is_asked_for_what_was_found_last(asked: Gateway) -> None:
    asked.statuses = [seen(count=0, findings=[]), seen()]
    assert ended() == 0
    assert "systemctl start" in asked.scripts[0]
    assert ended(last=True) == 2
    assert "systemctl start" not in asked.scripts[1]


def test_findings_are_accepted_by_the_digest_that_was_shown_and_it_is_logged_who_did(asked: Gateway) -> None:
    asked.statuses = [seen(), seen(count=0, findings=[])]
    assert ended(accept=True, yes=True, last=True) == 0
    looked, wish, again, logged = asked.scripts
    assert "systemctl start" in looked, "what was found last is of another time"
    assert "printf %s bb" in wish and files.ACCEPT in wish
    assert "systemctl start" in again and "logger -t gatehouse" in logged


def test_what_came_since_it_was_shown_is_not_accepted(asked: Gateway) -> None:
    asked.statuses = [seen(), seen(count=2)]
    assert "nothing was accepted" in ended(accept=True, yes=True)
    assert not [script for script in asked.scripts if "logger" in script]


def test_without_a_terminal_or_a_finding_nothing_is_accepted(asked: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    asked.statuses = [seen(), seen(count=0, findings=[])]
    assert "nothing was changed" in ended(accept=True)
    assert ended(accept=True, yes=True) == 0
    assert not [script for script in asked.scripts if files.ACCEPT in script]


def test_a_gateway_that_is_not_there_or_goes_without_is_named(asked: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "nobody" in ended(gateway="nobody")
    assert ended() == f"{asked.gateway}: gone"
    without = target(**{**changed("gateways/gw/without", ["integrity"]), "services": declared()}).site
    monkeypatch.setattr(common, "site", lambda _: without)
    assert "goes without 'integrity'" in ended()
    assert "goes without 'integrity'" in ended(gateway=next(iter(without.gateways)))


def test_the_nightly_verification_names_a_file_of_nobody_and_a_look_that_is_late(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("verify", PROGRAM.parents[1] / "watch" / "verify.py")
    assert spec is not None and spec.loader is not None
    verify = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(verify)
    now = datetime.now(UTC).timestamp()
    status = tmp_path / "status.json"
    for content, expected in (
        (seen(when=now, count=0, findings=[]), ""),
        (seen(when=now, count=3), "3 files of nobody, such as '/usr/bin/x\\x1b[0m'"),
        (seen(when=now - 49 * 3600), "AIDE has not looked for 49 hours"),
    ):
        status.write_text(content)
        assert verify.integrity(str(status), 2 * 86_400) == expected
