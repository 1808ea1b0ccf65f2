"""How long a stolen device stays connected once `invoke revoke` is typed, with ten thousand devices enrolled.

`python -m benchmarks.revocation [--json]`; docs/benchmarks.md says what each figure means. In a lab of its own a device
keeps a session with the broker, and connects anew whenever that ends. The clock runs from the start of the command
until its session has ended, and until it is refused and never let in again. The broker's start and reload are timed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

from benchmarks import throwaway
from benchmarks.measure import ROOT, BenchmarkError, Ratio, Run, main, progress, timed

SECONDS = 2.0
FEW = 100
AT = "10.10.10.1"  # the lab's broker, where its devices reach it
TIMES = 5  # starts, and reloads, in a round
BEFORE = 1.5  # seconds: how long a device has had its session when the command is given

# What a device does: it keeps a session, and whenever that ends it connects anew. Prints when it was let in, when the
# session ended, and when it was refused, until it has been refused for a second. The clock is the machine's, for all.
DEVICE = """
import json, os, socket, ssl, sys, time
given, seen, first = json.load(sys.stdin), [], None
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname = False
context.load_verify_locations(cadata=given["ca"])
holder = os.memfd_create("credential")
os.write(holder, (given["chain"] + given["key"]).encode())
context.load_cert_chain(f"/proc/self/fd/{holder}")
until = time.monotonic() + 60
while time.monotonic() < until and (first is None or time.monotonic() < first + 1):
    asked = time.monotonic()
    try:
        with socket.create_connection((given["at"], 8883), 5) as wire, context.wrap_socket(wire) as tls:
            # MQTT 5, clean start, keep-alive 300 s, no identifier: the certificate names it
            tls.sendall(bytes([0x10, 13, 0, 4, *b"MQTT", 5, 2, 1, 44, 0, 0, 0]))
            let_in = tls.recv(64)[:1] == bytes([0x20])
            if let_in:
                seen.append(("in", time.monotonic()))
                tls.settimeout(60)
                while tls.recv(64):
                    pass
    except OSError:
        pass
    if seen and seen[-1][0] == "in":
        seen.append(("ended", time.monotonic()))
        first = None
    else:
        seen.append(("refused", time.monotonic()))
        first = first or asked
    time.sleep(0.01)
print(json.dumps(seen))
"""

# From the command until the broker answers a client again.
SERVES = """
import socket, ssl, subprocess, sys, time
context = ssl._create_unverified_context()
started = time.monotonic()
subprocess.run(["systemctl", sys.argv[1], "mosquitto.service"], check=True)
while True:
    try:
        with socket.create_connection((sys.argv[2], 8883)) as wire, context.wrap_socket(wire):
            break
    except OSError:
        time.sleep(0.002)
print(time.monotonic() - started)
"""


def measure(chosen: argparse.Namespace) -> list[Ratio]:
    """The two moments against what is to be reached, and the broker's start and reload against its own with few."""
    throwaway.enter("benchmarks.revocation")
    with throwaway.fresh() as name, tempfile.TemporaryDirectory(prefix="gatehouse-benchmark-") as made:
        bundles = Path(made)
        _enrol(bundles, 0, FEW)
        _deploy()
        few = [_starts_and_reloads(name) for _ in range(chosen.rounds)]
        _enrol(bundles, FEW, chosen.devices)
        _deploy()
        many = [_starts_and_reloads(name) for _ in range(chosen.rounds)]
        cut = [_revoked(name, bundles / f"sensor-{number:06}") for number in range(chosen.rounds)]
    n = f"{chosen.devices:,}"
    goal = Run(SECONDS)
    return [
        Ratio(f"session ended after `revoke`, {n} devices ÷ {SECONDS:.0f} s", [(run[0], goal) for run in cut], 1),
        Ratio(f"refused after `revoke`, {n} devices ÷ {SECONDS:.0f} s", [(run[1], goal) for run in cut], 1),
        Ratio(f"`revoke` is done, {n} devices ÷ {SECONDS:.0f} s", [(run[2], goal) for run in cut], 1),
        *(
            Ratio(
                f"broker's {what} with {n} devices ÷ with {FEW}",
                [(a[i], b[i]) for a, b in zip(many, few, strict=True)],
                2,
            )
            for i, what in enumerate(("start", "reload"))
        ),
    ]


