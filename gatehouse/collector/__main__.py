"""`python3 -m gatehouse.collector SETTINGS`: takes one reading of everything and writes it to the database.

What can't be read is said and left out; the exit status is 1 then, and what could be read is written all the same.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

from gatehouse.collector import readings
from gatehouse.errors import GatehouseError
from gatehouse.messages.influx import Database, Unavailable

T = TypeVar("T")

SECONDS = 20  # for one of the programs that are asked
PATIENCE = 30  # seconds, for the intake and the database: after the gateway's start they may come later than this
PAUSE = 1  # second
AGAIN = "60 seconds ago"  # where no reading was taken before


def main(arguments: list[str]) -> int:
    """Exit status: 0, 1 where something could not be read or nothing be written, 2 for a wrong call."""
    if len(arguments) != 1:
        print("usage: python3 -m gatehouse.collector SETTINGS", file=sys.stderr)
        return 2
    try:
        settings = json.loads(Path(arguments[0]).read_text())
        database = Database(**{key: value and _path(key, value) for key, value in settings["database"].items()})
        lines, left_out = collected(settings)
        moment = time.time_ns()
        if settings.get("reading"):
            leave(Path(settings["reading"]), lines, moment / 1e9)
        stored = [f"{line} {moment}" for line in lines if not line.startswith(readings.NOT_STORED)]
        _awaited(lambda: database.write(stored), Unavailable)
    except (OSError, ValueError, KeyError, TypeError, GatehouseError) as error:
        print(f"gatehouse-collector: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    for line in left_out:
        print(f"gatehouse-collector: {line}", file=sys.stderr)
    return 1 if left_out else 0


def leave(path: Path, points: list[str], when: float) -> None:
    """Replaces the reading for the gateway's alerts, whether the database is there or not. Raises `OSError`."""
    try:
        before = json.loads(path.read_text())
        broker, sessions = before["broker"], readings.known_sessions(points, before.get("sessions", {}))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        broker, sessions = {}, readings.known_sessions(points, {})
    refused = readings.refused_by_broker(points, broker)
    reading = {"when": when, "points": points, "broker": refused, "sessions": sessions}
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(json.dumps(reading))
    beside.chmod(0o640)
    beside.replace(path)


def _path(key: str, value: str) -> Any:
    return Path(value) if key in ("ca", "credential") else value


def collected(settings: dict[str, Any]) -> tuple[list[str], list[str]]:
    """The points of one reading, and what could not be read."""
    points: list[str] = []
    left_out: list[str] = []

    def take(what: str, read: Callable[[], Iterable[str]]) -> None:
        try:
            points.extend(read())
        except (OSError, ValueError, KeyError, TypeError, subprocess.SubprocessError) as error:
            left_out.append(f"{what}: {error}")

    ruleset = cache(lambda: _said("nft", "-j", "list", "table", "inet", "gatehouse"))
    take("firewall", lambda: readings.firewall(ruleset()))
    known = Path(settings["names"])
    take("refused", lambda: readings.refused(ruleset(), json.loads(known.read_text()), settings["bridges"]))
    metrics = cache(lambda: _awaited(Path(settings["metrics"]).read_text, OSError))
    if settings["metrics"]:
        kinds = (readings.messages, readings.rejected, readings.sent, readings.listens)
        take("intake", lambda: [point for read in kinds for point in read(metrics())])
    # Once: what was read is not read again.
    said = cache(lambda: _journal(settings["broker"], Path(settings["cursor"])))
    if settings["broker"]:
        take("broker", lambda: [*readings.broker(said()), *readings.sessions(said())])
    for name, end in settings["certificates"].items():
        take(f"certificate of {name}", partial(_certificate, name, Path(end)))
    if (night := settings.get("verified")) and Path(night).exists():
        take("nightly verification", lambda: [readings.verified(Path(night).read_text(), time.time())])
    take("disk", lambda: readings.disks(_usage(settings.get("folders", ()))))
    if names := settings.get("units"):
        shown = ("-p", "Id", "-p", "ActiveState", "-p", "NRestarts")
        take("units", lambda: readings.units(_said("systemctl", "show", *shown, "--", *names)))
    if (status := settings.get("alerts")) and Path(status).exists():
        take("alerts", lambda: [readings.alerts(Path(status).read_text())])
    take("registry", lambda: readings.devices(json.loads(Path(settings["registry"]).read_text())))
    return points, left_out


def _awaited(act: Callable[[], T], missing: type[Exception]) -> T:
    """What it comes to, as soon as what it needs is there; raises `missing` where that does not come."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return act()
        except missing:
            if time.monotonic() > until:
                raise
        time.sleep(PAUSE)


def _said(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=SECONDS, check=False)
    if done.returncode:
        raise OSError(f"{command[0]}: {done.stderr.strip()[:120] or done.returncode}")
    return done.stdout


def _journal(unit: str, cursor: Path) -> list[str]:
    """What a unit logged since the reading before."""
    since = [] if cursor.exists() else ["--since", AGAIN]
    return _said("journalctl", "-q", "-o", "cat", "-u", unit, f"--cursor-file={cursor}", *since).splitlines()


def _certificate(name: str, dates: Path) -> list[str]:
    return [readings.certificate(name, dates.read_text(), time.time())] if dates.exists() else []


def _usage(folders: Iterable[str]) -> dict[str, tuple[int, int]]:
    """The file systems that these folders are on, each once."""
    found: dict[int, tuple[str, tuple[int, int]]] = {}
    for folder in folders:
        if Path(folder).is_dir():
            usage = shutil.disk_usage(folder)
            found.setdefault(Path(folder).stat().st_dev, (folder, (usage.total, usage.free)))
    return dict(found.values())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
