"""How long it takes to replace every secret that the kit moves by itself, and what fails meanwhile.

`python -m benchmarks.rotation [--json]`; docs/benchmarks.md says what each figure means. In a lab of its own devices
report, the intake stores, and a reader asks the database as the dashboards would, all as fast as told; then
`invoke rotate` is given, round after round.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks import throwaway
from benchmarks.measure import ROOT, BenchmarkError, Ratio, Run, main, progress, timed

SECONDS = 60.0  # for all of it
DEVICES = 2
METRICS = "/run/gatehouse-intake/metrics.prom"
STOP = "/run/benchmark-stop"
PAUSE = 90  # seconds for which the load goes on at most, beyond the rotation

# Asks the database again and again, with what is in the dashboards' file then: one connection, 100 questions a second.
READER = """
import base64, http.client, json, os, socket, ssl, sys, time
given = json.load(sys.stdin)
tls = ssl.create_default_context(cafile=given["ca"])
asked, failed, connection, end = 0, {}, None, time.monotonic() + given["seconds"]
while time.monotonic() < end and not os.path.exists(given["stop"]):
    login = open(given["credential"]).read().strip()
    both = base64.b64encode((login if ":" in login else "dashboards:" + login).encode()).decode()
    asked += 1
    try:
        if connection is None:
            connection = http.client.HTTPSConnection(given["name"], given["port"], timeout=20)
            plain = socket.create_connection(("127.0.0.1", given["port"]), 20)
            connection.sock = tls.wrap_socket(plain, server_hostname=given["name"])
        connection.request("GET", "/query?db=gatehouse&q=SHOW+MEASUREMENTS", headers={"Authorization": "Basic " + both})
        answer = connection.getresponse()
        answer.read()
        what = "" if answer.status == 200 else str(answer.status)
    except OSError as error:
        connection, what = None, type(error).__name__
    if what:
        failed[what] = failed.get(what, 0) + 1
    time.sleep(0.01)
print(json.dumps({"asked": asked, "failed": failed}))
"""


def measure(chosen: argparse.Namespace) -> list[Ratio]:
    """Seconds, failed reads and writes, and messages that were lost, of as many rotations as told."""
    throwaway.enter("benchmarks.rotation")
    with throwaway.fresh() as name:
        _prepare()
        rounds = [_rotated(name, chosen.interval) for _ in range(chosen.rounds)]
    load = f"{DEVICES} devices at {1 / chosen.interval:.0f}/s each"
    return [
        Ratio(
            f"a full rotation, {rounds[0]['secrets']} secrets ÷ {SECONDS:.0f} s",
            [(Run(each["seconds"]), Run(SECONDS)) for each in rounds],
            1,
        ),
        *(
            Ratio(f"{title} ({load})", [(Run(each[bad]), Run(each[all_])) for each in rounds], 0)
            for title, bad, all_ in (
                ("reads that failed ÷ all meanwhile", "reads_failed", "reads"),
                ("writes of the intake that failed ÷ all", "writes_failed", "writes"),
                ("messages lost ÷ accepted by the broker", "lost", "accepted"),
            )
        ),
    ]


def _prepare() -> None:
    """Devices enrolled, and the lab deployed."""
    from deploy import enrolment
    from gatehouse.identity.candidates import Request
    from gatehouse.site import load

    site = load("lab", ROOT)
    for device in site.devices[:DEVICES]:
        enrolment.enrol_one(site, Request(device.name, device.model), "", False)
    timed(throwaway.command("-y", "inventories/lab", "deploy.py"))


def _rotated(name: str, interval: float) -> dict[str, Any]:
    """One rotation under load."""
    from deploy import vaults
    from gatehouse.site import load
    from lab import simulator

    site = load("lab", ROOT)
    pki = vaults.open_pki(site)
    devices = [device.name for device in site.devices[:DEVICES]]
    before = {device: _stored(name, device) for device in devices}
    failed = _Failures(name)
    with ThreadPoolExecutor(2) as pool, _until_told(name):
        plan = dict.fromkeys(devices, "good")
        playing = pool.submit(simulator.play, site, pki, plan, interval=interval, seconds=PAUSE, patience=90)
        reading = pool.submit(_read, name, site)
        time.sleep(5)
        started = time.monotonic()
        replaced = _rotate(failed)
        seconds = time.monotonic() - started
        _inside(name, ["touch", STOP])
        reads, played = reading.result(), playing.result()
    failed.look()
    accepted = {d: {n for a, b in played[d]["acknowledged"] for n in range(a, b + 1)} for d in devices}
    lost = sum(len(accepted[device] - _all_stored(name, device, accepted[device])) for device in devices)
    more = sum(len(_stored(name, device) - before[device] - accepted[device]) for device in devices)
    if more:
        raise BenchmarkError(f"{more} points are stored that nobody sent")
    progress(f"{replaced} secrets in {seconds:.1f} s; reads {reads}; writes failed {failed.count:.0f}; lost {lost}")
    return {
        "secrets": replaced,
        "seconds": seconds,
        "reads": reads["asked"],
        "reads_failed": sum(reads["failed"].values()),
        "writes": failed.batches,
        "writes_failed": failed.count,
        "accepted": sum(map(len, accepted.values())),
        "lost": lost,
    }


def _rotate(failed: _Failures) -> int:
    """As `invoke rotate` does it; how many secrets were replaced."""
    from deploy import rotating
    from gatehouse.site import load

    def say(line: str) -> None:
        # The intake is started anew for its own certificate, and counts from nothing then.
        if line.startswith("client/"):
            failed.look()

    outcome = rotating.rotate(load("lab", ROOT), [], say)
    if outcome.failed or outcome.waiting:
        raise BenchmarkError("; ".join([*outcome.failed, *outcome.waiting]))
    return len(outcome.replaced)


class _Failures:
    """The intake's own count of writes, over its restarts."""

    def __init__(self, name: str) -> None:
        self._name, self.count, self.batches = name, 0.0, 0.0
        self._last = self._now()

    def look(self) -> None:
        """Adds what came since the last look."""
        now = self._now()
        for number, field in enumerate(("count", "batches")):
            came = now[number] - self._last[number]
            setattr(self, field, getattr(self, field) + (came if came >= 0 else now[number]))
        self._last = now

    def _now(self) -> tuple[float, float]:
        lines = dict(
            line.rsplit(" ", 1) for line in _inside(self._name, ["cat", METRICS]).splitlines() if line[0] != "#"
        )
        failures, batches = (float(lines[f"gatehouse_intake_{what}_total"]) for what in ("write_failures", "batches"))
        return failures, batches


