"""How fast devices are enrolled, everything written, against an openssl loop that makes the certificates alone.

`python -m benchmarks.identity [--json]`; docs/benchmarks.md says what each figure means. Both sides run on one core.
The loop makes fewer certificates and its time is multiplied: each costs it the same. Enrolments are measured with their
files in memory and on the disk: to create a file costs some file systems more than to sign a certificate the processor.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import BenchmarkError, Ratio, Run, main, progress, timed

A_SECOND = 1000
TIMES_OPENSSL = 40
MEMORY = 300 * 2**20
IN_MEMORY = Path("/dev/shm")  # noqa: S108 - a directory of its own is made there

# What an administrator's script does for each device: a key with its request, and the certificate for it.
OPENSSL = """
set -e
cd "$1"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 30 -subj /CN=ca
printf 'basicConstraints=critical,CA:FALSE\\nkeyUsage=critical,digitalSignature\\nextendedKeyUsage=clientAuth\\n' >ext
i=0
while [ "$i" -lt "$2" ]; do
    i=$((i + 1))
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$i.key" -out "$i.csr" -subj "/CN=d-$i"
    openssl x509 -req -in "$i.csr" -CA ca.pem -CAkey ca.key -set_serial "$i" -days 365 -extfile ext -out "$i.pem"
done
"""


def measure(chosen: argparse.Namespace) -> list[Ratio]:
    """Enrolments against the loop, against what is to be reached a second, and their memory."""
    n = f"{chosen.devices:,} devices enrolled"
    places = {"on the disk": chosen.directory or tempfile.gettempdir()}
    if IN_MEMORY.is_dir() and shutil.disk_usage(IN_MEMORY).free > 2**30:
        places = {"in memory": str(IN_MEMORY), **places}
    found: dict[str, list[tuple[Run, Run]]] = {}
    peak = 0
    with contextlib.ExitStack() as stack:
        # removed at the end: file systems make files slowly where many have just been deleted
        scratch = {
            where: Path(stack.enter_context(tempfile.TemporaryDirectory(dir=place, prefix="gatehouse-benchmark-")))
            for where, place in places.items()
        }
        first = next(iter(scratch.values()))
        for number in range(1, chosen.rounds + 1):
            theirs = _openssl(first / f"openssl-{number}", chosen.certificates, chosen.devices)
            progress(
                f"round {number} of {chosen.rounds}: openssl {chosen.devices / theirs.seconds:,.1f} certificates/s"
            )
            for where, place in scratch.items():
                ours, cores = _enrolments(place / str(number), chosen.devices)
                peak = max(peak, ours.peak)
                progress(
                    f"round {number} of {chosen.rounds}: {where} {chosen.devices / ours.seconds:,.0f} devices/s,"
                    f" {chosen.devices / cores:,.0f} a core second, {ours.peak / 2**20:.0f} MiB"
                )
                found.setdefault(f"{n} ({where}) ÷ as many certificates of an openssl loop", []).append((ours, theirs))
                found.setdefault(f"{n} ({where}) ÷ {A_SECOND:,} a second", []).append(
                    (ours, Run(chosen.devices / A_SECOND))
                )
    targets = {title: 1 / TIMES_OPENSSL if "openssl" in title else 1.0 for title in found}
    ratios = [Ratio(title, runs, targets[title]) for title, runs in found.items()]
    return [*ratios, Ratio("peak memory ÷ 300 MiB (in bytes)", [(Run(peak), Run(MEMORY))], 1)]


def _enrolments(place: Path, devices: int) -> tuple[Run, float]:
    """The time and memory of a process that enrols devices, and the seconds for which it had a core."""
    place.mkdir(parents=True)
    report = place / "report"
    run = timed([sys.executable, "-m", "benchmarks.identity", "--enrol", str(place), "--devices", str(devices)])
    told = json.loads(report.read_text())
    if told["enrolled"] != devices:
        raise BenchmarkError(f"{told['enrolled']} devices were enrolled, not {devices}")
    return Run(told["seconds"], run.peak), told["core_seconds"]


def _openssl(place: Path, certificates: int, devices: int) -> Run:
    place.mkdir(parents=True)
    started = time.perf_counter()
    command = ["sh", "-c", OPENSSL, "openssl-loop", str(place), str(certificates)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=_on_one_core)
    if done.returncode != 0:
        raise BenchmarkError(f"openssl: {(done.stderr.strip().splitlines() or ['no output'])[-1]}")
    return Run((time.perf_counter() - started) * devices / certificates)


def _on_one_core() -> None:
    with contextlib.suppress(
        AttributeError, OSError
    ):  # where a system can't bind, the process has one busy thread anyway
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def enrol(place: Path, devices: int) -> None:
    """Enrol devices into a new vault, registry and directory of bundles; the times go into `report`."""
    _on_one_core()
    from gatehouse.identity import Pki, Vault, new_identity
    from gatehouse.identity.enrolment import Enroller, Request
    from gatehouse.site.registry_writer import Registry

    site = _site()
    recipient = new_identity(place / "identity")
    Vault.create(place / "vault.age", [recipient])
    vault = Vault.open(place / "vault.age", [place / "identity"])
    pki = Pki(vault, site.name, site.domain, ["10.10.10.0/24", "10.10.20.0/24"]).ensure()
    requests = [Request(f"sensor-{number:06}", "esp32-sht31", line=number + 2) for number in range(devices)]
    started, before = time.perf_counter(), time.process_time()
    enroller = Enroller(site, vault, pki, Registry(place / "devices.toml"), place / "out" / site.name)
    outcome = enroller.enrol(requests)
    times = {"seconds": time.perf_counter() - started, "core_seconds": time.process_time() - before}
    (place / "report").write_text(json.dumps({**times, "enrolled": len(outcome.enrolled)}))


def _site() -> Any:
    from gatehouse.site import Site
    from roles import declared

    return Site(
        name="benchmark",
        domain="benchmark.internal",
        services=declared(),
        segments={
            "iot": {"vlan": 10},
            "management": {"vlan": 20},
            "guest": {"vlan": 30},
            "internal": {},
            "internet": {},
        },
        gateways={
            "gateway": {
                "networks": {
                    "iot": {"interface": "eth1", "ipv4": "10.10.10.1/24"},
                    "management": {"interface": "eth2", "ipv4": "10.10.20.1/24"},
                    "internet": {"interface": "eth0", "ipv4": "dhcp"},
                }
            }
        },
        ssh={"keys": [f"ssh-ed25519 {'A' * 68}"]},
    )


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--devices", type=int, default=10_000, help="how many are enrolled (default: 10000)")
    parser.add_argument("--certificates", type=int, default=200, help="how many openssl makes (default: 200)")
    parser.add_argument("--rounds", type=int, default=3, help="how often both are measured in turn (default: 3)")
    parser.add_argument("--directory", default=None, help="a directory on the disk (default: the temporary one)")
    parser.add_argument("--enrol", help=argparse.SUPPRESS)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(add_help=False)
    _options(arguments)
    known, _ = arguments.parse_known_args()
    if known.enrol:
        enrol(Path(known.enrol), known.devices)
        sys.exit(0)
    sys.exit(main("identity", measure, _options))
