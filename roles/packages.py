"""Packages that Debian hasn't got: from a folder of the operator's, pinned by SHA-256, or from a maker's repository.

Where there is none, a role says *not deployed* and why, and the deploy goes on.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shlex
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import NamedTuple

from pyinfra import host
from pyinfra.api import FactBase, StringCommand
from pyinfra.api.exceptions import PyinfraError

from gatehouse.site import LocalFile, LocalPackage, Repository, Site
from roles.apt import LOCK
from roles.rendering import HEADER

FOLDER = "GATEHOUSE_PACKAGES"
NOTES = "/var/lib/gatehouse/packages"
POLICY = "/usr/sbin/policy-rc.d"


class PackageRefused(PyinfraError):
    """A file that is not the one that the site pins; pyinfra prints it as one line."""


class Present(NamedTuple):
    """What is installed: the version, and the SHA-256 of the file that the kit installed it from; empty for none."""

    version: str = ""
    sha256: str = ""


class Installed(FactBase[Present]):
    """Whether a package is installed, and from which file."""

    default = Present

    def command(self, package: str) -> str:
        """One dpkg-query, and the kit's own note."""
        shown = "'${db:Status-Abbrev} ${Version}\\n'"
        return f"dpkg-query -W -f={shown} {shlex.quote(package)} 2>/dev/null; cat {NOTES}/{package} 2>/dev/null; true"

    def process(self, output: list[str]) -> Present:
        """`ii 9.4.7`, and 64 hexadecimal digits."""
        version = next((line.split()[1] for line in output if line.startswith(("ii ", "hi "))), "")
        return Present(version, next((line for line in output if version and len(line) == 64), ""))


class Answers(FactBase[bool]):
    """Whether a package repository answers the gateway."""

    default = bool
    takes_long = True

    def command(self, repository: Repository) -> str:
        """Asks for the list that apt would ask for first."""
        url = f"{repository.url}/dists/{repository.suite}/InRelease"
        ask = "import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=10).read(1)"
        return f"python3 -I -c {shlex.quote(ask)} {shlex.quote(url)} 2>/dev/null && echo answers || true"

    def process(self, output: list[str]) -> bool:
        """`answers`, or nothing."""
        return "answers" in output


def folders(site: Site) -> Iterator[Path]:
    """Where packages are looked for: the operator's folder; a lab has one of its own besides."""
    if os.environ.get(FOLDER):
        yield Path(os.environ[FOLDER])
    if site.lab and site.state:
        yield site.state / "packages"


def local(site: Site, wanted: LocalFile | None) -> Path | None:
    """The file that the site pins; None where it pins none, or it is not there.

    Raises `PackageRefused` when a file of that name is there and is not the one that was pinned.
    """
    return (
        next(filter(None, (_pinned(f / wanted.file, wanted.sha256) for f in folders(site))), None) if wanted else None
    )


def checked(site: Site, wanted: LocalFile | None) -> None:
    """Ends the deploy before anything is changed, where a file is not the pinned one. Raises `PackageRefused`."""
    local(site, wanted)


def _pinned(path: Path, sha256: str) -> Path | None:
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PackageRefused(f"{path}: {error.strerror} (mend its owner and mode)") from None
    if found != sha256:
        raise PackageRefused(
            f"{path}: its SHA-256 is {found}, the site pins {sha256}: not installed (get it anew, or pin this one once"
            " you know where it comes from)"
        )
    return path


def why_not(field: str, wanted: LocalFile | None) -> str:
    """Why there is none, and what to do. `field` is the site's that would name one."""
    if wanted is None:
        return f"{field}: the site names no package for it (add `package` with file and sha256)"
    folder = os.environ.get(FOLDER)
    return f"{wanted.file} is not in {folder}" if folder else f"{FOLDER} names no folder that holds {wanted.file}"


def installed(
    name: str, field: str, site: Site, wanted: LocalPackage | None, repository: Repository | None = None
) -> Generator[StringCommand, None, str]:
    """Installs a package where it is missing, or is another file than the site pins; empty, or why it is not there."""
    present = host.get_fact(Installed, package=name)
    file = local(site, wanted)
    if file is not None and wanted is not None and present.sha256 != wanted.sha256:
        content = base64.b64encode(file.read_bytes()).decode()
        yield StringCommand(_from_file(name, file.name, wanted.sha256), _stdin=content)
    elif not present.version and file is None:
        if repository is None:
            return why_not(field, wanted)
        key = local(site, repository.key)
        if key is None:
            return why_not(f"{field} repository", repository.key)
        if not host.get_fact(Answers, repository=repository):
            return f"{repository.url} does not answer the gateway"
        content = base64.b64encode(key.read_bytes()).decode()
        yield StringCommand(_from_repository(name, repository), _stdin=content)
    return ""


_APT = (
    f"apt-get -q -y --no-install-recommends -o {LOCK} -o Dpkg::Options::=--force-confdef"
    " -o Dpkg::Options::=--force-confold"
)


def _quietly(work: str) -> str:
    """Shell that installs without starting any service: a default is never live."""
    return (
        f"set -eu; umask 022; export SYSTEMD_OFFLINE=1 DEBIAN_FRONTEND=noninteractive; P={POLICY}; D=$(mktemp -d);"
        " trap 'rm -rf \"$D\" $P; env -u SYSTEMD_OFFLINE systemctl daemon-reload' EXIT;"
        " printf '#!/bin/sh\\n# Gatehouse: only while it installs\\nexit 101\\n' >$P; chmod 0755 $P; chmod 0755 $D;"
        f" {work}"
    )


def _from_file(name: str, file: str, sha256: str) -> str:
    """Shell that installs a package from its standard input, and notes which it was."""
    return _quietly(
        f"base64 -d >$D/{file}; {_APT} --reinstall --allow-downgrades install $D/{file};"
        f" mkdir -p {NOTES}; echo {sha256} >{NOTES}/{name}"
    )


def _from_repository(name: str, repository: Repository) -> str:
    """Shell that makes apt know a maker's repository by the key on standard input, and installs from it."""
    key, source = f"/etc/apt/keyrings/gatehouse-{name}.asc", f"/etc/apt/sources.list.d/gatehouse-{name}.sources"
    lines = [
        f"# {HEADER}",
        "Types: deb",
        f"URIs: {repository.url}",
        f"Suites: {repository.suite}",
        f"Components: {repository.component}",
        f"Signed-By: {key}",
    ]
    text = "".join(f"{line}\\n" for line in lines)
    only = f"-o Dir::Etc::SourceList={source} -o Dir::Etc::SourceParts=- -o APT::Get::List-Cleanup=0"
    return _quietly(
        f"mkdir -p /etc/apt/keyrings; base64 -d >{key}; chmod 0644 {key}; printf {shlex.quote(text)} >{source};"
        f" apt-get -q update {only} -o APT::Update::Error-Mode=any && {_APT} install {name}"
        f" && mkdir -p {NOTES} && echo {repository.url} >{NOTES}/{name}"
        f" || {{ rm -f {source} {key}; echo 'gatehouse: nothing installed from {repository.url}' >&2; exit 1; }}"
    )
