"""SSH as rendered, judged by sshd, visudo and ssh-keygen themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from roles import lifecycle
from roles.ssh import deploy as ssh
from roles.ssh.facts import KEYS, MODULI, NEVER, SshHost
from roles.ssh.operations import LISTENS
from roles.target import Target
from tests.roles.judge import Judge, judging

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f operator@desk"


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    """A fresh Debian server with its own sshd configuration and host keys, and the administrator's account."""
    with judging() as judge:
        assert judge.run("ssh-keygen -A && mkdir -p /run/sshd && useradd gatekeeper")
        yield judge


@pytest.fixture
def target(gateway_of: Callable[..., Target]) -> Target:
    """A gateway with one good key, on another port than Debian's."""
    return gateway_of(ssh={"keys": [KEY], "port": 2222, "user": "gatekeeper"})


def test_sshd_sudo_and_ssh_keygen_accept_the_files(judge: Judge, target: Target) -> None:
    verdict = judge.accepts(ssh.configuration(target.site), ssh.check(target.site))
    assert verdict, verdict.output


def test_a_setting_that_sshd_does_not_know_is_refused(judge: Judge, target: Target) -> None:
    verdict = judge.accepts(altered(target, ssh.CONFIGURATION, b"UsePAM yes", b"UsePam4 yes"), ssh.check(target.site))
    assert not verdict
    assert "Bad configuration option: UsePam4" in verdict.output


def test_a_broken_sudoers_file_is_refused(judge: Judge, target: Target) -> None:
    verdict = judge.accepts(altered(target, ssh.SUDOERS, b"NOPASSWD:", b"NOPASSWORT:"), ssh.check(target.site))
    assert not verdict
    assert "syntax error" in verdict.output


def test_a_key_that_is_none_is_refused(judge: Judge, target: Target) -> None:
    keys = f"{KEYS}/gatekeeper"
    verdict = judge.accepts(
        altered(target, keys, b"AAAAC3NzaC1lZDI1NTE5", b"AAAAC3NzaC1lZDI1NTE6"), ssh.check(target.site)
    )
    assert not verdict


@pytest.mark.parametrize(
    ("elsewhere", "named"),
    [
        ("Match User root\n  PermitRootLogin yes\n", "permitrootlogin yes"),
        ("Match User gatekeeper\n  PasswordAuthentication yes\n", "passwordauthentication yes"),
        ("Port 22\n", "port 22"),
        ("AllowUsers guest\n", "allowusers guest"),
    ],
)
def test_another_file_that_takes_a_setting_away_is_refused_and_named(
    judge: Judge, target: Target, elsewhere: str, named: str
) -> None:
    other = lifecycle.File("/etc/ssh/sshd_config.d/50-cloud.conf", elsewhere.encode())
    judge.install(other)
    try:
        verdict = judge.accepts(ssh.configuration(target.site), ssh.check(target.site))
    finally:
        judge.run(f"rm {other.path}")
    assert not verdict
    assert named in verdict.output
    assert "another file in /etc/ssh" in verdict.output


def effective(judge: Judge, target: Target, user: str) -> dict[str, str]:
    """What sshd says of itself for a user, with the role's files in place."""
    judge.install(*ssh.configuration(target.site))
    verdict = judge.run(f"/usr/sbin/sshd -T -C user={user},host=desk,addr=10.10.20.9")
    assert verdict, verdict.output
    return dict(line.split(" ", 1) for line in verdict.output.splitlines() if " " in line)


@pytest.mark.parametrize("user", ["gatekeeper", "root"])
def test_only_the_administrator_gets_in_and_only_with_a_key(judge: Judge, target: Target, user: str) -> None:
    settings = effective(judge, target, user)
    assert settings["port"] == "2222"
    assert settings["allowusers"] == "gatekeeper"
    assert settings["permitrootlogin"] == "no"
    assert settings["authenticationmethods"] == "publickey"
    assert {settings[name] for name in ("passwordauthentication", "kbdinteractiveauthentication")} == {"no"}
    assert {settings[name] for name in ("allowtcpforwarding", "x11forwarding", "allowagentforwarding")} == {"no"}
    assert settings["authorizedkeysfile"] == f"{KEYS}/%u"


