"""Known vulnerabilities, side by side: what debsecan and pip-audit say, and where nobody could be asked."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from packaging.version import InvalidVersion, Version

from gatehouse.columns import aligned
from gatehouse.errors import GatehouseError
from gatehouse.proof import debian
from gatehouse.proof.sbom import MAKERS, Package

SUITES = {"11": "bullseye", "12": "bookworm", "13": "trixie"}
"""Debian's releases, as its security tracker names them."""
FIXABLE, NOT_KNOWN = 1, 2  # exit statuses
_NAMED = 3  # vulnerabilities of a row, before the others are only counted
_HEAD = ("where", "package", "version", "vulnerability", "fixed in", "mend")


class FeedError(GatehouseError):
    """An answer, or a feed, that says nothing of vulnerabilities."""


@dataclass(frozen=True)
class Finding:
    """A known vulnerability of a package. `fixed_in` is empty where there is nothing better to be had yet."""

    package: str
    version: str
    vulnerability: str
    fixed_in: str
    mend: str
    text: str = ""


@dataclass(frozen=True)
class Side:
    """What was found in one place: the operator's environment, or a gateway.

    `problem` is why nothing is known of it, in one line, empty if all is; `left_out` are packages that the source
    doesn't speak of, as they are another's.
    """

    name: str
    source: str
    packages: int
    findings: tuple[Finding, ...] = ()
    left_out: tuple[str, ...] = ()
    problem: str = ""

    @property
    def fixable(self) -> tuple[Finding, ...]:
        """What an upgrade would end."""
        return tuple(finding for finding in self.findings if finding.fixed_in)

    def __str__(self) -> str:
        if self.problem:
            return f"{self.name}: NOT KNOWN: {self.problem}"
        waiting = len(self.findings) - len(self.fixable)
        known = f"{len(self.fixable)} fixable, {waiting} without a fix yet" if self.findings else "none known"
        others = f"; not spoken of: {', '.join(self.left_out)}" if self.left_out else ""
        return f"{self.name}: {known}, in {self.packages} packages ({self.source}{others})"


def status(sides: Iterable[Side]) -> int:
    """The exit status: 1 if something is to be upgraded, else 2 if a side is not known, else 0."""
    found = tuple(sides)
    if any(side.fixable for side in found):
        return FIXABLE
    return NOT_KNOWN if not found or any(side.problem for side in found) else 0


def document(site: str, sides: Sequence[Side]) -> dict[str, Any]:
    """What `--json` prints."""
    return {"site": site, "status": status(sides), "sides": [asdict(side) for side in sides]}


def table(sides: Sequence[Side]) -> str:
    """A row a package that is to be upgraded, and below it a line a side."""
    rows: dict[tuple[str, str, str, str, str], list[str]] = defaultdict(list)
    for side in sides:
        for found in side.fixable:
            rows[side.name, found.package, found.version, found.fixed_in, found.mend].append(found.vulnerability)
    lines = [
        (where, package, version, _few(names), fixed_in, mend)
        for (where, package, version, fixed_in, mend), names in rows.items()
    ]
    parts = [*aligned([_HEAD, *lines]), ""] if lines else []
    return "\n".join([*parts, *map(str, sides)])


def _few(names: Sequence[str]) -> str:
    once = sorted(set(names))
    return ", ".join(once[:_NAMED]) + (f" and {len(once) - _NAMED} more" if len(once) > _NAMED else "")


def from_debian(package: Package) -> bool:
    """Whether Debian's security tracker speaks of a package."""
    return package.name not in MAKERS


def dpkg_status(packages: Iterable[Package]) -> str:
    """The packages as dpkg keeps them (deb-substvars(5), /var/lib/dpkg/status), for `debsecan --status`."""
    return "\n".join(
        f"Package: {p.name}\nStatus: install ok installed\nArchitecture: {p.architecture}\nVersion: {p.version}\n"
        f"Source: {p.source} ({p.source_version})\n"
        for p in packages
    )


_FIRST = re.compile(r"(\S+)(?: \((.*)\))?")
_INSTALLED = re.compile(r"  installed: (\S+) (\S+)")
_BUILT = re.compile(r" +\(built from (\S+) (\S+)\)")
_FIXED = re.compile(r"  fixed (?:in unstable|on branch): +(\S+) (\S+) \((binary|source) package\)")


def of_debsecan(said: str) -> tuple[Finding, ...]:
    """Reads `debsecan --format detail` (debsecan(1)). Raises `FeedError`.

    "Fixed" is what has a fix in the suite. Which of the fixed versions that is, it does not say: the lowest that is
    higher than what is installed.
    """
    found = []
    for block in filter(str.strip, said.split("\n\n")):
        first, *lines = block.strip("\n").splitlines()
        head, built = _FIRST.fullmatch(first), next(filter(None, map(_BUILT.fullmatch, lines)), None)
        installed = next(filter(None, map(_INSTALLED.fullmatch, lines)), None)
        if head is None or installed is None or built is None:
            raise FeedError(f"debsecan: {first[:60]!r} is nothing that it says of a package")
        fixed_in = ""
        if "fixed" in (head[2] or "").split(", "):
            have = {"source": built[2], "binary": installed[2]}
            fixes = [(m[2], have[m[3]]) for m in map(_FIXED.fullmatch, lines) if m]
            higher = [version for version, now in fixes if debian.key(version) > debian.key(now)]
            fixed_in = min(higher, key=debian.key, default="a newer one")
        mend = f"apt-get install --only-upgrade {installed[1]}" if fixed_in else ""
        found.append(Finding(installed[1], installed[2], head[1], fixed_in, mend, lines[0].strip()))
    return tuple(found)


def of_pip_audit(said: str) -> tuple[int, tuple[Finding, ...], tuple[str, ...]]:
    """Reads `pip-audit --format json`: packages that were asked about, findings, and who was skipped.

    Raises `FeedError`.
    """
    try:
        asked = json.loads(said)["dependencies"]
        skipped = tuple(each["name"] for each in asked if "skip_reason" in each)
        found = tuple(
            Finding(each["name"], each["version"], _name(v), fix := _fix(each["version"], v["fix_versions"]),
                    "a kit with a newer requirements.lock" if fix else "", v.get("description", ""))
            for each in asked if "skip_reason" not in each for v in each["vulns"]
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, InvalidVersion) as error:
        raise FeedError(f"pip-audit: its answer can't be read: {error}") from None
    return len(asked), found, skipped


def _name(vulnerability: dict[str, Any]) -> str:
    """The CVE's, where it has one: that is what debsecan says too."""
    names = [vulnerability["id"], *vulnerability.get("aliases", ())]
    return str(next((name for name in names if name.startswith("CVE-")), names[0]))


def _fix(version: str, fixes: Sequence[str]) -> str:
    higher = [fix for fix in fixes if Version(fix) > Version(version)]
    return min(higher, key=Version, default="")