def _enrol(bundles: Path, begin: int, end: int) -> None:
    """Registry, vault and bundles of devices, as `invoke enroll --from` makes them."""
    from deploy import vaults
    from gatehouse.identity.enrolment import Enroller, Request
    from gatehouse.site import load
    from gatehouse.site.registry_writer import Registry

    site = load("lab", ROOT)
    vault = vaults.open_vault(site)
    pki = vaults.open_pki(site, vault)
    # With an address to know its packets by, each that is revoked comes into the firewall's sets as well.
    requests = [
        Request(f"sensor-{n:06}", "esp32-sht31", hardware_address=f"02:00:00:{n.to_bytes(3).hex(':')}", line=n + 1)
        for n in range(begin, end)
    ]
    outcome = Enroller(site, vault, pki, Registry(vaults.registry_path(site)), bundles).enrol(requests)
    if len(outcome.enrolled) != len(requests):
        raise BenchmarkError(f"{len(outcome.enrolled)} devices were enrolled, not {len(requests)}")
    progress(f"{end} devices enrolled")


def _deploy() -> None:
    timed(throwaway.command("-y", "inventories/lab", "deploy.py"))


def _starts_and_reloads(name: str) -> tuple[Run, Run]:
    """A start and a reload, each the median of several: one of these is over in a few hundredths of a second."""
    start, reload = (
        Run(median(float(_inside(name, "gateway", ["python3", "-c", SERVES, command, AT])) for _ in range(TIMES)))
        for command in ("restart", "reload")
    )
    progress(f"start {start.seconds:.2f} s, reload {reload.seconds:.2f} s")
    return start, reload


def _inside(name: str, host: str, argv: list[str], stdin: bytes = b"") -> str:
    import lab

    done = lab.run(name, host, argv, stdin=stdin, timeout=90)
    if done.returncode != 0:
        raise BenchmarkError(f"{host}: {(done.stderr.strip().splitlines() or ['no output'])[-1]}")
    return done.stdout


def _revoked(name: str, bundle: Path) -> tuple[Run, Run, Run]:
    """One device is revoked: until its session has ended, until it was refused for good, until the command is done."""
    pem = {"ca": "ca.pem", "chain": "certificate.pem", "key": "key.pem"}
    given = {"at": AT, **{what: (bundle / file).read_text() for what, file in pem.items()}}
    with ThreadPoolExecutor(1) as pool:
        plays = pool.submit(_inside, name, "device", ["python3", "-c", DEVICE], json.dumps(given).encode())
        time.sleep(BEFORE)
        started = time.monotonic()
        done = timed([sys.executable, "-m", "invoke", "revoke", "--name", bundle.name])
        seen = [(what, when - started) for what, when in json.loads(plays.result())]
    ends = [when for what, when in seen if what == "ended"]
    if seen[0][0] != "in" or seen[0][1] > 0 or not ends or ends[0] < 0 or seen[-1][0] != "refused":
        raise BenchmarkError(f"{bundle.name}: had no session that ended, or was let in again: {seen[:3]} … {seen[-1]}")
    refused = next(when for what, when in seen if what == "refused" and when > ends[-1])
    progress(f"{bundle.name}: ended {ends[0]:.2f} s, refused {refused:.2f} s, command done {done.seconds:.2f} s")
    return Run(ends[0]), Run(refused), done


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--devices", type=int, default=10_000, help="how many are enrolled (default: 10000)")
    parser.add_argument("--rounds", type=int, default=5, help="devices to revoke, starts and reloads (default: 5)")


if __name__ == "__main__":
    sys.exit(main("revocation", measure, _options))
