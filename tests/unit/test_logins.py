"""What the role `base` sets in files that Debian's packages own: only what differs, and nothing else in them."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from roles.base import GUARDED, PROFILES, SHORTEST_PASSWORDS, operations
from roles.base.facts import PASSWORDS, Defined, Guards, JudgesPasswords
from roles.differences import HEARD

DEBIANS = "# a comment\n#UMASK 077\nPASS_MAX_DAYS\t99999\n  PASS_MAX_DAYS 5\nUMASK\t\t022\nENV_PATH PATH=/usr/bin\n"
WANTED = {"PASS_MAX_DAYS": "365", "UMASK": "077", "SHA_CRYPT_MIN_ROUNDS": "100000"}


class Gateway:
    """Answers every question with the same, and notes what differs."""

    def __init__(self, answer: Any) -> None:
        self.answer, self.connector_data = answer, {HEARD: []}

    def get_fact(self, *_: Any, **__: Any) -> Any:
        return self.answer

    @property
    def told(self) -> list[tuple[str, str, str]]:
        return self.connector_data[HEARD]


def commands(monkeypatch: pytest.MonkeyPatch, gateway: Gateway, operation: Any, *arguments: Any) -> list[str]:
    monkeypatch.setattr(operations, "host", gateway)
    return [str(command) for command in operation._inner(*arguments)]


def read(path: Path) -> dict[str, str]:
    shown = subprocess.run(["sh", "-c", Defined().command().replace("/etc/login.defs", str(path))], capture_output=True)
    return Defined().process(shown.stdout.decode().splitlines())


def test_a_setting_is_changed_or_added_and_stands_there_once_and_the_rest_stays(tmp_path: Path) -> None:
    file = tmp_path / "login.defs"
    file.write_text(DEBIANS)
    assert read(file) == {"PASS_MAX_DAYS": "99999", "UMASK": "022", "ENV_PATH": "PATH=/usr/bin"}
    subprocess.run(["sh", "-c", operations.defining(WANTED, str(file))], check=True)
    assert read(file) == {"ENV_PATH": "PATH=/usr/bin", **WANTED}
    lines = file.read_text().splitlines()
    assert lines[:3] == ["# a comment", "#UMASK 077", "ENV_PATH PATH=/usr/bin"] and len(lines) == 6
    assert list(tmp_path.iterdir()) == [file] and file.stat().st_mode & 0o777 == 0o644


def test_only_what_login_defs_has_otherwise_is_set_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = Gateway({**WANTED, "UMASK": "022"})
    (command,) = commands(monkeypatch, gateway, operations.defined, WANTED)
    assert "UMASK\\t077" in command and "PASS_MAX_DAYS" not in command
    assert gateway.told == [("file", "/etc/login.defs", "UMASK is 022, not 077")]
    assert commands(monkeypatch, Gateway(WANTED), operations.defined, WANTED) == []


def test_what_is_roots_alone_is_given_back_and_what_is_missing_is_left_so(monkeypatch: pytest.MonkeyPatch) -> None:
    modes = {"/etc/crontab": 0o600, "/etc/cron.d": 0o700, "/etc/cron.daily": 0o700}
    right = {"/etc/crontab": ("root", "root", "600", "sha"), "/etc/cron.d": ("root", "root", "700", "directory")}
    assert commands(monkeypatch, Gateway(right), operations.for_root_alone, modes) == []
    gateway = Gateway({**right, "/etc/cron.d": ("games", "root", "755", "directory")})
    assert commands(monkeypatch, gateway, operations.for_root_alone, modes) == [
        "set -e; chown root:root /etc/cron.d; chmod 0700 /etc/cron.d"
    ]
    assert gateway.told == [("file", "/etc/cron.d", "games:root 755, not root:root 700")]


@pytest.mark.parametrize(
    ("operation", "right", "wrong", "does"),
    [
        (operations.without_cores, "0", "infinity", "systemctl daemon-reload"),
    ],
)
def test_what_is_as_it_shall_be_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, operation: Any, right: Any, wrong: Any, does: str
) -> None:
    assert commands(monkeypatch, Gateway(right), operation) == []
    gateway = Gateway(wrong)
    (command,) = commands(monkeypatch, gateway, operation)
    assert does in command and len(gateway.told) == 1


def judged_by(path: Path) -> str:
    command = JudgesPasswords().command().replace(PASSWORDS, str(path))
    shown = subprocess.run(["sh", "-c", command], capture_output=True, check=False)
    return JudgesPasswords().process(shown.stdout.decode().splitlines())


def test_passwdqc_is_told_how_short_a_password_may_be_and_the_other_modules_stay(tmp_path: Path) -> None:
    file = tmp_path / "common-password"
    assert judged_by(file) == ""
    unix = "password\t[success=1 default=ignore]\tpam_unix.so obscure use_authtok yescrypt\n"
    file.write_text(f"# here are\npassword\trequisite\t\t\tpam_passwdqc.so\n{unix}")
    assert judged_by(file) == "judges"
    for options in (SHORTEST_PASSWORDS, "min=8,8,8,8,8"):
        subprocess.run(["sh", "-c", operations.judging(options, str(file))], check=True)
        assert judged_by(file) == f"judges {options}"
    assert file.read_text().endswith(unix) and len(file.read_text().splitlines()) == 3
    assert list(tmp_path.iterdir()) == [file] and file.stat().st_mode & 0o777 == 0o644


def test_passwdqc_is_brought_back_where_it_was_taken_out_and_otherwise_told_its_options(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert commands(monkeypatch, Gateway("judges min=x"), operations.passwords_judged, "min=x") == []
    gone, other = Gateway(""), Gateway("judges retry=3")
    enable, judge = commands(monkeypatch, gone, operations.passwords_judged, "min=x")
    assert "pam-auth-update --enable passwdqc" in enable and "min=x" in judge and len(gone.told) == 1
    assert commands(monkeypatch, other, operations.passwords_judged, "min=x") == [judge]
    assert other.told == [("file", PASSWORDS, "passwdqc judges retry=3, not min=x")]


def test_guesses_are_counted_and_former_passwords_refused_where_pam_does_not_say_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert commands(monkeypatch, Gateway(list(GUARDED)), operations.guarded, PROFILES, GUARDED) == []
    for found in ([], list(GUARDED[:-1]), [line.replace("deny=5", "deny=500") for line in GUARDED]):
        gateway = Gateway(found)
        (command,) = commands(monkeypatch, gateway, operations.guarded, PROFILES, GUARDED)
        assert "--package --remove" in command and "--enable gatehouse-faillock" in command and len(gateway.told) == 1


@pytest.mark.parametrize("takes_it", [True, False])
def test_pam_is_looked_at_again_once_it_was_told(tmp_path: Path, takes_it: bool) -> None:
    """By files in a folder, and a pam-auth-update(8) that does what it is told, or nothing, as where somebody has
    changed these files by hand."""
    update, lines = tmp_path / "pam-auth-update", "\\n".join(line.replace(" ", "\\t", 1) + " " for line in GUARDED)
    written = f"printf '{lines}\\n' >{tmp_path}/common-auth" if takes_it else "true"
    update.write_text(f'#!/bin/sh\n[ "$1" != --enable ] || {written}\n')
    update.chmod(0o755)
    (tmp_path / "common-auth").write_text("auth\t[success=1 default=ignore]\tpam_unix.so nullok\n")
    script = operations.guarding(PROFILES, GUARDED).replace("/etc/pam.d", str(tmp_path))
    done = subprocess.run(["sh", "-c", f"PATH={tmp_path}:$PATH; {script}"], capture_output=True, text=True)
    assert (done.returncode == 0) == takes_it, done.stderr
    assert ("pam-auth-update --force" in done.stderr) != takes_it
    command = Guards().command().replace("/etc/pam.d", str(tmp_path))
    shown = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert Guards().process(shown.stdout.splitlines()) == (list(GUARDED) if takes_it else [])