@contextlib.contextmanager
def _until_told(name: str) -> Iterator[None]:
    _inside(name, ["rm", "-f", STOP])
    try:
        yield
    finally:
        _inside(name, ["touch", STOP])


def _read(name: str, site: Any) -> dict[str, Any]:
    from roles import influxdb

    given = {
        "ca": influxdb.CA,
        "credential": influxdb.credential(influxdb.DASHBOARDS),
        "name": influxdb.host_name(site.domain),
        "port": site.listener(influxdb.service.name, "https").port,
        "stop": STOP,
        "seconds": SECONDS + PAUSE,
    }
    found: dict[str, Any] = json.loads(_inside(name, ["python3", "-I", "-c", READER], json.dumps(given).encode()))
    return found


def _stored(name: str, device: str) -> set[int]:
    """The sequence numbers that the database has of a device; it is asked as its administrator, on the gateway."""
    ask = (
        "import sys; sys.path.insert(0, '/usr/lib/gatehouse/database')\n"
        "from common import Settings\nimport one\n"
        "query = f\"SELECT seq FROM telemetry WHERE device = '{sys.argv[1]}'\"\n"
        "print([int(row[1]) for row in one.Engine(Settings.read()).rows(query)])"
    )
    return set(json.loads(_inside(name, ["python3", "-B", "-c", ask, device])))


def _all_stored(name: str, device: str, wanted: set[int]) -> set[int]:
    """The same, once all are there, or after 30 s."""
    until = time.monotonic() + 30
    while not wanted <= (found := _stored(name, device)) and time.monotonic() < until:
        time.sleep(1)
    return found


def _inside(name: str, argv: list[str], stdin: bytes = b"") -> str:
    import lab

    done = lab.run(name, "gateway", argv, stdin=stdin, timeout=SECONDS + PAUSE + 60)
    if done.returncode != 0:
        raise BenchmarkError(f"gateway: {(done.stderr.strip().splitlines() or ['no output'])[-1]}")
    return done.stdout


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=3, help="rotations (default: 3)")
    parser.add_argument("--interval", type=float, default=0.02, help="seconds between a device's messages")


if __name__ == "__main__":
    sys.exit(main("rotation", measure, _options))
