"""What every role shares: packages, files that are accepted before they go live, and activation by what runs.

Each operation asks the gateway one question and acts on the answer; while nothing is changed, the questions of many are
asked together (`deploy.foresight`). Contents travel on standard input, never in arguments, and are staged in memory
(`/run`, mode 0700).
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Generator, Iterable

from pyinfra import host
from pyinfra.api import StringCommand, operation

from roles.apt import LOCK
from roles.differences import differs
from roles.facts import LOADED, Accounts, FileStates, Packages, UnitState, UnitStates
from roles.rendering import STAGED, STAMP, Directory, File, stamped, swap, template

__all__ = [
    "DECLARED",
    "LOADED",
    "POLICY",
    "STAGED",
    "STAMP",
    "Directory",
    "File",
    "UnitState",
    "absent",
    "accounts",
    "enabled",
    "files",
    "known",
    "packages",
    "running",
    "stamped",
    "stopped",
    "swap",
    "template",
]

# What a killed deploy left of it, the next one removes at its beginning.
POLICY = "/usr/sbin/policy-rc.d"
# In the connector's data: the paths of what this run puts, or would put, on a gateway (roles/integrity).
DECLARED = "gatehouse_declared"
# systemctl(1), is-enabled: what of a unit is started at boot, or by others.
STARTS = ("enabled", "static", "alias", "indirect", "generated")
_UNREAD = "systemd has not read its files as they are on the disk"


@operation()
def packages(*names: str) -> Generator[StringCommand, None, None]:
    """Installs Debian packages, in one transaction and without starting their services: a default is never live."""
    # What an operation of this run has seen installed needs no second look.
    seen: set[str] = host.connector_data.setdefault("gatehouse_packages", set())
    if seen.issuperset(names):
        return
    seen |= host.get_fact(Packages, names=sorted(set(names)))
    missing = sorted(set(names) - seen)
    if not missing:
        return
    for name in missing:
        differs(host.connector_data, "package", name, "not installed")
    apt = f"DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends -o {LOCK}"
    options = "-o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold -o Acquire::Retries=3"
    yield StringCommand(
        # systemd reads its units once afterwards, and not for each package.
        f"set -eu; export SYSTEMD_OFFLINE=1; P={POLICY}; own=; [ -e $P ] || own=$P;"
        " trap 'rm -f $own; env -u SYSTEMD_OFFLINE systemctl daemon-reload || true' EXIT;"
        " [ -e $P ] || { printf '#!/bin/sh\\n# Gatehouse: only while it installs\\nexit 101\\n' > $P; chmod 0755 $P; };"
        # What a run that was killed in the middle of a transaction left behind.
        " dpkg --configure -a --force-confdef --force-confold >/dev/null;"
        " [ -n \"$(find /var/lib/apt/lists -maxdepth 1 -name '*Packages*' -mmin -1440 | head -1)\" ] ||"
        # Without translated descriptions, which nobody reads here and which take as long as the packages' own.
        " apt-get -q update -o Acquire::Retries=3 -o Acquire::Languages=none || true;"
        f" {apt} {options} install {shlex.join(missing)} ||"
        f" {{ apt-get -q update; {apt} {options} install {shlex.join(missing)}; }} ||"
        " { echo 'gatehouse: no packages installed (does the mirror in /etc/apt answer, is there room?)' >&2; exit 1; }"
    )
    seen.update(missing)


@operation()
def files(*entries: File | Directory, check: str | None = None) -> Generator[StringCommand, None, None]:
    """Puts files in place: staged in memory, accepted by `check`, then renamed, each in one step.

    `check` is shell that must succeed with `$STAGED` as the root of a tree that holds all `entries`, under their paths.
    """
    host.connector_data.setdefault(DECLARED, set()).update(entry.path for entry in entries)
    states = host.get_fact(FileStates, paths=[entry.path for entry in entries])
    differing = [entry for entry in entries if states.get(entry.path) != _state(entry)]
    changed = [entry for entry in differing if isinstance(entry, File)]
    for entry in differing:
        differs(host.connector_data, "file", entry.path, _how(states.get(entry.path), _state(entry)))
        if isinstance(entry, Directory):
            yield StringCommand(
                f"install -d -o {entry.owner} -g {entry.group} -m {entry.mode:04o} -- {shlex.quote(entry.path)}"
            )
    if not changed:
        return
    staged = [entry for entry in entries if isinstance(entry, File)] if check else changed
    script, archive = swap(changed, staged, check)
    yield StringCommand(script, _stdin=archive)


def _state(entry: File | Directory) -> tuple[str, str, str, str]:
    kind = hashlib.sha256(entry.content).hexdigest() if isinstance(entry, File) else "directory"
    return entry.owner, entry.group, f"{entry.mode:o}", kind


def _how(found: tuple[str, str, str, str] | None, wanted: tuple[str, str, str, str]) -> str:
    """What of a file is not as it shall be, without a word of its content."""
    if found is None:
        return "missing"
    (owner, group, mode, kind), (own, its, right, content) = found, wanted
    parts = []
    if kind != content:
        parts.append("content" if "directory" not in (kind, content) else f"is {_word(kind)}, not {_word(content)}")
    if (owner, group) != (own, its):
        parts.append(f"owner {owner}:{group}, not {own}:{its}")
    if mode != right:
        parts.append(f"mode {mode}, not {right}")
    return "; ".join(parts)


def _word(kind: str) -> str:
    return "a directory" if kind == "directory" else "a file"


@operation()
def absent(*paths: str) -> Generator[StringCommand, None, None]:
    """Removes files that packages or earlier versions of the kit left."""
    present = sorted(host.get_fact(FileStates, paths=list(paths)))
    for path in present:
        differs(host.connector_data, "file", path, "there, and shall not be")
    if present:
        yield StringCommand(f"rm -f -- {shlex.join(present)}")


@operation()
def accounts(*names: str) -> Generator[StringCommand, None, None]:
    """Makes system accounts, each with a group of its name, that nobody can log in to."""
    missing = sorted(set(names) - host.get_fact(Accounts, names=sorted(names)))
    for name in missing:
        differs(host.connector_data, "account", name, "missing")
    if missing:
        line = "--system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin"
        yield StringCommand("; ".join(["set -e", *(f"useradd {line} -- {shlex.quote(name)}" for name in missing)]))


@operation()
def running(
    unit: str,
    *,
    loads: Iterable[str] = (),
    reload: str | None = None,
    prove: str | None = None,
    undo: str | None = None,
) -> Generator[StringCommand, None, None]:
    """Makes a unit enabled and active with what is on disk loaded; compares with what it has loaded, not with this run.

    `loads` are the files that the unit notes with `stamped`. `reload` is the command that makes it read them again
    (restart by default). `prove` is shell that must succeed afterwards; if it does not, the note is withdrawn, so that
    the next run acts again, and `undo` is run: shell that brings back what worked.
    """
    wanted = list(loads)
    state = host.get_fact(UnitState, unit=unit, loads=wanted)
    for how in unit_differences(state):
        differs(host.connector_data, "unit", unit, how)
    if state.get("UnitFileState") not in STARTS:
        # It has systemd read all units again, too.
        yield StringCommand(f"systemctl enable -- {shlex.quote(unit)}")
    elif state.get("NeedDaemonReload") == "yes":
        yield StringCommand("systemctl daemon-reload")
    act = None
    if state.get("ActiveState") != "active":
        act = f"systemctl reset-failed -- {shlex.quote(unit)} 2>/dev/null; systemctl restart -- {shlex.quote(unit)}"
    elif state.get("Loaded") != "yes" or state.get("NeedDaemonReload") == "yes":
        restart = f"systemctl restart -- {shlex.quote(unit)}"
        act = restart if reload is None or state.get("NeedDaemonReload") == "yes" else reload
    if act is None:
        return
    proof = f" && {{ {prove}; }}" if prove else ""
    way_back = f" {undo};" if undo else ""
    yield StringCommand(
        f"{{ {act}; }}{proof} || {{ rm -f {LOADED}/{shlex.quote(unit)};"
        f" journalctl -u {shlex.quote(unit)} -n 15 --no-pager -o cat >&2;{way_back} exit 1; }}"
    )


def unit_differences(state: dict[str, str]) -> list[str]:
    """What of a unit is not as it shall be: enabled, active, with its files as they are on the disk."""
    active, starts = state.get("ActiveState") == "active", state.get("UnitFileState")
    found = [f"{starts or 'unknown'}, not enabled"] if starts not in STARTS else []
    found += [] if active else [f"{state.get('ActiveState') or 'unknown'}, not running"]
    found += [_UNREAD] if state.get("NeedDaemonReload") == "yes" else []
    return found + (["runs on other files than those on the disk"] if active and state.get("Loaded") != "yes" else [])


@operation()
def known(*units: str) -> Generator[StringCommand, None, None]:
    """Has systemd read units that only others start, where they have changed."""
    for unit in units:
        if host.get_fact(UnitState, unit=unit, loads=[]).get("NeedDaemonReload") == "yes":
            differs(host.connector_data, "unit", unit, _UNREAD)
            yield StringCommand("systemctl daemon-reload")
            return


@operation()
def enabled(*units: str, start: bool = False) -> Generator[StringCommand, None, None]:
    """Makes units part of the gateway's start, and with `start` (timers) active now."""
    found = host.get_fact(UnitStates, units=list(units))
    states = {unit: found.get(unit, {}) for unit in units}
    off = [unit for unit in units if states[unit].get("UnitFileState") != "enabled"]
    idle = [unit for unit in units if start and states[unit].get("ActiveState") != "active"]
    for unit in off:
        differs(host.connector_data, "unit", unit, f"{states[unit].get('UnitFileState') or 'unknown'}, not enabled")
    for unit in idle:
        differs(host.connector_data, "unit", unit, f"{states[unit].get('ActiveState') or 'unknown'}, not running")
    if off:
        names = shlex.join(off)
        yield StringCommand(f"systemctl unmask --no-reload -- {names} 2>/dev/null; systemctl enable -- {names}")
    if idle:
        yield StringCommand(f"systemctl start -- {shlex.join(idle)}")


@operation()
def stopped(*units: str) -> Generator[StringCommand, None, None]:
    """Stops, disables and masks units that this gateway has no use for."""
    states = host.get_fact(UnitStates, units=list(units))
    for unit in units:
        state = states.get(unit, {})
        if state.get("UnitFileState", "") not in ("masked", "") or state.get("ActiveState") == "active":
            differs(host.connector_data, "unit", unit, f"{state.get('ActiveState')}, shall be stopped and masked")
            yield StringCommand(f"systemctl disable --now -- {unit} >/dev/null 2>&1; systemctl mask --now -- {unit}")