def test_no_weak_algorithm_is_offered_and_pyinfra_still_finds_one(judge: Judge, target: Target) -> None:
    settings = effective(judge, target, "gatekeeper")
    offered = {name: settings[name].split(",") for name in ("kexalgorithms", "ciphers", "macs", "hostkeyalgorithms")}
    exchanges = offered["kexalgorithms"]
    assert "sntrup761" in exchanges[0]
    assert "curve25519-sha256@libssh.org" in exchanges
    assert all("25519" in exchange for exchange in exchanges)
    assert all(cipher.endswith(("-ctr", "-gcm@openssh.com", "-poly1305@openssh.com")) for cipher in offered["ciphers"])
    assert all("-etm@" in mac for mac in offered["macs"])
    assert offered["hostkeyalgorithms"] == ["ssh-ed25519"]


def test_the_administrator_may_become_root_without_a_password_and_others_may_not(judge: Judge, target: Target) -> None:
    judge.install(*ssh.configuration(target.site))
    allowed = judge.run("chmod 0440 /etc/sudoers.d/50-gatehouse && su gatekeeper -c 'sudo -n id -u'")
    assert allowed.output.splitlines()[-1] == "0"
    assert not judge.run("su games -s /bin/sh -c 'sudo -n id -u'")


def test_authorized_keys_are_the_sites_and_only_root_can_write_them(target: Target) -> None:
    (keys,) = (f for f in ssh.configuration(target.site) if isinstance(f, lifecycle.File) and f.path.startswith(KEYS))
    assert keys.content.decode() == f"{KEY}\n"
    assert (keys.owner, keys.mode & 0o022) == ("root", 0)


def test_the_fact_tells_a_fresh_host_from_a_prepared_one(judge: Judge) -> None:
    ask = SshHost().command("gatekeeper", ssh.HOST_KEY, ssh.CONFIGURATION)
    judge.run(
        "printf '\\n  port 2200\\n' >>/etc/ssh/sshd_config; usermod -p '' gatekeeper;"
        f" mkdir -p {KEYS}; touch {KEYS}/gatekeeper {KEYS}/former"
    )
    fresh = SshHost().process(judge.run(ask).output.splitlines())
    assert fresh.exists
    assert not fresh.locked
    assert not fresh.ages
    assert fresh.host_key
    assert fresh.weak_moduli
    assert any("ecdsa" in path for path in fresh.weak_keys)
    assert not any("ed25519" in path for path in fresh.weak_keys)
    assert fresh.others == (f"{KEYS}/former",)
    assert not fresh.clear
    assert fresh.elsewhere == ("/etc/ssh/sshd_config",)

    judge.run(
        f"rm {KEYS}/former /etc/ssh/ssh_host_[er][cs]*; usermod -p '*' -s /bin/bash gatekeeper;"
        f" awk '$5 >= 3071' {MODULI} >/tmp/moduli && cp /tmp/moduli {MODULI};"
        f" sed -i -E 's/{LISTENS}/# &/I' /etc/ssh/sshd_config"
    )
    judge.run("chage -M 365 gatekeeper")
    assert SshHost().process(judge.run(ask).output.splitlines()).ages
    judge.run(f"chage -M {NEVER} gatekeeper")
    prepared = SshHost().process(judge.run(ask).output.splitlines())
    assert prepared.locked
    assert not prepared.ages
    assert prepared.shell == "/bin/bash"
    assert prepared.host_key
    assert prepared.clear
    assert not prepared.elsewhere


def altered(target: Target, path: str, old: bytes, new: bytes) -> list[lifecycle.File | lifecycle.Directory]:
    """The role's files with one of them changed."""
    entries = list(ssh.configuration(target.site))
    (place,) = (index for index, entry in enumerate(entries) if entry.path == path)
    entry = entries[place]
    assert isinstance(entry, lifecycle.File)
    assert old in entry.content
    entries[place] = replace(entry, content=entry.content.replace(old, new))
    return entries
