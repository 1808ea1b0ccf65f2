"""The agent on a gateway: positions in its segments, and probes that run there.

A position is a process in a network namespace of its own, with one end of a veth pair; the other end is a port of the
segment's bridge. Its packets enter the firewall as a device's do. The namespace has no name: it lives as long as its
process, which dies with the agent, which ends with its standard input. Whatever kills the run, nothing stays behind.

Protocol, one JSON object a line. In: `{"number": N, "work": {POSITION: [probe, …], …}}`; nobody waits for the answer
before the next. Out, first: `{"positions": {…}, "pace": 1.0}`, then one
`{"number": N, "results": {POSITION: [result, …], …}}` for each line that came in, in whatever order they
are done. `{"end": true}` ends the agent whatever is still being asked; the end of standard input does so when
everything is answered.
"""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from queue import SimpleQueue
from typing import IO, Any

from gatehouse.proof.probes import coap, facts, hello, https, link, listen, log, mqtt, reach, scan, segment, ssh, tls
from gatehouse.proof.probes.reach import Probe, Result

KINDS: dict[str, Callable[[Probe], Result]] = {
    "udp": reach.udp,
    "datagrams": reach.datagrams,
    "dns": reach.dns,
    "ntp": reach.ntp,
    "dhcp": reach.dhcp,
    "ping": reach.ping,
    "spoof": reach.spoof,
    "tls": tls.tls,
    "tls-capable": tls.capable,
    "hello": hello.hello,
    "https": https.https,
    "http": https.http_,
    "mqtt": mqtt.mqtt,
    "dtls": coap.hello,
    "coap": coap.coap,
    "dtls-certificate": coap.certificate,
    "ssh": ssh.ssh,
    "nmap": scan.nmap,
    "speaks": scan.speaks,
    "routers": link.routers,
    "pretend": link.pretend,
    "overhear": link.overhear,
    "leaving": link.leaving,
    "flood": link.flood,
    "listen": listen.listen,
    "heard": listen.heard,
    "run": facts.run,
    "keys": facts.keys,
    "log-words": log.words,
}
# Those that do nothing but wait: all of them have one thread.
WAITING: dict[str, Callable[[Probe], Awaitable[Result]]] = {"tcp": reach.tcp}
GATEWAY = "gateway"  # the position of the gateway itself, in its own network
AT_ONCE = 160  # threads
# Until the first probe that has a time of its own: by then each position has its work.
HEAD_START = 0.3
CONNECTIONS = 500  # of a position at the same time: fewer than the files that a process may have open
# Where things take several times as long, so many at once only wait for each other.
SLOW_AT_ONCE, SLOW_CONNECTIONS = 24, 60

_PR_SET_PDEATHSIG, _CLONE_NEWNET = 1, 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class _Stopwatch:
    """Notes when a probe began (UTC) and how long it took (ms)."""

    def __init__(self, probe: Probe) -> None:
        self._probe, self._began, self._clock = probe, datetime.now(UTC), time.monotonic()

    def result(self, said: Result | Exception) -> Result:
        """What the probe said; a defect of it is told as such, and the others go on."""
        if isinstance(said, Exception):
            said = {"outcome": "error", "error": f"{type(said).__name__}: {said}"}
        took = round(1000 * (time.monotonic() - self._clock))
        return {"id": self._probe.get("id"), "at": self._began.isoformat(timespec="milliseconds"), "ms": took, **said}


def perform(probe: Probe) -> Result:
    """Runs one probe; its `id`, when it began (UTC) and how long it took (ms) stand in the result."""
    watch = _Stopwatch(probe)
    try:
        return watch.result(KINDS[probe["kind"]](probe))
    except Exception as error:
        return watch.result(error)


async def _wait(probe: Probe, free: asyncio.Semaphore) -> Result:
    """The same for one that waits."""
    async with free:
        watch = _Stopwatch(probe)
        try:
            return watch.result(await WAITING[probe["kind"]](probe))
        except Exception as error:
            return watch.result(error)


async def _wait_for_all(probes: Sequence[Probe]) -> list[Result]:
    free = asyncio.Semaphore(SLOW_CONNECTIONS if reach.patient(1) > 2 else CONNECTIONS)
    return await asyncio.gather(*(_wait(probe, free) for probe in probes))


