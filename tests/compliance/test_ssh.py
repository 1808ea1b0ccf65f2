"""SSH: what it offers before and after a login. That only management reaches it is seen with all other listeners."""

from __future__ import annotations

import subprocess
from itertools import groupby

import pytest

from gatehouse.proof import defaults
from gatehouse.proof.plugin import cannot_prove
from gatehouse.site import MANAGEMENT

pytestmark = pytest.mark.controls(
    "CIS-Debian-12-v1.1.0:5.1.1-22", "ETSI-EN-303-645-v3.1.3:5.1-3", "ETSI-EN-303-645-v3.1.3:5.6-4A"
)

ATTEMPTS_SHOWN, ATTEMPTS_AT_MOST = 12, 6

# What is sound today (RFC 9142, OpenSSH's own defaults without those it keeps for old clients).
SOUND = {
    "kex": {
        "mlkem768x25519-sha256", "sntrup761x25519-sha512", "sntrup761x25519-sha512@openssh.com",
        "curve25519-sha256", "curve25519-sha256@libssh.org", "ext-info-s", "kex-strict-s-v00@openssh.com",
    },
    "host_keys": {"ssh-ed25519", "rsa-sha2-512", "rsa-sha2-256"},
    "ciphers": {
        "chacha20-poly1305@openssh.com", "aes256-gcm@openssh.com", "aes128-gcm@openssh.com",
        "aes256-ctr", "aes192-ctr", "aes128-ctr",
    },
    "macs": {"hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "umac-128-etm@openssh.com"},
    "compression": {"none", "zlib@openssh.com"},
}  # fmt: skip


def said(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return lines[-1] if lines else "nothing"


def note_login(evidence, live, done, sent, where):
    evidence({"from": "operator", "to": where, "sent": sent, "got": f"status {done.returncode}: {said(done)}"})


def refused_with_key_only(done):
    return done.returncode == 255 and "Permission denied (publickey)" in done.stderr


def suite_is_logged_in(live, evidence):
    """The administrator's own login, over which this suite runs, is the success beside each refusal."""
    evidence(
        {"from": "operator", "sent": f"login as {live.administrator} with the administrator's key", "got": "a session"}
    )
    if live.administrator != live.site.ssh.user:
        cannot_prove(
            f"the gateway is still administered as {live.administrator}, not as {live.site.ssh.user}: deploy first"
        )


def the_administrator_logs_in(live, evidence):
    """The success beside what was guessed."""
    done = live.login_at_last()
    note_login(evidence, live, done, f"login as {live.site.ssh.user} with the administrator's key", live.name)
    if done.returncode != 0:
        cannot_prove(f"not even the administrator logs in: {said(done)}")


@pytest.mark.controls("OWASP-ISVS-1.0+main-2026-06:2.4.2")
@pytest.mark.check("ssh.algorithms")
def test_ssh_offers_sound_algorithms_only(live, evidence):
    """Key exchange, host keys, ciphers and MACs that the server itself proposes are sound ones."""
    place = live.place(MANAGEMENT)
    asked = [{"kind": "ssh", "address": a, "port": live.site.ssh.port} for a in place.gateway if place.family(a)]
    for seen in live.ask({MANAGEMENT: asked})[MANAGEMENT]:
        offered = {}
        for name, values in seen.result.items():
            family = name.removesuffix("_in").removesuffix("_out")
            if family in SOUND:
                offered.setdefault(family, set()).update(values)
        evidence({**seen.evidence(), "banner": seen.result.get("banner"), **{k: sorted(v) for k, v in offered.items()}})
        assert seen.reached and offered.keys() == SOUND.keys(), f"no proposal: {seen}"
        for family, values in offered.items():
            assert not values - SOUND[family], f"{family}: {', '.join(sorted(values - SOUND[family]))}"


@pytest.mark.controls("ETSI-EN-303-645-v3.1.3:5.1-5", "OWASP-IoT-Top10-2018:I1")
@pytest.mark.controls("OWASP-ISVS-1.0+main-2026-06:2.1.3")
@pytest.mark.controls("EU-CRA-2024/2847:Annex I Part I (2)(b)")
@pytest.mark.check("ssh.keys-only")
def test_an_unknown_key_is_refused_and_no_password_is_asked_for(live, evidence, tmp_path):
    """For the administrator a key that is not known is refused, and nothing but keys is offered."""
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True, timeout=30)
    methods = ("-o", "PreferredAuthentications=publickey,password,keyboard-interactive", "-o", "IdentityAgent=none")
    command = ("-F", "none", "-o", f"IdentityFile={key}", *methods)
    done = live.login(*command, user=live.site.ssh.user, identity=False)
    note_login(evidence, live, done, f"login as {live.site.ssh.user} with a new key, or a password", live.name)
    assert done.returncode != 0, "a key that nobody has allowed logs in"
    assert refused_with_key_only(done), f"not refused with keys as the only way: {said(done)}"
    suite_is_logged_in(live, evidence)


@pytest.mark.controls("ETSI-EN-303-645-v3.1.3:5.1-1", "OWASP-IoT-Top10-2018:I1")
@pytest.mark.controls("OWASP-ISVS-1.0+main-2026-06:2.1.8")
@pytest.mark.check("ssh.refuses-default")
def test_the_logins_that_attackers_try_first_are_refused(live, evidence):
    """What makers set such machines up with is refused, each tried once; the administrator logs in right after it."""
    for user, passwords in groupby(defaults.of("ssh"), key=lambda login: login[0]):
        tried = [password for _, password in passwords]
        got = live.guess(user, tried)
        sent = f"login as {user} with {len(tried)} default passwords"
        evidence({"from": "operator", "to": live.name, "sent": sent, "got": got})
        assert got != "let in", f"{user} logs in with a default password"
        if got != "refused":
            cannot_prove(f"no answer that says no to {user}: {got}")
    the_administrator_logs_in(live, evidence)
    suite_is_logged_in(live, evidence)


@pytest.mark.controls("IEC-62443-3-3/4-2:SR/CR 1.11", "OWASP-ISVS-1.0+main-2026-06:2.1.12")
@pytest.mark.check("ssh.limits-attempts")
def test_who_tries_one_key_after_the_other_is_cut_off(live, evidence):
    """A connection that shows keys that nobody has allowed ends after a few; the administrator logs in right after."""
    tried, ended = live.tries(live.site.ssh.user, ATTEMPTS_SHOWN)
    sent, got = f"{ATTEMPTS_SHOWN} unknown keys over one connection", f"cut off after {tried}" if ended else "all heard"
    evidence({"from": "operator", "to": live.name, "sent": sent, "got": got})
    assert ended, f"{tried} keys were tried over one connection, and it is still there"
    assert tried <= ATTEMPTS_AT_MOST, f"{tried} keys were tried over one connection"
    the_administrator_logs_in(live, evidence)
    suite_is_logged_in(live, evidence)


@pytest.mark.controls("OWASP-ISVS-1.0+main-2026-06:2.2.2")
@pytest.mark.check("ssh.no-root")
def test_root_is_refused_even_with_the_administrators_key(live, evidence):
    """root does not log in, with the very key that lets the administrator in."""
    done = live.login(user="root")
    note_login(evidence, live, done, "login as root with the administrator's key", live.name)
    assert done.returncode != 0, "root logs in"
    assert refused_with_key_only(done), f"not refused by the server: {said(done)}"
    suite_is_logged_in(live, evidence)


@pytest.mark.check("ssh.notice")
def test_who_connects_is_told_that_it_is_logged_and_nothing_of_the_machine(live, evidence):
    """Before a login there is a notice; neither it nor the server's first line tells the system or its version."""
    banner, first = live.before_login(live.site.ssh.user)
    evidence({"from": "operator", "to": live.name, "sent": "a connection without a login", "got": [first, banner]})
    assert "logged" in banner and "prohibited" in banner, f"no notice: {banner[:80]!r}"
    told = [word for word in ("debian", "linux", live.name.lower()) if word in f"{banner} {first}".lower().split()]
    assert not told and "deb" not in first.lower(), f"it tells of the machine: {first} {told}"
    suite_is_logged_in(live, evidence)


@pytest.mark.check("ssh.no-forwarding")
def test_ssh_is_no_way_through_the_gateway(live, evidence):
    """A logged-in administrator gets a shell, and no forwarded connection past the firewall."""
    done = live.login(*live.same_connection, "-W", f"127.0.0.1:{live.site.ssh.port}", run=None)
    note_login(evidence, live, done, f"forwarding to 127.0.0.1:{live.site.ssh.port}", live.name)
    assert "SSH-2.0" not in done.stdout, "the connection was forwarded"
    shell = live.login(*live.same_connection, run="echo here")
    note_login(evidence, live, shell, "a command over the same connection", live.name)
    if shell.stdout.strip() != "here":
        cannot_prove("not even a command runs over that connection")
    suite_is_logged_in(live, evidence)
