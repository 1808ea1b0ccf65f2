"""Devices that update at once from the update server of a lab's gateway, each with an address and a cable of its own.

The devices are `device/host`'s, real processes with real TLS; nothing of the gateway is set differently for them.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import throwaway
from benchmarks.measure import ROOT, BenchmarkError, Ratio, Run, progress, timed

MODEL, VERSION = "benchmark", "1.1"
MEMORY = 64 * 2**20  # bytes that the server may take for all of them
FLOOR = 20  # images over one connection: fewer than a device may ask for in a minute
PATIENCE = 600  # seconds for all
GATEWAY, INTERFACE = "gateway", "port-iot"
STOP = "/run/benchmark-stop"

# The memory that nginx has to itself (PSS of all its processes), and the most of it until it is told to stop.
MEMORY_OF_SERVER = """
import json, os, sys, time
def now():
    total = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if open(f"/proc/{pid}/comm").read() == "nginx\\n":
                lines = open(f"/proc/{pid}/smaps_rollup").read().splitlines()
                total += 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        except (OSError, StopIteration):
            pass
    return total
end, most = time.monotonic() + float(sys.argv[2]), now()
while not os.path.exists(sys.argv[1]) and time.monotonic() < end:
    most = max(most, now())
    time.sleep(0.1)
print(most)
"""

# As many images over one connection; prints seconds and bytes.
ONE_CONNECTION = """
import http.client, socket, ssl, sys, time
name, address, port, ca, chain, key, path, count = sys.argv[1:]
tls = ssl.create_default_context(cafile=ca)
tls.load_cert_chain(chain, key)
began, size, connection = time.perf_counter(), 0, http.client.HTTPSConnection(name)
connection.sock = tls.wrap_socket(socket.create_connection((address, int(port)), 20), server_hostname=name)
for _ in range(int(count)):
    connection.request("GET", path)
    answer = connection.getresponse()
    if answer.status != 200:
        sys.exit(f"the server says {answer.status}")
    while some := answer.read(65536):
        size += len(some)
