"""What every role shares: packages, files that are accepted before they go live, and activation by what runs.

Each operation asks the gateway one question and acts on the answer; while nothing is changed, the questions of many are
asked together (`deploy.foresight`). Contents travel on standard input, never in arguments, and are staged in memory
(`/run`, mode 0700).
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import shlex
import sys
import tarfile
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from jinja2 import Environment, FileSystemBytecodeCache, FileSystemLoader, StrictUndefined, TemplateError
from jinja2.bccache import Bucket
from pyinfra import host
from pyinfra.api import StringCommand, operation
from pyinfra.api.exceptions import PyinfraError

from roles.facts import LOADED, FileStates, Packages, UnitState, UnitStates

TEMPLATES = Path(__file__).resolve().parent.parent / "templates"
HEADER = "Managed by Gatehouse: changes made here are overwritten by the next deploy."
STAMP = "/usr/lib/gatehouse/stamp"
# A staged tree is STAGED.XXXXXX. What a killed deploy left of it, and of POLICY, the next one removes at its beginning.
STAGED = "/run/gatehouse-staged"
POLICY = "/usr/sbin/policy-rc.d"


class _Compiled(FileSystemBytecodeCache):
    """Compiled templates, kept beside Python's own bytecode. One that can't be written is compiled again next time."""

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Writes nothing where the operator wants no bytecode (PYTHONDONTWRITEBYTECODE)."""
        with contextlib.suppress(OSError):
            if not sys.flags.dont_write_bytecode:
                (TEMPLATES / "__pycache__").mkdir(exist_ok=True)
                super().dump_bytecode(bucket)


_environment = Environment(
    loader=FileSystemLoader(TEMPLATES),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    autoescape=False,  # noqa: S701  configuration files, no HTML
    # Whoever changes one of these options changes the pattern too: a kept template doesn't know how it was compiled.
    bytecode_cache=_Compiled(str(TEMPLATES / "__pycache__"), "1-%s.cache"),
)


@dataclass(frozen=True)
class File:
    """A file as it shall be on the gateway: absolute path, content, `owner:group` and mode."""

    path: str
    content: bytes
    owner: str = "root"
    group: str = "root"
    mode: int = 0o644

    def __repr__(self) -> str:
        return f"File({self.path!r}, {len(self.content)} bytes, {self.owner}:{self.group} {self.mode:04o})"


@dataclass(frozen=True)
class Directory:
    """A directory as it shall be on the gateway."""

    path: str
    owner: str = "root"
    group: str = "root"
    mode: int = 0o755


class TemplateRefused(PyinfraError):
    """A template that can't be rendered; pyinfra prints it as one line."""


def _place(error: TemplateError) -> str:
    """`line 3: `, in the template that an error came from, as far as that is known."""
    line, frame = getattr(error, "lineno", None), error.__traceback__
    while frame is not None:
        if frame.tb_frame.f_code.co_filename.endswith(".j2"):
            line = frame.tb_lineno
        frame = frame.tb_next
    return f"line {line}: " if line else ""


def template(
    role: str, path: str, *, to: str = "", owner: str = "root", group: str = "root", mode: int = 0o644, **context: Any
) -> File:
    """The file `path`, or `to` where one template serves several, from `templates/ROLE/PATH.j2` with `header`."""
    name = f"{role}{path}.j2"
    try:
        text = _environment.get_template(name).render(header=HEADER, **context)
    except TemplateError as error:
        raise TemplateRefused(f"templates/{name}: {_place(error)}{error} (mend the template)") from None
    return File(to or path, text.encode(), owner, group, mode)


def stamped(unit: str, loads: Iterable[str], *, reloads: bool = True) -> File:
    """A drop-in that makes a unit note at each start and reload which content of `loads` it has read.

    At a start the note is taken before the service reads the files, at a reload after the unit's own commands for it
    succeeded; without a note the next deploy loads once more, so that a failure here stops no service.
    `reloads=False` is for units that `systemctl reload` doesn't know.
    """
    arguments = " ".join([unit, *loads])
    lines = [f"# {HEADER}", "[Service]", f"ExecStartPre=-+{STAMP} {arguments}"]
    lines += [f"ExecReload=-+{STAMP} {arguments}"] * reloads + [""]
    return File(f"/etc/systemd/system/{unit}.d/90-gatehouse-stamp.conf", "\n".join(lines).encode())


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
    apt = "DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends -o DPkg::Lock::Timeout=120"
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
    states = host.get_fact(FileStates, paths=[entry.path for entry in entries])
    differing = [entry for entry in entries if states.get(entry.path) != _state(entry)]
    changed = [entry for entry in differing if isinstance(entry, File)]
    for entry in differing:
        if isinstance(entry, Directory):
            yield StringCommand(
                f"install -d -o {entry.owner} -g {entry.group} -m {entry.mode:04o} -- {shlex.quote(entry.path)}"
            )
    if not changed:
        return
    staged = [entry for entry in entries if isinstance(entry, File)] if check else changed
    script, archive = swap(changed, staged, check)
    yield StringCommand(script, _stdin=archive)


