"""What the firewall costs with ten thousand devices in its sets: throughput, new connections, loading, one device more.

`python -m benchmarks.network [--json]`; docs/benchmarks.md says what each figure means. Three network namespaces of its
own are a device, a gateway and the internet; the gateway forwards, in turn with the whole ruleset of the lab's site,
with none, and with what tracks connections and translates their addresses alone. It needs root and nft, and touches
nothing of this machine's own network.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.measure import ROOT, BenchmarkError, Ratio, Run, in_turn, main, progress
from gatehouse.site import Device, load
from gatehouse.site.egress import Destination, Limits
from roles.nftables.ruleset import ruleset
from roles.target import Target

MEGABYTES = 1_000
CONNECTIONS = 2_000
LOADED_WITHIN = 1.0  # seconds
ADDED_WITHIN = 0.05
MEASURED = Device(
    name="measured", model="measured", gateway="gateway", hardware_address="02:00:ff:ff:ff:01", address="10.10.10.50"
)
AT, PORT = "198.51.100.80", 5201

# Without this no firewall knows what belongs to a connection, and no IPv4 leaves.
TRACKING = """table inet gatehouse
delete table inet gatehouse

table inet gatehouse {
	chain forward {
		type filter hook forward priority filter; policy accept;
		ct state established,related accept
	}

	chain translate {
		type nat hook postrouting priority srcnat; policy accept;
		oifname "br-internet" masquerade
	}
}
"""
# As the kit's kernel settings have it; a kernel without br_netfilter has no such settings.
NO_BRIDGE_NETFILTER = [f"net.bridge.bridge-nf-call-{table}=0" for table in ("iptables", "ip6tables", "arptables")]

# Takes bytes until the other side has no more, and says so; or connections, one after the other.
SERVER = """
import contextlib, socket, sys
buffer = bytearray(1 << 20)
with socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=512) as serving:
    print("ready", flush=True)
    while True:
        connection, _ = serving.accept()
        with connection, contextlib.suppress(ConnectionResetError):
            while connection.recv_into(buffer):
                pass
            connection.sendall(b".")
"""
# Sends so many megabytes over one connection, or makes so many connections: prints the seconds.
CLIENT = """
import socket, struct, sys, time
what, number, at, port = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
block = bytes(1 << 20)
def talk(blocks):
    with socket.create_connection((at, port), 10) as connection:
        connection.settimeout(60)
        for _ in range(blocks):
            connection.sendall(block)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b"."
def touch():
    with socket.create_connection((at, port), 10) as connection:
        # ended by a reset: thousands that linger would leave no ports for the next
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
talk(1)
started = time.perf_counter()
if what == "bytes":
    talk(number)
else:
    for _ in range(number):
        touch()
print(time.perf_counter() - started)
"""


class Wires:
    """The three namespaces, and what runs in them."""

    def __init__(self, folder: Path) -> None:
        self._names = {name: f"gh-{os.getpid()}-{name}" for name in ("device", "gateway", "internet")}
        self.rules = folder / "firewall.nft"
        self.tracking = folder / "tracking.nft"
        self.tracking.write_text(TRACKING)

    def within(self, name: str, *argv: str, stdin: str = "") -> str:
        """What a program prints in a namespace. Raises `BenchmarkError` if it fails."""
        command = ["ip", "netns", "exec", self._names[name], *argv]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            raise BenchmarkError(f"{argv[0]}: {(done.stderr.strip().splitlines() or ['no word'])[-1]}")
        return done.stdout

    @contextmanager
    def up(self) -> Iterator[None]:
        """Builds it all, and takes it away again."""
        try:
            for name in self._names.values():
                subprocess.run(["ip", "netns", "add", name], check=True)
            self._plug("device", "br-iot", "10.10.10.1/24", f"{MEASURED.address}/24", "10.10.10.1")
            self._plug("internet", "br-internet", "198.51.100.2/24", f"{AT}/24", "198.51.100.2")
            self.within("gateway", "sysctl", "-qw", "net.ipv4.ip_forward=1")
            self.within("gateway", "sysctl", "-eqw", *NO_BRIDGE_NETFILTER)
            with self._serving():
                yield
        finally:
            for name in self._names.values():
                subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)

    def _plug(self, name: str, bridge: str, gateway: str, own: str, router: str) -> None:
        inside = self._names[name]
        self.within("gateway", "ip", "link", "add", bridge, "type", "bridge")
        self.within(
            "gateway", "ip", "link", "add", f"p-{name}", "type", "veth", "peer", "name", "eth0", "netns", inside
        )
        self.within("gateway", "ip", "link", "set", f"p-{name}", "master", bridge, "up")
        self.within("gateway", "ip", "address", "add", gateway, "dev", bridge)
        self.within("gateway", "ip", "link", "set", bridge, "up")
        if name == "device":
            self.within(name, "ip", "link", "set", "eth0", "address", str(MEASURED.hardware_address))
        self.within(name, "ip", "address", "add", own, "dev", "eth0")
        self.within(name, "ip", "link", "set", "eth0", "up")
        self.within(name, "ip", "route", "add", "default", "via", router)

    @contextmanager
    def _serving(self) -> Iterator[None]:
        command = ["ip", "netns", "exec", self._names["internet"], sys.executable, "-c", SERVER, AT, str(PORT)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None  # noqa: S101  it was opened as a pipe
            server.stdout.readline()
            try:
                yield
            finally:
                server.kill()

    def firewall(self, rules: Path | None) -> None:
        """A ruleset loaded, or none at all: not even what tracks connections is at work then."""
        self.within("gateway", "nft", *(["-f", str(rules)] if rules else ["flush", "ruleset"]))

    def taking(self, what: str, number: int, rules: Path | None) -> Run:
        """The seconds that the device takes for bytes or connections."""
        self.firewall(rules)
        return Run(float(self.within("device", sys.executable, "-c", CLIENT, what, str(number), AT, str(PORT))))


def text(number: int) -> str:
    """The lab's ruleset with so many devices on lists of their own, and limits that are looked at and never reached."""
    site = load("lab", ROOT)
    models = [f"model-{n}" for n in range(20)]
    devices = [
        Device(
            name=f"device-{n}",
            model=models[n % len(models)],
            gateway="gateway",
            hardware_address=f"02:00:00:{n.to_bytes(3).hex(':')}",
            address=f"10.64.{n >> 8}.{n & 255}",  # type: ignore[arg-type]
        )
        for n in range(number - 1)
    ]
    lists = {f"list-{m}": Destination(names=(f"{m}.example.com",), port=443, models=(m,)) for m in models}
    lists["measured"] = Destination(addresses=(f"{AT}/32",), port=PORT, devices=(MEASURED.name,))  # type: ignore[arg-type]
    iot = site.segments["iot"].model_copy(
        update={"limits": Limits(connections=100_000, broker=100_000, packets=10_000_000, syns=100_000, pings=100_000)}
    )
    changed = site.model_copy(
        update={"devices": (MEASURED, *devices), "destinations": lists, "segments": {**site.segments, "iot": iot}}
    )

    def no_vault() -> None:
        raise BenchmarkError("the ruleset needs no vault")

    made = ruleset(Target(changed, "gateway", no_vault)).content.decode()  # type: ignore[arg-type]
    # This machine has none of the gateway's accounts.
    return re.sub(r"skuid != \{[^}]*\}", "skuid != { root }", made)


