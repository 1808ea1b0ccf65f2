"""What a role puts on a gateway: files, rendered from templates, and the shell that swaps them in.

No pyinfra here: a command that has to act at once writes the same files as a deploy does, without its start.
"""

from __future__ import annotations

import base64
import contextlib
import io
import shlex
import sys
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from jinja2 import Environment, FileSystemBytecodeCache, FileSystemLoader, StrictUndefined, TemplateError
from jinja2.bccache import Bucket

from gatehouse.errors import GatehouseError

TEMPLATES = Path(__file__).resolve().parent.parent / "templates"
HEADER = "Managed by Gatehouse: changes made here are overwritten by the next deploy."
STAMP = "/usr/lib/gatehouse/stamp"
# A staged tree is STAGED.XXXXXX. What a killed deploy left of it, the next one removes at its beginning.
STAGED = "/run/gatehouse-staged"


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


class TemplateRefused(GatehouseError):
    """A template that can't be rendered."""


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


def swap(
    changed: Iterable[File], staged: Iterable[File], check: str | None = None, *, keep_same: bool = False
) -> tuple[str, str]:
    """Shell that puts `changed` in place, and what it reads on standard input: `staged`, an archive in base64.

    With `keep_same` a file whose content is there already stays as it is: each that is written waits for the disk.
    """
    swaps = []
    for entry in changed:
        path = PurePosixPath(entry.path)
        beside = shlex.quote(str(path.with_name(f".{path.name}.gatehouse-new")))
        source, target = f'"$STAGED"{shlex.quote(entry.path)}', shlex.quote(entry.path)
        unless = f"cmp -s -- {source} {target} || {{ " if keep_same else ""
        swaps.append(
            f"{unless}mkdir -p -m 0755 {shlex.quote(str(path.parent))}; rm -f {beside};"
            f" cp --preserve=mode,ownership -- {source} {beside} && sync -- {beside} && mv -fT -- {beside} {target}"
            f" || {{ rm -f {beside}; echo 'gatehouse: {entry.path} not written: it is as it was (is there room?)' >&2;"
            " exit 1; }" + ("; }" if keep_same else "")
        )
    refused = "echo 'gatehouse: the new files were not accepted, nothing is replaced' >&2; exit 1"
    script = (
        f"set -eu; umask 022; export STAGED; STAGED=$(mktemp -d {STAGED}.XXXXXX);"
        ' trap \'rm -rf "$STAGED"\' EXIT; base64 -d | tar -x -p -C "$STAGED" --no-overwrite-dir; '
    )
    return script + (f"{{ {check}; }} || {{ {refused}; }}; " if check else "") + "; ".join(swaps), _archive(staged)


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
