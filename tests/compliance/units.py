"""What systemd says of the units that roles declare: one question for all of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from gatehouse.proof import expect
from gatehouse.proof.channel import ProbeError
from gatehouse.proof.observation import Observation
from roles import alerts, integrity, kernel, watch
from roles.alerts import files as alerts_files
from roles.integrity import files as integrity_files
from roles.watch import files as watch_files
from tests.compliance.live import Live
from tests.compliance.once import once

# systemctl(1): for these `is-active` and `is-enabled` end with 0.
ACTIVE = frozenset({"active", "reloading", "refreshing"})
ENABLED = frozenset({"enabled", "enabled-runtime", "alias", "static", "indirect", "generated", "transient"})
# What checks want to know of one unit or another.
PROPERTIES = (
    "ActiveState",
    "Before",
    "ControlGroup",
    "IPAddressDeny",
    "MainPID",
    "MemoryMax",
    "NextElapseUSecMonotonic",
    "NextElapseUSecRealtime",
    "TasksMax",
    "UnitFileState",
)
# What the timers start of those programs that are judged, too.
TIMED = {
    watch.service.name: watch_files.UNIT,
    alerts.service.name: alerts_files.UNIT,
    integrity.service.name: integrity_files.UNIT,
}
RATE = 'systemd-analyze security --no-pager "$@" | grep "exposure level for"'


@dataclass(frozen=True)
class State:
    """How a unit is and how its file is, in systemd's words."""

    active: str
    file: str

    @property
    def runs(self) -> bool:
        """Whether it runs now."""
        return self.active in ACTIVE

    @property
    def starts(self) -> bool:
        """Whether it starts by itself, with the gateway or by what needs it."""
        return self.file in ENABLED


def declared(live: Live) -> tuple[str, ...]:
    """The units of the gateway's services."""
    return tuple(dict.fromkeys(unit for service in live.site.services_of(live.name) for unit in service.units))


def shown(live: Live, units: Iterable[str], *properties: str) -> dict[str, dict[str, str]]:
    """`{unit: {property: value}}`, asked now. Raises `ProbeError`."""
    wanted = tuple(dict.fromkeys(units))
    printed, error = _printed(live, "systemctl", "show", "--property", ",".join(("Id", *properties)), "--", *wanted)
    blocks = [block for block in printed.split("\n\n") if block.strip()]
    if len(blocks) != len(wanted):
        told = f"{live.name}: systemctl show tells of {len(blocks)} units, not of {len(wanted)}"
        raise ProbeError(f"{told}{f': {error}' if error else ''}")
    each = (dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in blocks)
    return dict(zip(wanted, each, strict=True))


def states(live: Live, units: Iterable[str]) -> dict[str, State]:
    """How these units are now. Raises `ProbeError`.

    Of its file systemd remembers the state: it is looked up on the disk.
    """
    wanted = tuple(dict.fromkeys(units))
    active = shown(live, wanted, "ActiveState")
    listed, _ = _printed(live, "systemctl", "list-unit-files", "--no-legend", "--plain", "--", *wanted)
    files = {row[0]: row[1] for row in map(str.split, listed.splitlines()) if len(row) > 1}
    for unit in wanted:
        if unit not in files:  # one of a template's, or none
            files[unit] = _printed(live, "systemctl", "is-enabled", "--", unit)[0].strip() or "not-found"
    return {unit: State(active[unit].get("ActiveState", ""), files[unit]) for unit in wanted}


@once
def running(live: Live) -> dict[str, State]:
    """How the units of the gateway's services are."""
    return states(live, declared(live))


@once
def properties(live: Live) -> dict[str, dict[str, str]]:
    """`PROPERTIES` of the units of the gateway's services, and of those that the kit has no use for."""
    return shown(live, (*declared(live), *kernel.WIFI, *kernel.BLUETOOTH), *PROPERTIES)


def next_times(live: Live, timer: str) -> dict[str, str]:
    """When a timer is due next, by the clock or since the start; empty where it never is."""
    names = ("NextElapseUSecRealtime", "NextElapseUSecMonotonic")
    return {n: at for n in names if (at := properties(live)[timer].get(n, "")) not in ("", "infinity")}


@once
def ratings(live: Live) -> tuple[Observation, dict[str, str]]:
    """How exposed systemd rates each unit: 0 is confined entirely, 10 not at all."""
    here = live.site.services_of(live.name)
    facing = [unit for service in here if service.network_facing for unit in service.units]
    own = [TIMED[service.name] for service in here if service.name in TIMED]
    # systemd-analyze ends at the first that is no service.
    rated = [unit for unit in dict.fromkeys((*facing, *own)) if unit.endswith(".service")]
    seen = live.run("sh", "-c", RATE, "sh", *rated)
    return seen, dict(re.findall(r"exposure level for (\S+): ([0-9.]+)", str(seen.result.get("output"))))


def _printed(live: Live, *argv: str) -> tuple[str, str]:
    """What it prints, and of its errors the last. Raises `ProbeError` where it can't be run."""
    (seen,) = live.ask({expect.GATEWAY: [{"kind": "run", "argv": list(argv)}]})[expect.GATEWAY]
    if "status" not in seen.result:
        raise ProbeError(f"{live.name}: {' '.join(argv[:2])}: {seen}")
    said = str(seen.result["error"]).strip().splitlines()
    return str(seen.result["output"]), said[-1] if said else ""
