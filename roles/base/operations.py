"""Settings in files that Debian's packages own, and that know no folder for those of others."""

from __future__ import annotations

import shlex
from collections.abc import Generator, Mapping, Sequence

from pyinfra import host
from pyinfra.api import StringCommand, operation

from roles.base.facts import LOGIN_DEFS, PASSWORDS, CoreLimit, Defined, Guards, JudgesPasswords
from roles.differences import differs
from roles.facts import FileStates

BY_HAND = "PAM is not as declared: pam-auth-update --force puts right what was changed by hand"


@operation()
def defined(settings: Mapping[str, str]) -> Generator[StringCommand, None, None]:
    """Sets what login.defs(5) has otherwise, each name once; everything else in it stays as it is."""
    current = host.get_fact(Defined)
    differing = {name: value for name, value in settings.items() if current.get(name) != value}
    for name, value in differing.items():
        differs(host.connector_data, "file", LOGIN_DEFS, f"{name} is {current.get(name, 'missing')}, not {value}")
    if differing:
        yield StringCommand(defining(differing))


def defining(settings: Mapping[str, str], path: str = LOGIN_DEFS) -> str:
    """Shell that sets them in the file, in one step."""
    lines = "".join(f"{name}\\t{value}\\n" for name, value in settings.items())
    return (
        f"set -e; umask 022; sed -E '/^[[:space:]]*({'|'.join(settings)})[[:space:]]/d' {path} >{path}.gatehouse-new;"
        f" printf '{lines}' >>{path}.gatehouse-new; sync {path}.gatehouse-new; mv -f {path}.gatehouse-new {path}"
    )


@operation()
def for_root_alone(modes: Mapping[str, int]) -> Generator[StringCommand, None, None]:
    """Gives files and directories that are there to root, with these modes."""
    states = host.get_fact(FileStates, paths=list(modes))
    wrong = {path: state for path, state in states.items() if state[:3] != ("root", "root", f"{modes[path]:o}")}
    for path, (owner, group, mode, _) in wrong.items():
        differs(host.connector_data, "file", path, f"{owner}:{group} {mode}, not root:root {modes[path]:o}")
    if wrong:
        steps = (f"chown root:root {shlex.quote(p)}; chmod {modes[p]:04o} {shlex.quote(p)}" for p in wrong)
        yield StringCommand("; ".join(["set -e", *steps]))


@operation()
def passwords_judged(options: str) -> Generator[StringCommand, None, None]:
    """Has PAM refuse weak passwords, by these options, where somebody has taken that out since the package came.

    pam-auth-update(8) keeps options that were changed in place.
    """
    found = host.get_fact(JudgesPasswords)
    if not found:
        differs(host.connector_data, "file", PASSWORDS, "does not ask passwdqc about new passwords")
        yield StringCommand("DEBIAN_FRONTEND=noninteractive pam-auth-update --enable passwdqc")
    elif found != f"judges {options}":
        differs(host.connector_data, "file", PASSWORDS, f"passwdqc {found}, not {options}")
    if found != f"judges {options}":
        yield StringCommand(judging(options))


def judging(options: str, path: str = PASSWORDS) -> str:
    """Shell that has passwdqc judge by the options, in one step."""
    return (
        f"set -e; umask 022; sed -E 's/^(password.*pam_passwdqc\\.so).*/\\1 {options}/' {path} >{path}.gatehouse-new;"
        f" sync {path}.gatehouse-new; mv -f {path}.gatehouse-new {path}"
    )


@operation()
def guarded(profiles: Sequence[str], wanted: Sequence[str]) -> Generator[StringCommand, None, None]:
    """Puts profiles into PAM, so that these lines stand there; options that somebody changed in place go, too."""
    if host.get_fact(Guards) == list(wanted):
        return
    differs(
        host.connector_data, "file", PASSWORDS, "and those for logins: guesses or former passwords are not looked at"
    )
    yield StringCommand(guarding(profiles, wanted))


def guarding(profiles: Sequence[str], wanted: Sequence[str]) -> str:
    """Shell that does; it fails where PAM's files don't say so then."""
    update, names = "DEBIAN_FRONTEND=noninteractive pam-auth-update", shlex.join(profiles)
    stands = f"{{ {Guards().command()}; }} | tr -s '[:blank:]' ' ' | sed 's/ $//' | paste -sd';'"
    return (
        f"set -e; {update} --package --remove {names}; {update} --enable {names};"
        f' [ "$({stands})" = {shlex.quote(";".join(wanted))} ] ||'
        f" {{ echo {shlex.quote(f'gatehouse: {BY_HAND}')} >&2; exit 1; }}"
    )


@operation()
def without_cores() -> Generator[StringCommand, None, None]:
    """Has systemd give what it starts the limit that its files say; what runs already has it from its next start on."""
    if (limit := host.get_fact(CoreLimit)) != "0":
        differs(host.connector_data, "unit", "systemd", f"limit of core dumps {limit or 'unknown'}, not 0")
        yield StringCommand(f'systemctl daemon-reload; [ "$({CoreLimit().command()})" = 0 ] || systemctl daemon-reexec')
