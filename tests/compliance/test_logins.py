"""Logins and accounts: what a password must be, what a new account gets, what a person's shell is held to."""

from __future__ import annotations

import pytest

from gatehouse.proof.plugin import cannot_prove
from roles.base import FOR_ROOT_ALONE
from roles.ssh.facts import NEVER

IDLE_AT_MOST = 900  # seconds; CIS Debian 12, 5.4.3.2
OLD_AT_MOST = 365  # days; CIS Debian 12, 5.4.1.1
SHA_ROUNDS = 100_000
TRIED = "gatehouse-tried"
WEAK = ("raspberry", "Tr0ub4dor", "kX9-vQ2.mZ7")  # the last one is only too short: 11 characters
STRONG = "correct.horse.Battery9.staple"
OTHER = "another.horse.Battery7.clip"
GUESSES_AT_MOST = 5  # CIS Debian 12, 5.3.3.1.1
# PAM is asked as a login does, about an account and its password; and as sshd does of who has shown a key.
GUESS = """
import ctypes, sys
who, right, guesses = sys.argv[1], sys.argv[2], int(sys.argv[3])
pam, libc = ctypes.CDLL("libpam.so.0"), ctypes.CDLL(None)
libc.strdup.restype = libc.calloc.restype = ctypes.c_void_p
class Message(ctypes.Structure):
    _fields_ = [("style", ctypes.c_int), ("text", ctypes.c_char_p)]
class Response(ctypes.Structure):
    _fields_ = [("text", ctypes.c_void_p), ("code", ctypes.c_int)]
Ask = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.POINTER(ctypes.POINTER(Message)),
                       ctypes.POINTER(ctypes.POINTER(Response)), ctypes.c_void_p)
class Conversation(ctypes.Structure):
    _fields_ = [("ask", Ask), ("data", ctypes.c_void_p)]
at_once = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p)(lambda *_: None)
def says(word, *steps):
    def ask(number, messages, answers, _):
        made = ctypes.cast(libc.calloc(number, ctypes.sizeof(Response)), ctypes.POINTER(Response))
        for each in range(number):
            made[each].text = libc.strdup(word.encode()) if messages[each].contents.style in (1, 2) else None
        answers[0] = made
        return 0
    talk, handle = Conversation(Ask(ask), None), ctypes.c_void_p()
    pam.pam_start(who.encode(), who.encode(), ctypes.byref(talk), ctypes.byref(handle))
    pam.pam_set_item(handle, 10, ctypes.cast(at_once, ctypes.c_void_p))  # PAM_FAIL_DELAY
    code = next((code for step, flags in steps if (code := step(handle, flags))), 0)  # a refusal is the last
    pam.pam_end(handle, code)
    return "refused" if code else "in"
login = ((pam.pam_authenticate, 0), (pam.pam_acct_mgmt, 0))
print("before", says(right, *login))
for _ in range(guesses):
    says("wrong", *login)
print("after", says(right, *login))
print("key", says("", (pam.pam_acct_mgmt, 0), (pam.pam_setcred, 2)))  # PAM_ESTABLISH_CRED
"""
# An account is made, with passwords, in a copy of /etc that nobody else sees and that is gone with this shell. What is
# a link into /etc/alternatives, such as awk, does not work there.
IN_A_COPY = f"""
set -eu
umask 022
mount -t tmpfs -o mode=0700 none /mnt
mkdir /mnt/etc
cd /etc
for each in passwd shadow group gshadow subuid subgid login.defs nsswitch.conf pam.conf pam.d security default skel; do
    [ ! -e $each ] || cp -aL $each /mnt/etc/
done
mount --bind /mnt/etc /etc
useradd --no-log-init --create-home --home-dir /mnt/home {TRIED}
echo "ages $(getent shadow {TRIED} | cut -d: -f4,5)"
stat -c 'home %a' /mnt/home
for word in {" ".join((*WEAK, STRONG))}; do
    if echo "{TRIED}:$word" | chpasswd >/dev/null 2>&1; then echo "$word taken"; else echo "$word refused"; fi
done
echo "hash $(getent shadow {TRIED} | cut -d'$' -f2)"
echo "{TRIED}:{STRONG}" | chpasswd --crypt-method SHA512
echo "sha512 $(getent shadow {TRIED} | cut -d'$' -f3)"
for word in {OTHER} {STRONG}; do
    if echo "{TRIED}:$word" | chpasswd >/dev/null 2>&1; then got=taken; else got=refused; fi
    echo "again-$word $got"
done
echo "{TRIED}:{STRONG}" | chpasswd --crypt-method SHA512
printf '@include common-auth\\n@include common-account\\n' >/etc/pam.d/{TRIED}
mkdir -p /run/faillock
mount -t tmpfs -o mode=0755 none /run/faillock
python3 -I -c "$1" {TRIED} {STRONG} {GUESSES_AT_MOST} || echo "before broken"
"""
# Accounts' files: what nobody but root may have beyond these (CIS Debian 12, 7.1).
ACCOUNT_FILES = {"passwd": 0o644, "group": 0o644, "shadow": 0o640, "gshadow": 0o640, "shells": 0o644}
LOOSE = (
    'findmnt -lnr -o TARGET --real | while read -r top; do [ ! -d "$top" ] || find "$top" -xdev'
    " \\( -type f -perm -0002 -o -type d -perm -0002 ! -perm -1000 \\) -printf 'written by everybody: %p\\n'"
    " -o \\( -nouser -o -nogroup \\) -printf 'owned by nobody: %p\\n'; done"
)


