"""The journal, updates and the kit's own tools as rendered, judged by the programs that read them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gatehouse import __version__
from roles import lifecycle
from roles.base import version
from roles.journald import deploy as journald
from roles.target import Target
from roles.upgrades import deploy as upgrades
from tests.roles.judge import Judge, judging


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    """A container with Debian's apt and systemd."""
    with judging() as judge:
        yield judge


def test_journald_knows_every_setting(judge: Judge) -> None:
    lines = lifecycle.template("journald", journald.CONFIGURATION).content.decode().splitlines()
    names = [line.split("=")[0] for line in lines if "=" in line and not line.startswith("#")]
    known = judge.run("grep -aoE 'Journal\\.[A-Za-z]+' /lib/systemd/systemd-journald").output.split()
    assert {"Storage", "SystemMaxUse", "MaxRetentionSec", "RateLimitBurst"} <= set(names)
    assert {f"Journal.{name}" for name in names} <= set(known)
    assert "Journal.NoSuchSetting" not in known


def dumped(judge: Judge, target: Target) -> list[str]:
    """What apt reads, where a package has put its own settings first."""
    debian = b'Unattended-Upgrade { Origins-Pattern { "origin=Elsewhere"; }; Automatic-Reboot "x"; };\n'
    judge.install(lifecycle.File("/etc/apt/apt.conf.d/50unattended-upgrades", debian), upgrades.configuration(target))
    verdict = judge.run("apt-config dump")
    assert verdict, verdict.output
    return verdict.output.splitlines()


def test_security_updates_install_themselves_and_come_from_debian_only(
    judge: Judge, gateway_of: Callable[..., Target]
) -> None:
    read = dumped(judge, gateway_of())
    origins = [line for line in read if line.startswith("Unattended-Upgrade::Origins-Pattern::")]
    assert any("codename=${distro_codename}-security,label=Debian-Security" in line for line in origins)
    assert all("origin=Debian," in line for line in origins)
    assert 'APT::Periodic::Unattended-Upgrade "1";' in read
    assert 'DPkg::Options:: "--force-confold";' in read


def test_a_gateway_starts_again_when_the_site_says(judge: Judge, gateway_of: Callable[..., Target]) -> None:
    read = dumped(judge, gateway_of(automatic_reboot="04:15"))
    assert 'Unattended-Upgrade::Automatic-Reboot "true";' in read
    assert 'Unattended-Upgrade::Automatic-Reboot-Time "04:15";' in read


def test_a_gateway_never_starts_again_by_itself_where_the_site_says_so(
    judge: Judge, gateway_of: Callable[..., Target]
) -> None:
    read = dumped(judge, gateway_of(automatic_reboot=None))
    assert 'Unattended-Upgrade::Automatic-Reboot "false";' in read


def test_a_broken_configuration_of_apt_is_refused(judge: Judge, gateway_of: Callable[..., Target]) -> None:
    good = upgrades.configuration(gateway_of())
    assert judge.accepts([good], upgrades.CHECK)
    bad = replace(good, content=good.content.replace(b'Enable "1"', b'Enable "1'))
    assert not judge.accepts([bad], upgrades.CHECK)


def test_the_stamp_notes_what_a_unit_reads_and_a_change_shows(judge: Judge) -> None:
    stamp = lifecycle.template("base", lifecycle.STAMP, mode=0o755, loaded=lifecycle.LOADED)
    read = lifecycle.File("/etc/noted.conf", b"one\n")
    judge.install(stamp, read)
    ask = lifecycle.UnitState().command("noted.service", [read.path, "/etc/missing.conf"])

    def loaded() -> str:
        return lifecycle.UnitState().process(judge.run(ask).output.splitlines())["Loaded"]

    assert loaded() == "no"
    assert judge.run(f"{lifecycle.STAMP} noted.service {read.path} /etc/missing.conf")
    assert loaded() == "yes"
    judge.install(lifecycle.File(read.path, b"two\n"))
    assert loaded() == "no"
    assert judge.run(f"{lifecycle.STAMP} noted.service {read.path} /etc/missing.conf")
    judge.install(lifecycle.File("/etc/missing.conf", b"there now\n"))
    assert loaded() == "no"


def test_a_drop_in_that_systemd_has_not_seen_asks_for_a_reload() -> None:
    fact = lifecycle.UnitState()
    seen = ["ActiveState=active", "NeedDaemonReload=no", "DropInPaths=/etc/systemd/system/a.service.d/50-x.conf"]
    assert fact.process([*seen, "OnDisk=/etc/systemd/system/a.service.d/50-x.conf"])["NeedDaemonReload"] == "no"
    assert fact.process([*seen, "OnDisk=/etc/systemd/system/a.service.d/90-y.conf"])["NeedDaemonReload"] == "yes"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A git checkout with one committed role and one committed inventory."""
    for path in ("roles/one.py", "inventories/lab"):
        (tmp_path / path).parent.mkdir()
        (tmp_path / path).write_text("1\n")
    commit = ["-c", "user.name=t", "-c", "user.email=t@test.internal", "commit", "-q", "-m", "One"]
    for command in (["init", "-q"], ["add", "."], commit):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    return tmp_path


def test_the_version_names_the_commit_and_tells_a_changed_checkout(checkout: Path) -> None:
    head = subprocess.run(["git", "-C", str(checkout), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    clean = version.of_checkout(checkout)
    assert clean == f"version {__version__}\ncommit {head.stdout.strip()}\nmodified no\n"
    (checkout / "inventories" / "lab").write_text("2\n")
    version.of_checkout.cache_clear()
    assert version.of_checkout(checkout) == clean
    (checkout / "roles" / "one.py").write_text("2\n")
    version.of_checkout.cache_clear()
    assert version.of_checkout(checkout).endswith("\nmodified yes\n")


def test_a_kit_outside_git_says_that_it_does_not_know(tmp_path: Path) -> None:
    assert version.of_checkout(tmp_path) == f"version {__version__}\ncommit unknown\nmodified unknown\n"
