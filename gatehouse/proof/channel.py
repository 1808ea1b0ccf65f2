"""The operator's end of an agent: sends the probes over, asks, and gets results. How it gets there is the caller's."""

from __future__ import annotations

import itertools
import json
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Self

from gatehouse.errors import GatehouseError

HERE = Path(__file__).resolve().parent
ENTRY = "gatehouse.proof.probes.agent"

# The agent's modules arrive as one line on standard input and are never files on the gateway.
START = """
import json, sys, types
sent = json.loads(sys.stdin.buffer.readline())
for name, source in sent["modules"]:
    module = sys.modules[name] = types.ModuleType(name)
    module.__path__ = []
    exec(compile(source, name, "exec"), module.__dict__)
    above, _, last = name.rpartition(".")
    if above:
        setattr(sys.modules[above], last, module)
sys.modules[sent["entry"]].main(sent["config"])
"""

Probes = Mapping[str, Sequence[Mapping[str, Any]]]


class ProbeError(GatehouseError):
    """The agent could not be started, or did not answer."""


def opening(config: Mapping[str, Any]) -> str:
    """The first line for `python3 -c START`: the modules, in the order of their imports, and the configuration."""
    order = (
        "reach",
        "listen",
        "link",
        "tls",
        "hello",
        "https",
        "keyed",
        "mqtt",
        "coap",
        "scan",
        "ssh",
        "facts",
        "log",
        "segment",
        "agent",
    )
    modules = [[name, ""] for name in ("gatehouse", "gatehouse.proof", "gatehouse.proof.probes")]
    modules += [[f"gatehouse.proof.probes.{name}", (HERE / "probes" / f"{name}.py").read_text()] for name in order]
    return json.dumps({"modules": modules, "entry": ENTRY, "config": config}) + "\n"


def asking(work: Probes, number: int = 0) -> str:
    """The line that asks for the probes of each position; the answer has the same number."""
    return json.dumps({"number": number, "work": work}) + "\n"


class Agent:
    """An agent behind a program that carries its standard input and output, such as `ssh HOST python3 -c START`.

    Use it as a context: its end is the end of the agent and of all its positions. Raises `ProbeError`, which names
    `where`.
    """

    def __init__(self, where: str, command: Sequence[str], config: Mapping[str, Any], patience: float = 60) -> None:
        self._where = where
        self._numbers = itertools.count()
        self._answers: dict[int | None, SimpleQueue[str]] = {None: SimpleQueue()}
        self._errors: list[str] = []
        self._ended = False
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._readers = [threading.Thread(target=target, daemon=True) for target in (self._hear, self._hear_errors)]
        for reader in self._readers:
            reader.start()
        # It may be more than a pipe holds: who reads nothing must not be waited for for longer than `patience`.
        threading.Thread(target=self._open, args=(opening(config),), daemon=True).start()
        made = self._read(None, patience)
        self.positions: dict[str, dict[str, Any]] = made["positions"]
        self.pace: float = made.get("pace", 1.0)  # how many times as long as elsewhere a wait is there

    def ask(self, work: Probes, patience: float = 180) -> dict[str, list[dict[str, Any]]]:
        """Runs the probes, all positions at the same time, all probes of a position at the same time.

        Returns the results by position, in the order of the probes. `patience` is for the whole, in seconds at the
        gateway's pace. Several threads may ask at the same time.
        """
        number = next(self._numbers)
        with self._lock:
            if self._ended:
                raise self._lost()
            self._answers[number] = SimpleQueue()
            self._write(asking(work, number))
        results: dict[str, list[dict[str, Any]]] = self._read(number, patience * self.pace)["results"]
        return results

    def close(self) -> None:
        """Ends the agent, whatever it is still asked, and waits until it has tidied up."""
        with suppress(OSError, ProbeError), self._lock:
            self._write(json.dumps({"end": True}) + "\n")
            assert self._process.stdin is not None  # noqa: S101  it was opened as a pipe
            self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for reader in self._readers:
            reader.join(5)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, line: str) -> None:
        with suppress(ProbeError):  # whoever waits for the answer notices, too
            self._write(line)

    def _write(self, line: str) -> None:
        try:
            assert self._process.stdin is not None  # noqa: S101  it was opened as a pipe
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except OSError:
            raise self._lost() from None

    def _read(self, number: int | None, patience: float) -> dict[str, Any]:
        try:
            line = self._answers[number].get(timeout=patience)
        except Empty:
            self._process.kill()
            raise ProbeError(
                f"{self._where}: the probes gave no answer in {patience:.0f} s (is the gateway busy?)"
            ) from None
        if not line:
            raise self._lost()
        try:
            answer: dict[str, Any] = json.loads(line)
        except ValueError:
            raise ProbeError(
                f"{self._where}: no answer of a probe: {line[:80]!r} (does a login script print it?)"
            ) from None
        with self._lock:
            del self._answers[number]
        return answer

    def _lost(self) -> ProbeError:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        self._readers[1].join(2)
        said = [line.strip() for line in self._errors if line.strip()]
        return ProbeError(f"{self._where}: the probes ended: {said[-1] if said else 'no word why'}")

    def _hear(self) -> None:
        """Gives each answer to who waits for it; what is no answer, and the end, to everybody."""
        assert self._process.stdout is not None  # noqa: S101
        for line in self._process.stdout:
            self._deliver(line)
        self._deliver("")

    def _deliver(self, line: str) -> None:
        try:
            number = json.loads(line).get("number")
        except (ValueError, AttributeError):
            number = -1
        with self._lock:
            self._ended |= not line
            for waiting in [self._answers[number]] if number in self._answers else self._answers.values():
                waiting.put(line)

    def _hear_errors(self) -> None:
        assert self._process.stderr is not None  # noqa: S101
        for line in self._process.stderr:
            self._errors.append(line)
            del self._errors[:-50]
