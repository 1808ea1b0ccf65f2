"""What runs on the gateway, and of which packages it is."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gatehouse.proof.channel import ProbeError
from gatehouse.proof.observation import Observation
from tests.compliance.live import Live
from tests.compliance.once import once

# Every program that runs: `PATH (deleted)` where an upgrade has replaced it since.
RUNNING = 'for each in /proc/[0-9]*/exe; do readlink "$each" || true; done 2>/dev/null | sort -u'
# Declared by no role, and what everything else stands on.
ALWAYS = ("apt", "dpkg", "libc6", "libssl3", "libssl3t64", "systemd")
LOCAL = re.compile(r"^(\S+?)/\S* \S+ \S+ \[(.*)\]$", re.MULTILINE)


@once
def programs(live: Live) -> dict[str, str]:
    """`{program: its package}` of what runs, an empty name where no package has it."""
    running = str(live.run("sh", "-c", RUNNING).result.get("output", "")).splitlines()
    paths = {line.removesuffix(" (deleted)") for line in running}
    # Packages of Debian 12 still say /bin for what lies in /usr/bin.
    asked = sorted(paths | {path.removeprefix("/usr") for path in paths})
    known = {}
    for line in str(live.run("dpkg", "-S", *asked).result.get("output", "")).splitlines():
        owner, _, path = line.partition(": ")
        known[path] = owner.partition(",")[0].partition(":")[0]
    return {path: known.get(path) or known.get(path.removeprefix("/usr"), "") for path in sorted(paths)}


@dataclass(frozen=True)
class Package:
    """What dpkg has of a package: its state, as `dpkg -l` abbreviates it, and its version."""

    state: str
    version: str

    @property
    def installed(self) -> bool:
        """Whether it is set up entirely, wanted or held; `iF` and `iU` are half-way, an `R` at the end is broken."""
        return self.state in ("ii", "hi")


@once
def packages(live: Live) -> dict[str, Package]:
    """All that dpkg knows, by name. Raises `ProbeError` where it tells nothing."""
    listed = live.run("dpkg-query", "-W", "-f", "${db:Status-Abbrev} ${binary:Package} ${Version}\n")
    rows = [line.split() for line in str(listed.result.get("output", "")).splitlines()]
    if not rows:
        raise ProbeError(f"{live.name}: dpkg-query: {str(listed.result.get('error', '')).strip() or listed}")
    return {row[1].partition(":")[0]: Package(row[0], row[2]) for row in rows if len(row) == 3}


@once
def installed(live: Live) -> dict[str, str]:
    """`{package: its version}` of those that dpkg has, also half-way."""
    return {name: package.version for name, package in packages(live).items() if package.state.startswith("i")}


@once
def verified(live: Live) -> Observation:
    """What dpkg finds of the packages that run or that roles declare: all others together take it long."""
    declared = {name for service in live.site.services_of(live.name) for name in service.packages}
    wanted = {*programs(live).values(), *declared, *ALWAYS} & installed(live).keys()
    return live.run("dpkg", "--verify", *sorted(wanted))


@once
def archived(live: Live) -> list[tuple[str, list[str]]]:
    """Each installed package with what apt says of it: `local` where no archive has it."""
    listed = str(live.run("apt", "list", "--installed").result.get("output", ""))
    return [(name, state.split(",")) for name, state in LOCAL.findall(listed)]