def swap(changed: Iterable[File], staged: Iterable[File], check: str | None = None) -> tuple[str, str]:
    """Shell that puts `changed` in place, and what it reads on standard input: `staged`, an archive in base64."""
    swaps = []
    for entry in changed:
        path = PurePosixPath(entry.path)
        beside = shlex.quote(str(path.with_name(f".{path.name}.gatehouse-new")))
        source, target = f'"$STAGED"{shlex.quote(entry.path)}', shlex.quote(entry.path)
        swaps.append(
            f"mkdir -p -m 0755 {shlex.quote(str(path.parent))}; rm -f {beside};"
            f" cp --preserve=mode,ownership -- {source} {beside} && sync -- {beside} && mv -fT -- {beside} {target}"
            f" || {{ rm -f {beside}; echo 'gatehouse: {entry.path} not written: it is as it was (is there room?)' >&2;"
            " exit 1; }"
        )
    refused = "echo 'gatehouse: the new files were not accepted, nothing is replaced' >&2; exit 1"
    script = (
        f"set -eu; umask 022; export STAGED; STAGED=$(mktemp -d {STAGED}.XXXXXX);"
        ' trap \'rm -rf "$STAGED"\' EXIT; base64 -d | tar -x -p -C "$STAGED" --no-overwrite-dir; '
    )
    return script + (f"{{ {check}; }} || {{ {refused}; }}; " if check else "") + "; ".join(swaps), _archive(staged)


def _state(entry: File | Directory) -> tuple[str, str, str, str]:
    kind = hashlib.sha256(entry.content).hexdigest() if isinstance(entry, File) else "directory"
    return entry.owner, entry.group, f"{entry.mode:o}", kind


def _archive(entries: Iterable[File]) -> str:
    """A tar of the files, in base64."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for entry in entries:
            member = tarfile.TarInfo(entry.path.lstrip("/"))
            member.size, member.mode, member.uname, member.gname = (
                len(entry.content),
                entry.mode,
                entry.owner,
                entry.group,
            )
            archive.addfile(member, io.BytesIO(entry.content))
    return base64.b64encode(buffer.getvalue()).decode()


@operation()
def absent(*paths: str) -> Generator[StringCommand, None, None]:
    """Removes files that packages or earlier versions of the kit left."""
    present = sorted(host.get_fact(FileStates, paths=list(paths)))
    if present:
        yield StringCommand(f"rm -f -- {shlex.join(present)}")


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
    if state.get("UnitFileState") not in ("enabled", "static", "alias", "indirect", "generated"):
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


@operation()
def enabled(*units: str, start: bool = False) -> Generator[StringCommand, None, None]:
    """Makes units part of the gateway's start, and with `start` (timers) active now."""
    states = host.get_fact(UnitStates, units=list(units))
    if off := [unit for unit in units if states[unit]["UnitFileState"] != "enabled"]:
        names = shlex.join(off)
        yield StringCommand(f"systemctl unmask --no-reload -- {names} 2>/dev/null; systemctl enable -- {names}")
    if start and (idle := [unit for unit in units if states[unit]["ActiveState"] != "active"]):
        yield StringCommand(f"systemctl start -- {shlex.join(idle)}")


@operation()
def stopped(*units: str) -> Generator[StringCommand, None, None]:
    """Stops, disables and masks units that this gateway has no use for."""
    states = host.get_fact(UnitStates, units=list(units))
    for unit in units:
        state = states[unit]
        if state.get("UnitFileState") not in ("masked", "") or state.get("ActiveState") == "active":
            yield StringCommand(f"systemctl disable --now -- {unit} >/dev/null 2>&1; systemctl mask --now -- {unit}")
