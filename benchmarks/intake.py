"""How fast the intake stores what was queued, against a subscriber that does nothing with it; its memory; its latency.

`python -m benchmarks.intake [--json]`; docs/benchmarks.md says what each figure means. The receiver has one core to
itself, broker and database share another. Both receivers drain the same number of messages that waited for them in the
same broker.
"""

from __future__ import annotations

import argparse
import hmac
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import quantiles
from typing import Any

from benchmarks import scratch
from benchmarks.measure import ROOT, BenchmarkError, Ratio, Run, main, progress
from benchmarks.scratch import Publisher, Scratch
from gatehouse.messages import keyfile
from gatehouse.messages.forms import sign

SHARE = 0.75
MEMORY = 150_000_000
P50, P99 = 0.1, 0.3  # seconds from publishing to being found
RATE = 1000  # messages a second while latency is measured
DEVICES = 20
KEY = bytes(32)

SETTINGS = """state = "{folder}/state.db"
metrics = "{folder}/metrics.prom"
[broker]
address = "127.0.0.1"
port = {mqtt}
name = "broker.{domain}"
ca = "{folder}/ca.pem"
client = "{folder}/gatehouse-intake.pem"
user = "gatehouse-intake"
largest_packet = 65536
[messages]
keys = "{folder}/keys"
json_form = false
max_age = 3600
max_ahead = 300
[database]
engine = "influxdb1"
url = "https://influxdb.{domain}:{http}"
address = "127.0.0.1"
ca = "{folder}/ca.pem"
credential = "{folder}/credential"
database = "gatehouse"
user = "intake"
"""


