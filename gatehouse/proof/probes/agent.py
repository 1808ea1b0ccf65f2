"""The agent on a gateway: positions in its segments, and probes that run there.

A position is a process in a network namespace of its own, with one end of a veth pair; the other end is a port of the
segment's bridge. Its packets enter the firewall as a device's do. The namespace has no name: it lives as long as its
process, which dies with the agent, which ends with its standard input. Whatever kills the run, nothing stays behind.

Protocol, one JSON object a line. In: `{"work": {POSITION: [probe, …], …}}`. Out, first: `{"positions": {…}}`, then one
`{"results": {POSITION: [result, …], …}}` for each line that came in.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from gatehouse.proof.probes import facts, https, listen, mqtt, reach, scan, segment, ssh, tls
from gatehouse.proof.probes.reach import Probe, Result

KINDS: dict[str, Callable[[Probe], Result]] = {
    "tcp": reach.tcp,
    "udp": reach.udp,
    "dns": reach.dns,
    "ntp": reach.ntp,
    "dhcp": reach.dhcp,
    "spoof": reach.spoof,
    "tls": tls.tls,
    "tls-capable": tls.capable,
    "https": https.https,
    "mqtt": mqtt.mqtt,
    "ssh": ssh.ssh,
    "nmap": scan.nmap,
    "listen": listen.listen,
    "heard": listen.heard,
    "run": facts.run,
    "keys": facts.keys,
}
GATEWAY = "gateway"  # the position of the gateway itself, in its own network
AT_ONCE = 160

_PR_SET_PDEATHSIG, _CLONE_NEWNET = 1, 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def perform(probe: Probe) -> Result:
    """Runs one probe; its `id`, when it began (UTC) and how long it took (ms) stand in the result."""
    began, clock = datetime.now(UTC), time.monotonic()
    try:
        result = KINDS[probe["kind"]](probe)
    except Exception as error:  # a defect of a probe is told as such, and the others go on
        result = {"outcome": "error", "error": f"{type(error).__name__}: {error}"}
    took = round(1000 * (time.monotonic() - clock))
    return {"id": probe.get("id"), "at": began.isoformat(timespec="milliseconds"), "ms": took, **result}


class Position:
    """A process that runs probes; for a segment in a network namespace of its own."""

    def __init__(self, name: str, isolated: bool) -> None:
        self.name = name
        to_child, from_parent = os.pipe()
        to_parent, from_child = os.pipe()
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(from_parent)
            os.close(to_parent)
            _live(parent, isolated, to_child, from_child)
        os.close(to_child)
        os.close(from_child)
        self._to = os.fdopen(from_parent, "w")
        self._from = os.fdopen(to_parent)

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Sends one message and waits for its answer."""
        try:
            self._to.write(json.dumps(message) + "\n")
            self._to.flush()
            line = self._from.readline()
        except OSError:
            line = ""
        if not line:
            return {"error": f"position {self.name} is gone"}
        answer: dict[str, Any] = json.loads(line)
        return answer


def _live(parent: int, isolated: bool, source: int, sink: int) -> None:
    """The life of a position's process; never returns."""
    try:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            return
        nothing = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(nothing, standard)
        error = None
        if isolated and _libc.unshare(_CLONE_NEWNET) != 0:
            error = f"no network namespace: {os.strerror(ctypes.get_errno())}"
        with os.fdopen(source) as lines, os.fdopen(sink, "w") as out, ThreadPoolExecutor(AT_ONCE) as pool:
            for line in lines:
                message = json.loads(line)
                if error is not None:
                    answer: dict[str, Any] = {"error": error}
                elif "enter" in message:
                    answer = segment.enter(message["enter"])
                else:
                    answer = {"results": list(pool.map(perform, message["probes"]))}
                out.write(json.dumps(answer) + "\n")
                out.flush()
    finally:
        os._exit(0)


def main(config: dict[str, Any]) -> None:
    """Makes the positions, then works until standard input ends. `config["segments"]`: see `segment.place`."""
    lock = _alone(config.get("patience", 0)) if config.get("segments") else None
    positions = {GATEWAY: Position(GATEWAY, isolated=False)}
    places: dict[str, Any] = {}
    for name in config.get("segments", {}):
        positions[name] = Position(name, isolated=True)
    for name, wanted in config.get("segments", {}).items():
        places[name] = segment.place(name, wanted, positions[name])
    try:
        _say({"positions": places})
        for line in sys.stdin.buffer:
            _say({"results": _work(positions, json.loads(line)["work"])})
    finally:
        segment.leave(places)
        if lock is not None:
            lock.close()


def _alone(patience: float) -> socket.socket:
    """Holds the one place for a run on this gateway, which is a name in memory that goes with this process.

    Waits up to `patience` seconds for another run to end; then ends with a word about it.
    """
    holder = socket.socket(socket.AF_UNIX)
    end = time.monotonic() + patience
    while True:
        try:
            holder.bind("\0gatehouse-proof")
            return holder
        except OSError:
            if time.monotonic() > end:
                sys.exit("another run of the compliance suite is at work here (wait for its end)")
            time.sleep(0.5)


def _work(positions: dict[str, Position], work: dict[str, list[Probe]]) -> dict[str, list[Result]]:
    results: dict[str, list[Result]] = {}

    def run(name: str) -> None:
        if name not in positions:
            answer: dict[str, Any] = {"error": f"no position {name}"}
        else:
            answer = positions[name].ask({"probes": work[name]})
        lost = [{"id": probe.get("id"), "outcome": "error", "error": answer.get("error")} for probe in work[name]]
        results[name] = answer.get("results", lost)

    threads = [threading.Thread(target=run, args=(name,)) for name in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def _say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()