def perform_all(probes: Sequence[Probe], pool: ThreadPoolExecutor) -> list[Result]:
    """Runs probes at the same time; the results in their order.

    One that has a time (`at`) has a thread of its own, for in the pool it may have to wait for its turn.
    """
    timed = [probe for probe in probes if "at" in probe]
    with ThreadPoolExecutor(len(timed) or 1) as own:
        on_time = own.map(perform, timed)
        others = pool.map(perform, [probe for probe in probes if "at" not in probe and probe["kind"] not in WAITING])
        waited = iter(asyncio.run(_wait_for_all([probe for probe in probes if probe["kind"] in WAITING])))

        def result(probe: Probe) -> Result:
            return next(on_time if "at" in probe else waited if probe["kind"] in WAITING else others)

        return [result(probe) for probe in probes]


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
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._waiting: dict[int, SimpleQueue[dict[str, Any]]] = {}

    def hear(self) -> None:
        """Begins to take in answers; not before the last position was made, since a fork leaves threads behind."""
        threading.Thread(target=self._hear, daemon=True).start()

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Sends one message and waits for its answer; several may wait at the same time."""
        answer: SimpleQueue[dict[str, Any]] = SimpleQueue()
        with self._lock:
            number = next(self._numbers)
            self._waiting[number] = answer
            try:
                self._to.write(json.dumps({**message, "number": number}) + "\n")
                self._to.flush()
            except (OSError, ValueError):  # the pipe is broken, or closed
                return self._gone
        return answer.get()

    @property
    def _gone(self) -> dict[str, Any]:
        return {"error": f"position {self.name} is gone"}

    def _hear(self) -> None:
        for line in self._from:
            answer = json.loads(line)
            with self._lock:
                waiting = self._waiting.pop(answer["number"])
            waiting.put(answer)
        with self._lock:
            self._to.close()  # whoever asks now is told at once
            for waiting in self._waiting.values():
                waiting.put(self._gone)


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
        with (
            os.fdopen(source) as lines,
            os.fdopen(sink, "w") as out,
            ThreadPoolExecutor(SLOW_AT_ONCE if reach.patient(1) > 2 else AT_ONCE) as pool,
        ):
            lock = threading.Lock()
            for line in lines:
                threading.Thread(target=_answer, args=(json.loads(line), error, pool, out, lock)).start()
    finally:
        os._exit(0)


def _answer(
    message: dict[str, Any], error: str | None, pool: ThreadPoolExecutor, out: IO[str], lock: threading.Lock
) -> None:
    """A position's answer to one message."""
    if error is not None:
        answer: dict[str, Any] = {"error": error}
    elif "enter" in message:
        answer = segment.enter(message["enter"])
    else:
        answer = {"results": perform_all(message["probes"], pool)}
    with lock:
        out.write(json.dumps({**answer, "number": message["number"]}) + "\n")
        out.flush()


_saying = threading.Lock()


def main(config: dict[str, Any]) -> None:
    """Makes the positions, then works until it is told to end. `config["segments"]`: see `segment.place`.

    `config["pace"]` is how many times as long as elsewhere it waits; it is measured if none is given.
    """
    wanted: dict[str, dict[str, Any]] = config.get("segments", {})
    pace = config.get("pace") or reach.measured_pace()
    reach.set_pace(pace)
    lock = _alone(config.get("patience", 0)) if wanted else None
    positions = {GATEWAY: Position(GATEWAY, isolated=False)}
    positions |= {name: Position(name, isolated=True) for name in wanted}
    for position in positions.values():
        position.hear()
    places = _place(wanted, positions)
    try:
        _say({"positions": places, "pace": pace})
        _serve(positions)
    finally:
        segment.leave(places)
        if lock is not None:
            lock.close()


def _place(wanted: dict[str, dict[str, Any]], positions: dict[str, Position]) -> dict[str, Any]:
    """Connects the positions, each bridge's in turn: two at a time would take the same free address."""
    by_bridge: dict[str, list[str]] = {}
    for name, place in wanted.items():
        by_bridge.setdefault(place["bridge"], []).append(name)

    def fill(names: list[str]) -> dict[str, Any]:
        return {name: segment.place(name, wanted[name], positions[name]) for name in names}

    found: dict[str, Any] = {}
    with ThreadPoolExecutor(len(by_bridge) or 1) as pool:
        for made in pool.map(fill, by_bridge.values()):
            found |= made
    return {name: found[name] for name in wanted}


def _serve(positions: dict[str, Position]) -> None:
    """Answers what comes, each line in a thread of its own."""
    threads = []
    for line in sys.stdin.buffer:
        message = json.loads(line)
        if message.get("end"):
            _saying.acquire()  # nobody listens any more
            return

        def answer(message: dict[str, Any] = message) -> None:
            _say({"number": message.get("number"), "results": _work(positions, message["work"])})

        threads.append(threading.Thread(target=answer, daemon=True))
        threads[-1].start()
    for thread in threads:
        thread.join()


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
    # Positions get to their work when they do, some late; what comes `after` something else comes by one clock for all.
    begins = time.monotonic() + reach.patient(HEAD_START)
    for probes in work.values():
        for probe in probes:
            if "after" in probe:
                probe["at"] = begins + probe["after"]

    def run(name: str) -> None:
        if name not in positions:
            answer: dict[str, Any] = {"error": f"no position {name}"}
        else:
            answer = positions[name].ask({"probes": work[name]})
        lost = [{"id": probe.get("id"), "outcome": "error", "error": answer.get("error")} for probe in work[name]]
        results[name] = answer.get("results", lost)

    threads = [threading.Thread(target=run, args=(name,), daemon=True) for name in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def _say(message: dict[str, Any]) -> None:
    with _saying:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()
