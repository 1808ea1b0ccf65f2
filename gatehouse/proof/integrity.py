"""Files of nobody: what AIDE found on the gateways; for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from gatehouse.columns import aligned
from gatehouse.errors import GatehouseError


class IntegrityError(GatehouseError):
    """What AIDE found can't be read, or not be accepted."""


@dataclass(frozen=True)
class Finding:
    """A file: where, whether it is new, changed or gone, and what of that nobody explains."""

    path: str
    what: str
    how: str


@dataclass(frozen=True)
class Looked:
    """One gateway: when it looked, at how many files and for how many seconds, and what it found.

    `strangers` were of nobody when the database was made; `count` may be more than the findings that are named.
    `digest` stands for all of them.
    """

    gateway: str
    when: datetime
    seconds: float
    files: int
    strangers: int
    count: int
    digest: str
    findings: tuple[Finding, ...]


def read(gateway: str, status: str) -> Looked:
    """The status that a gateway's program left. Raises `IntegrityError`."""
    try:
        found = json.loads(status)
        numbers = {name: int(found[name]) for name in ("files", "strangers", "count")}
        findings = tuple(Finding(str(e["path"]), str(e["what"]), str(e["how"])) for e in found["findings"])
        when = datetime.fromtimestamp(float(found["when"]), UTC)
        return Looked(gateway, when, float(found["seconds"]), **numbers, digest=str(found["digest"]), findings=findings)
    except (ValueError, KeyError, TypeError, OverflowError):
        raise IntegrityError(
            f"{gateway}: what AIDE left can't be read (systemctl start gatehouse-integrity.service there, and read why)"
        ) from None


def document(site: str, looked: Sequence[Looked]) -> dict[str, Any]:
    """For programs."""
    gateways = {each.gateway: {**asdict(each), "when": each.when.isoformat()} for each in looked}
    return {"site": site, "found": any(each.count for each in looked), "gateways": gateways}


def table(site: str, looked: Sequence[Looked]) -> list[str]:
    """For people: a line a finding, and when each gateway looked."""
    rows = [[each.gateway, f.what, printable(f.path), printable(f.how)] for each in looked for f in each.findings]
    lines = [*aligned([["gateway", "what", "file", "why"], *rows]), ""] if rows else []
    for each in looked:
        count = "nothing of nobody" if not each.count else "1 finding" if each.count == 1 else f"{each.count} findings"
        more = f", {len(each.findings)} of them shown" if each.count > len(each.findings) else ""
        when = f"{each.when:%Y-%m-%d %H:%M} UTC, {each.seconds:.0f} s"
        lines.append(f"{site}: {each.gateway}: {count}{more} ({each.files} files, {when})")
    if rows:
        lines.append("Find out who put them there (docs/playbooks.md). What shall stay:")
        lines.append(f"  ./kit integrity --site {site} --accept")
    return lines


def printable(text: str) -> str:
    """A name on a terminal, whatever somebody has put into it."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
