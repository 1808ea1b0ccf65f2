"""What this machine knows about reaching Debian's packages, found at run time so that the lab's hosts can too."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

CODENAMES = {"12": "bookworm", "13": "trixie"}
MIRROR = "http://deb.debian.org/debian"
SECURITY_MIRROR = "http://deb.debian.org/debian-security"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
_SHIPPED = Path("/usr/share/ca-certificates")
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
# Options of this machine's apt without which its packages can't be had: a proxy, and a mirror frozen in time.
_CARRIED = ("Acquire::http::Proxy", "Acquire::https::Proxy", "Acquire::Check-Valid-Until", "Acquire::Check-Date")


@dataclass(frozen=True)
class Conditions:
    """Mirrors, apt options (name, value), and PEM certificates this machine trusts beyond Debian's own set."""

    mirror: str
    security_mirror: str
    options: tuple[tuple[str, str], ...]
    certificates: tuple[str, ...]

    def sources(self, debian: str) -> list[str]:
        """The lines of sources.list for a release."""
        name = CODENAMES[debian]
        return [
            f"deb {self.mirror} {name} main",
            f"deb {self.mirror} {name}-updates main",
            f"deb {self.security_mirror} {name}-security main",
        ]

    def apt_lines(self) -> list[str]:
        """The options as lines of apt.conf."""
        return [f'{name} "{value}";' for name, value in self.options]


def detect() -> Conditions:
    """Ask this machine's apt and its certificate store; where they say nothing, Debian's defaults."""
    found = {f"Acquire::{kind}::Proxy": os.environ.get(f"{kind}_proxy", "") for kind in ("http", "https")}
    found.update(_apt_options())
    mirror, security = _mirrors()
    options = tuple(
        (name, found[name])
        for name in _CARRIED
        if found.get(name) and urlsplit(found[name]).hostname not in ("localhost", "127.0.0.1", "::1")
    )
    return Conditions(mirror, security, options, _own_certificates())


def _apt(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""


def _apt_options() -> list[tuple[str, str]]:
    pairs = []
    for line in _apt("apt-config", "dump").splitlines():
        name, _, value = line.rstrip(";").partition(" ")
        if value.startswith('"'):
            pairs.append((name, shlex.split(value)[0]))
    return pairs


def _mirrors() -> tuple[str, str]:
    mirror, security = MIRROR, SECURITY_MIRROR
    found: dict[bool, str] = {}
    listing = _apt("apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages")
    for line in listing.splitlines():
        uri, release, component = line.split()
        if component == "main" and release.removesuffix("-security") in CODENAMES.values():
            found.setdefault(release.endswith("-security"), uri.rstrip("/"))
    return found.get(False, mirror), found.get(True, security)


def _own_certificates() -> tuple[str, ...]:
    if not (_BUNDLE.exists() and _SHIPPED.is_dir()):
        return ()
    shipped = {c for path in _SHIPPED.rglob("*.crt") for c in _certificates(path)}
    return tuple(sorted(set(_certificates(_BUNDLE)) - shipped))


def _certificates(path: Path) -> list[str]:
    text = path.read_text(errors="replace").replace("\r", "")
    return ["\n".join(line.strip() for line in found.splitlines()) for found in _CERTIFICATE.findall(text)]