def measure(chosen: argparse.Namespace) -> list[Ratio]:
    """Drained queues, memory and latency."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise BenchmarkError("one core only: the receiver needs one, and the broker another")
    with tempfile.TemporaryDirectory(prefix="gatehouse-benchmark-") as place, Scratch(Path(place), cores[1]) as bench:
        _prepare(bench)
        os.sched_setaffinity(0, {cores[1]})
        drained: list[tuple[Run, Run]] = []
        processor: list[tuple[Run, Run]] = []
        for number in range(1, chosen.rounds + 1):
            ours, theirs = (_drained(bench, kind, chosen.messages, cores[0]) for kind in ("intake", "paho"))
            drained.append((Run(ours["seconds"], ours["peak"]), Run(theirs["seconds"], theirs["peak"])))
            processor.append((Run(ours["processor"]), Run(_digests(chosen.messages))))
            rates = [f"{chosen.messages / each['seconds']:,.0f}/s" for each in (ours, theirs)]
            used = [f"{each['processor']:.1f} s of its core, {each['peak'] / 1e6:.0f} MB" for each in (ours, theirs)]
            progress(f"round {number}: intake {rates[0]} ({used[0]}), bare paho {rates[1]} ({used[1]})")
        late = _latency(bench, chosen.seconds, cores[0])
    n = f"{chosen.messages:,} queued messages"
    peak = max(ours.peak for ours, _ in drained)
    return [
        Ratio(f"{n} verified and stored ÷ received by a bare paho subscriber", drained, 1 / SHARE),
        Ratio(f"{n}: processor of the intake ÷ HMAC-SHA-256 alone", processor, 100),
        Ratio("peak memory of the intake ÷ 150 MB (in bytes)", [(Run(peak), Run(MEMORY))], 1),
        Ratio(f"publish to query at {RATE:,}/s, p50 ÷ {P50} s", [(Run(late[49]), Run(P50))], 1),
        Ratio(f"publish to query at {RATE:,}/s, p99 ÷ {P99} s", [(Run(late[98]), Run(P99))], 1),
    ]


def _prepare(bench: Scratch) -> None:
    bench.ask("CREATE DATABASE gatehouse")
    keys = [(f"device-{n}", 1, KEY) for n in range(DEVICES)]
    for name in ("gatehouse-intake", "gatehouse-paho", *(device for device, _, _ in keys)):
        bench.client(name)
    places = {"folder": bench.folder, "mqtt": scratch.MQTT, "http": scratch.HTTP, "domain": scratch.DOMAIN}
    for name, content in (
        ("keys", keyfile.render(keys, "benchmark")),
        ("credential", b"none\n"),
        ("settings.toml", SETTINGS.format(**places).encode()),
    ):
        (bench.folder / name).write_bytes(content)


def _message(device: str, sequence: int) -> tuple[str, bytes]:
    """About 100 bytes, as a climate sensor has to say."""
    topic = f"devices/{device}/telemetry/climate"
    content = b'{"temperature": %d.5, "humidity": 40.%d}' % (sequence % 30, sequence % 100)
    return topic, sign(KEY, topic, content, number=1, sequence=sequence, time_ms=time.time_ns() // 1_000_000)


def _publisher(bench: Scratch, device: str) -> Publisher:
    return Publisher(bench.folder / f"{device}.pem", bench.folder / "ca.pem", device)


def _drained(bench: Scratch, kind: str, messages: int, core: int) -> dict[str, Any]:
    """Lets the messages wait at the broker for a receiver, then has it take them."""
    client = f"gatehouse-{kind}"
    given = {
        "settings": str(bench.folder / "settings.toml"),
        "host": "127.0.0.1",
        "port": scratch.MQTT,
        "ca": str(bench.folder / "ca.pem"),
        "pem": str(bench.folder / f"{client}.pem"),
        "client": client,
    }
    _received(bench, kind, {**given, "messages": 0}, core)
    began = time.time_ns() // 1000
    for number in range(DEVICES):
        publisher = _publisher(bench, f"device-{number}")
        publisher.send_all(_message(f"device-{number}", began + i) for i in range(messages // DEVICES))
        publisher.close()
    found = _received(bench, kind, {**given, "messages": messages}, core)
    if kind == "intake":
        count = bench.ask(f"SELECT count(seq) FROM telemetry WHERE seq >= {began}")  # noqa: S608
        if count[0][1] != messages:
            raise BenchmarkError(f"{messages} messages were sent, {count[0][1]} are stored")
    # A session that is left would take part in what is measured next.
    _publisher_of(bench, client)
    return found


def _publisher_of(bench: Scratch, client: str) -> None:
    """Ends a session for good: one with a clean start takes its place, and goes."""
    Publisher(bench.folder / f"{client}.pem", bench.folder / "ca.pem", client).close()


def _received(bench: Scratch, kind: str, given: dict[str, Any], core: int) -> dict[str, Any]:
    file = bench.folder / f"{kind}.json"
    file.write_text(json.dumps(given))
    command = [sys.executable, "-m", "benchmarks.receivers", kind, str(file)]
    done = subprocess.run(
        ["taskset", "--cpu-list", str(core), *command],
        cwd=ROOT, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    if done.returncode:
        raise BenchmarkError(f"{kind}: {(done.stderr.strip().splitlines() or ['no word'])[-1]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _digests(messages: int) -> float:
    data = bytes(200)
    began = time.process_time()
    for _ in range(messages):
        hmac.digest(KEY, data, "sha256")
    return time.process_time() - began


def _latency(bench: Scratch, seconds: int, core: int) -> list[float]:
    """Percentiles of the seconds between publishing a message and finding it by query."""
    command = [sys.executable, "-m", "gatehouse.messages", str(bench.folder / "settings.toml")]
    intake = subprocess.Popen(["taskset", "--cpu-list", str(core), *command], cwd=ROOT)
    try:
        time.sleep(2)
        publisher = _publisher(bench, "device-0")
        sent: dict[int, float] = {}
        late: list[float] = []
        first = time.time_ns() // 1000
        since, number, began = time.time_ns() - 10**9, 0, time.monotonic()
        while len(late) < seconds * RATE and time.monotonic() < began + 2 * seconds + 10:
            while number < min(seconds * RATE, (time.monotonic() - began) * RATE):
                topic, payload = _message("device-0", first + number)
                sent[first + number] = time.monotonic()
                publisher.send(topic, payload)
                number += 1
            publisher.flush()
            rows = bench.ask(f"SELECT seq FROM telemetry WHERE device = 'device-0' AND time > {since}")  # noqa: S608
            now = time.monotonic()
            late += [now - sent.pop(row[1]) for row in rows if row[1] in sent]
            since = max([since, *(row[0] - 2_000_000 for row in rows)])
            time.sleep(0.002)
        publisher.close()
    finally:
        intake.terminate()
        intake.wait()
    if len(late) < seconds * RATE:
        raise BenchmarkError(f"{seconds * RATE} messages were sent, {len(late)} were found")
    found = quantiles(late, n=100)
    progress(f"latency: p50 {1000 * found[49]:.0f} ms, p99 {1000 * found[98]:.0f} ms")
    return found


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--messages", type=int, default=100_000, help="how many are queued (default: 100000)")
    parser.add_argument("--rounds", type=int, default=3, help="how often both are measured (default: 3)")
    parser.add_argument("--seconds", type=int, default=20, help="how long latency is measured (default: 20)")


if __name__ == "__main__":
    sys.exit(main("intake", measure, _options))