def measure(chosen: argparse.Namespace) -> Sequence[Ratio]:
    """The figures."""
    if os.geteuid():
        raise BenchmarkError("network: needs root, for network namespaces (run it as root)")
    with tempfile.TemporaryDirectory(prefix="gatehouse-") as folder:
        wires = Wires(Path(folder))
        wires.rules.write_text(text(chosen.devices))
        n = f"{chosen.devices:,}"
        with wires.up():
            progress("forwarding")
            moved = _each(wires, "bytes", MEGABYTES, chosen.rounds)
            progress("new connections")
            opened = _each(wires, "connections", CONNECTIONS, chosen.rounds)
            progress("loading, and one device more")
            loads = [_timed(wires, "-f", str(wires.rules)) for _ in range(chosen.rounds)]
            adds = [_added(wires, number) for number in range(chosen.rounds)]
    megabytes, connections = (
        f"time for {what}, ruleset with {n} devices" for what in (f"{MEGABYTES} MB", f"{CONNECTIONS} connections")
    )
    return [
        # Twice as long is half the throughput.
        Ratio(f"{megabytes} ÷ none", [(ours, none) for ours, none, _ in moved], 1 / 0.95),
        Ratio(f"{connections} ÷ none", [(ours, none) for ours, none, _ in opened], 1 / 0.90),
        Ratio(f"{megabytes} ÷ tracking alone", [(ours, tracking) for ours, _, tracking in moved], 1 / 0.95),
        Ratio(f"{connections} ÷ tracking alone", [(ours, tracking) for ours, _, tracking in opened], 1 / 0.90),
        Ratio(f"ruleset with {n} devices loaded ÷ {LOADED_WITHIN:.0f} s", [(r, Run(LOADED_WITHIN)) for r in loads], 1),
        Ratio(f"a device added to {n} ÷ {1000 * ADDED_WITHIN:.0f} ms", [(r, Run(ADDED_WITHIN)) for r in adds], 1),
    ]


def _each(wires: Wires, what: str, number: int, rounds: int) -> list[tuple[Run, ...]]:
    """With the ruleset, with none, and with tracking alone."""
    return in_turn(
        rounds,
        lambda: wires.taking(what, number, wires.rules),
        lambda: wires.taking(what, number, None),
        lambda: wires.taking(what, number, wires.tracking),
        log=progress,
    )


def _timed(wires: Wires, *arguments: str) -> Run:
    """What nft takes, without the start of the program that enters the namespace."""
    program = (
        "import subprocess, sys, time; s = time.perf_counter(); subprocess.run(['nft', *sys.argv[1:]], check=True)"
    )
    return Run(
        float(wires.within("gateway", sys.executable, "-c", f"{program}; print(time.perf_counter() - s)", *arguments))
    )


def _added(wires: Wires, number: int) -> Run:
    key = f"02:00:fe:00:00:{number:02x}"
    element = f"add element inet gatehouse own_pair {{ {key} . 10.10.10.{60 + number} : jump profile_1 }}"
    six = f"add element inet gatehouse own_hardware_6 {{ {key} : jump profile_1 }}"
    return _timed(wires, f"{element}; {six}")


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--devices", type=int, default=10_000, help="how many are in the sets (default: 10000)")
    parser.add_argument("--rounds", type=int, default=21, help="runs of each (default: 21)")


if __name__ == "__main__":
    sys.exit(main("network", measure, _options))