PAM = pytest.mark.controls("CIS-Debian-12-v1.1.0:5.3.x")


def tried(live):
    """`{word: what came of it}` of the account that was made and is gone."""
    seen = live.run("unshare", "--mount", "sh", "-c", IN_A_COPY, "sh", GUESS)
    if seen.result.get("status") != 0:
        cannot_prove(f"no account could be tried: {str(seen.result.get('error') or seen.outcome).strip()[-200:]}")
    return dict(line.split(" ", 1) for line in seen.result["output"].splitlines())


@PAM
@pytest.mark.controls("OWASP-IoT-Top10-2018:I1", "OWASP-ISVS-1.0+main-2026-06:2.1.5")
@pytest.mark.check("host.passwords")
def test_a_weak_password_is_refused_and_a_strong_one_is_hashed_slowly(live, evidence):
    """An account, made in a copy, gets no password that is easily guessed, or shorter than 12 characters; one that it
    gets takes long to try."""
    found = tried(live)
    for word in (*WEAK, STRONG):
        evidence({"from": "gateway", "sent": f"chpasswd: {word}", "got": found[word]})
    evidence({"from": "gateway", "sent": "its hash", "got": f"{found['hash']}; by SHA-512: {found['sha512']}"})
    if found[STRONG] != "taken":
        cannot_prove("not even a strong password is taken, so a refusal says nothing")
    for word in WEAK:
        assert found[word] == "refused", f"{word} may be a password"
    assert found["hash"] == "y", f"passwords are hashed by ${found['hash']}$, not by yescrypt"
    assert found["sha512"] == f"rounds={SHA_ROUNDS}", f"SHA-512 with {found['sha512'] or 'its own few rounds'}"


@PAM
@pytest.mark.check("host.former-passwords")
def test_a_password_does_not_come_back(live, evidence):
    """That account may change its password to another, and not back to the one before."""
    found = tried(live)
    another, back = found.get(f"again-{OTHER}"), found.get(f"again-{STRONG}")
    evidence({"from": "gateway", "sent": "chpasswd: to another one, and back", "got": f"{another}, then {back}"})
    if another != "taken":
        cannot_prove("not even another strong password is taken, so a refusal says nothing")
    assert back == "refused", "a former password may come back"


@PAM
@pytest.mark.check("host.guesses")
def test_who_guesses_a_password_is_shut_out_and_who_has_a_key_is_not(live, evidence):
    """After a few wrong passwords for that account the right one is refused for a while; who shows a key is let in."""
    found = tried(live)
    before, after, key = (found.get(name, "nothing") for name in ("before", "after", "key"))
    evidence({"from": "gateway", "sent": "the right password", "got": before})
    evidence(
        {"from": "gateway", "sent": f"the same after {GUESSES_AT_MOST} wrong ones", "got": f"{after}; by key: {key}"}
    )
    if before != "in":
        cannot_prove(f"not even the right password gets in: {before}")
    assert after == "refused", f"after {GUESSES_AT_MOST} wrong passwords the right one is still taken"
    assert key == "in", "whoever guesses an account's password keeps it from logging in with its key"


@pytest.mark.controls("CIS-Debian-12-v1.1.0:5.4.x", "OWASP-ISVS-1.0+main-2026-06:3.2.1")
@pytest.mark.check("host.new-accounts")
def test_a_new_account_ages_and_its_home_is_its_own_and_the_administrator_is_never_locked_out(live, evidence):
    """An account, made in a copy, must change its password within a year, and nobody looks into its home; the account
    that administers the gateway, which has no password, does not grow old."""
    found = tried(live)
    evidence({"from": "gateway", "sent": "useradd", "got": f"days {found['ages']}, home {found['home']}"})
    least, most = (int(days) for days in found["ages"].split(":"))
    assert least >= 1, "a password can be changed back at once"
    assert most <= OLD_AT_MOST, f"a password is good for {most} days"
    assert int(found["home"], 8) & 0o027 == 0, f"others may look into its home (mode {found['home']})"
    user = live.site.ssh.user
    entry = str(live.run("getent", "shadow", user).result.get("output", "")).strip().split(":")
    if len(entry) < 5:
        cannot_prove(f"there is no {user}: deploy first")
    evidence({"from": "gateway", "sent": f"days that {user} has", "got": entry[4] or "no end"})
    assert not entry[4] or int(entry[4]) >= NEVER, f"{user} is locked out when a password is {entry[4]} days old"