print(time.perf_counter() - began, size)
"""


@dataclass(frozen=True)
class Fleet:
    """Devices that are enrolled, each in a network namespace of its own (by a process in it)."""

    site: Any
    program: Path
    folder: Path
    names: list[str]
    holders: dict[str, subprocess.Popen[bytes]]

    def inside(self, name: str, *command: str) -> list[str]:
        """A command line that runs where a device is."""
        return ["nsenter", f"--net=/proc/{self.holders[name].pid}/ns/net", "--", *command]


def measure(count: int, kibibytes: int, rounds: int) -> list[Ratio]:
    """What of so many updates at once is finished, and what it takes. Raises `BenchmarkError`."""
    size = kibibytes * 1024
    with throwaway.fresh() as name, tempfile.TemporaryDirectory(dir="/dev/shm") as folder, _removed_bundles():
        fleet = _prepared(name, Path(folder), count, size)
        try:
            found = [_round(name, fleet, size, number) for number in range(rounds)]
        finally:
            for holder in fleet.holders.values():
                holder.kill()
                holder.wait()
    about = f"{count} devices, {kibibytes} KiB each"
    return [
        Ratio(f"{about}: not finished ÷ all", [(Run(each["unfinished"]), Run(count)) for each in found], 0),
        Ratio(
            f"{about}: until the last is finished ÷ as many bytes over one connection",
            [(Run(each["seconds"]), Run(each["floor"])) for each in found],
            10,
        ),
        Ratio(
            f"{about}: sent by the gateway ÷ the images (in bytes)",
            [(Run(each["sent"]), Run(count * size)) for each in found],
            1.1,
        ),
        Ratio(
            f"{about}: peak memory of the server ÷ {MEMORY >> 20} MiB (in bytes)",
            [(Run(each["memory"]), Run(MEMORY)) for each in found],
            1,
        ),
    ]


@contextlib.contextmanager
def _removed_bundles() -> Iterator[None]:
    """The devices of the benchmark leave no bundles behind."""
    from deploy import enrolment

    try:
        yield
    finally:
        shutil.rmtree(enrolment.bundles_path(_site()), ignore_errors=True)


def _site() -> Any:
    from gatehouse.site import load

    return load("lab", ROOT)


def _prepared(name: str, folder: Path, count: int, size: int) -> Fleet:
    """Devices enrolled and cabled, the gateway deployed, a release published."""
    from deploy import enrolment, firmware, publishing

    names = [f"fleet-{number:03}" for number in range(count + 1)]  # one more, for the floor
    listed = folder / "devices.csv"
    listed.write_text("name,model\n" + "".join(f"{each},{MODEL}\n" for each in names))
    list(firmware.make_keys(_site()))
    enrolment.enrol_list(_site(), listed, False, False)
    timed(throwaway.command("-y", "inventories/lab", "deploy.py"))
    site = _site()
    image = folder / "app.bin"
    head = f"gatehouse image {VERSION} good\n".encode()
    image.write_bytes(head + os.urandom(size - len(head)))
    list(firmware.sign_image(site, image, MODEL, VERSION))
    publishing.publish(site, MODEL, VERSION, progress)
    (folder / "factory").write_bytes(b"gatehouse image 1.0 good\n".ljust(4096))
    build = ["make", "-s", "-C", str(ROOT / "device"), f"BUILD={folder}/build", "SANITIZE=", "CFLAGS=-O2"]
    timed([*build, f"{folder}/build/gatehouse-device"])
    return Fleet(site, folder / "build" / "gatehouse-device", folder, names, _cabled(name, site, names))


def _cabled(name: str, site: Any, names: list[str]) -> dict[str, subprocess.Popen[bytes]]:
    """A namespace a device, with a cable into the devices' segment and an address there."""
    from lab import containers, engine
    from lab.wires import Namespace, hardware_address

    switch = Namespace(int(containers.of_lab(engine.connect(), name)["switch"].attrs["State"]["Pid"]))
    bridge = next(link for link, about in switch.links().items() if about.get("ifalias") == f"{GATEWAY}/iot")
    network = site.gateways[GATEWAY].networks["iot"].ipv4.network
    holders = {}
    for number, each in enumerate(names):
        # A namespace ends with its last process, and its cable with it.
        holder = subprocess.Popen(["unshare", "--net", "sleep", "3600"])
        _until(lambda pid=holder.pid: os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net"))
        holders[each] = holder
        port = f"fleet-{number}"
        switch.ip(
            f"link add {port} type veth peer name eth0 address {hardware_address(each)} netns {holder.pid}",
            f"link set dev {port} master {bridge} up",
        )
        Namespace(holder.pid).ip(
            "link set dev lo up",
            f"addr add {network[53 + number]}/{network.prefixlen} dev eth0",
            "link set dev eth0 up",
        )
    return holders


def _until(condition: Any) -> None:
    end = time.monotonic() + 10
    while not condition():
        if time.monotonic() > end:
            raise BenchmarkError("a network namespace did not come about within 10 s")
        time.sleep(0.002)


def _round(name: str, fleet: Fleet, size: int, number: int) -> dict[str, float]:
    """All of them once, from the factory's image on."""
    for each in fleet.names:
        _made(fleet, each, 2 * size)
    # Another one each time: a device may ask thirty times a minute.
    seconds, read = _one_connection(fleet, fleet.names[number % len(fleet.names)])
    floor = seconds * (len(fleet.names) - 1) * size / read
    before = _sent(name)
    with _memory(name) as memory:
        took, words = _together(fleet)
    sent = _sent(name) - before
    unfinished = sum(count for word, count in words.items() if word != "installed")
    progress(f"{dict(words)} in {took:.1f} s (floor {floor:.1f} s), {sent:,} bytes, {memory['most']:,} bytes of memory")
    return {"unfinished": unfinished, "seconds": took, "floor": floor, "sent": sent, "memory": memory["most"]}


def _made(fleet: Fleet, name: str, slot: int) -> None:
    """A device as it comes from the factory, with its bundle."""
    from deploy import enrolment, firmware

    site, place = fleet.site, fleet.folder / name
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    bundle = enrolment.bundles_path(site) / name
    facts = {
        "name": name, "model": MODEL, "slot_size": slot, "server": firmware.server(site),
        "server_address": _address(site), "server_port": site.listener("updates", "updates").port,
        # Not measured here, and refused at once: Debian 12's mbedTLS has no TLS 1.3, which the lab's broker wants.
        "broker": "nobody", "broker_address": "127.0.0.1", "broker_port": 1,
        "ca": bundle / "ca.pem", "certificate": bundle / "certificate.pem", "key": bundle / "key.pem", "hmac_number": 1,
        "hmac_key": (bundle / "hmac.key").read_text().strip(),
        "firmware_keys": "".join(json.loads((bundle / "bundle.json").read_text())["firmware_keys"]),
    }  # fmt: skip
    (place / "device.conf").write_text("".join(f"{key}={value}\n" for key, value in facts.items()))
    subprocess.run([fleet.program, place, "flash", fleet.folder / "factory"], check=True)


def _address(site: Any) -> str:
    return str(site.gateways[GATEWAY].networks["iot"].ipv4.ip)


def _one_connection(fleet: Fleet, who: str) -> tuple[float, int]:
    from deploy import enrolment

    site = fleet.site
    bundle = enrolment.bundles_path(site) / who
    about = [f"updates.{site.domain}", _address(site), str(site.listener("updates", "updates").port)]
    files = [str(bundle / file) for file in ("ca.pem", "certificate.pem", "key.pem")]
    done = subprocess.run(
        fleet.inside(
            who, sys.executable, "-I", "-c", ONE_CONNECTION, *about, *files,
            f"/{MODEL}/{VERSION}.bin", str(FLOOR),
        ),
        capture_output=True, text=True, check=False, timeout=PATIENCE,
    )  # fmt: skip
    if done.returncode:
        raise BenchmarkError(f"one connection: {(done.stderr.strip().splitlines() or ['no word'])[-1]}")
    seconds, read = done.stdout.split()
    return float(seconds), int(read)


def _together(fleet: Fleet) -> tuple[float, Counter[str]]:
    """Seconds until the last has its update, and what came of each, in a word."""
    began = time.monotonic()
    running = {}
    for each in fleet.names[1:]:
        place = fleet.folder / each
        with (place / "said").open("wb") as said:
            command = fleet.inside(each, str(fleet.program), str(place), "start", "--check")
            running[each] = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
    end = began + PATIENCE
    for process in running.values():
        try:
            process.wait(max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    seconds = time.monotonic() - began
    said = ((fleet.folder / each / "said").read_text(errors="replace").splitlines() for each in running)
    return seconds, Counter(
        next((line.removeprefix("check ") for line in lines if line.startswith("check ")), "no word") for lines in said
    )


def _sent(name: str) -> int:
    return int(_on_gateway(name, "cat", f"/sys/class/net/{INTERFACE}/statistics/tx_bytes"))


@contextlib.contextmanager
def _memory(name: str) -> Iterator[dict[str, int]]:
    """The server's `most` while the block runs, in bytes."""
    found: dict[str, int] = {}
    _on_gateway(name, "rm", "-f", STOP)
    watching = threading.Thread(
        target=lambda: found.update(
            most=int(_on_gateway(name, "python3", "-I", "-c", MEMORY_OF_SERVER, STOP, str(PATIENCE)))
        )
    )
    watching.start()
    try:
        yield found
    finally:
        _on_gateway(name, "touch", STOP)
        watching.join(60)
    if not found.get("most"):
        raise BenchmarkError("the server's memory could not be measured (does nginx run on the gateway?)")


def _on_gateway(name: str, *command: str) -> str:
    import lab

    done = lab.run(name, GATEWAY, list(command), timeout=PATIENCE + 60)
    if done.returncode != 0:
        raise BenchmarkError(f"gateway: {(done.stderr.strip().splitlines() or ['no output'])[-1]}")
    return done.stdout