@pytest.mark.controls("CIS-Debian-12-v1.1.0:5.4.x", "OWASP-ISVS-1.0+main-2026-06:2.1.13")
@pytest.mark.check("host.login-shell")
def test_what_a_person_makes_is_not_for_everybody_and_an_idle_prompt_ends(live, evidence):
    """A login shell of the administrator makes files that others can't read, and ends when nobody types; what is run as
    root out of it makes files that services can read."""
    shell = (
        "f=$(mktemp -u); : >$f; stat -c %a $f; rm -f $f; echo ${TMOUT:-0}; sudo -n sh -c umask;"
        " (TMOUT=0; echo changed) 2>/dev/null"
    )
    done = live.login(*live.same_connection, run=f"bash -lc '{shell}'")
    evidence({"from": "operator", "to": live.name, "sent": f"bash -lc '{shell}'", "got": done.stdout.split()})
    said = done.stdout.split()
    if len(said) < 3:
        cannot_prove(f"no login shell: {done.stderr.strip()[-200:]}")
    assert int(said[0], 8) & 0o027 == 0, f"a new file has mode {said[0]}"
    assert 0 < int(said[1]) <= IDLE_AT_MOST, f"an idle prompt ends after {said[1]} seconds"
    assert int(said[2], 8) & 0o044 == 0, f"sudo runs with the umask {said[2]}: services can't read what it makes"
    assert said[3:] == [], "whoever is logged in may take that away"


@pytest.mark.controls("CIS-Debian-12-v1.1.0:1.5.3")
@pytest.mark.check("host.core-dumps")
def test_nothing_dumps_its_memory_to_the_disk(live, evidence):
    """Neither a session nor what systemd starts may write a core dump, nor can it allow itself one."""
    for what, command in (
        ("a session", ("sh", "-c", "ulimit -Hc")),
        ("a service", ("systemd-run", "--wait", "--pipe", "--quiet", "--collect", "sh", "-c", "ulimit -Hc")),
    ):
        seen = live.run(*command)
        limit = str(seen.result.get("output", "")).strip()
        evidence({"from": "gateway", "sent": f"{what}: ulimit -Hc", "got": limit, "at": seen.result.get("at")})
        if not limit:
            cannot_prove(f"{what} could not be asked: {seen.result.get('error') or seen.outcome}")
        assert limit == "0", f"{what} may dump its memory ({limit})"


@pytest.mark.controls("CIS-Debian-12-v1.1.0:7.1.x", "OWASP-ISVS-1.0+main-2026-06:3.2.1")
@pytest.mark.check("host.file-modes")
def test_no_file_is_for_everybody_to_write_and_accounts_and_roots_jobs_are_roots(live, evidence):
    """Accounts' files and root's jobs are root's, and no file on a disk can be written by everybody or has no owner."""
    wanted = {f"/etc/{name}{end}": mode for name, mode in ACCOUNT_FILES.items() for end in ("", "-")} | FOR_ROOT_ALONE
    listed = live.run("stat", "-c", "%a %U %G %n", *wanted)
    rows = [line.split(" ", 3) for line in str(listed.result.get("output", "")).splitlines()]
    for mode, owner, group, path in rows:
        evidence({"from": "gateway", "sent": f"stat {path}", "got": f"{owner}:{group} {mode}"})
        assert int(mode, 8) & ~wanted[path] == 0, f"{path} has mode {mode}, at most {wanted[path]:o}"
        assert owner == "root" and group in ("root", "shadow"), f"{path} belongs to {owner}:{group}"
    assert {"/etc/passwd", "/etc/shadow"} <= {path for *_, path in rows}, "the accounts' files could not be seen"
    found = live.run("sh", "-c", LOOSE)
    loose = str(found.result.get("output", "")).splitlines()
    evidence(
        {"from": "gateway", "sent": "find, on every disk", "got": loose[:20] or "nothing", "at": found.result["at"]}
    )
    assert not loose, f"{loose[0]}{f' and {len(loose) - 1} more' if len(loose) > 1 else ''}"
