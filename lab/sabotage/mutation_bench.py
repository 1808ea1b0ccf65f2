"""The two ends of a run of mutants: the gateway's console, where they are loaded, and a warm session of the suite."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import IO, Any, Self

import lab
from deploy.inventory import ROOT
from gatehouse.site import Site
from lab import hosts
from lab.sabotage.bench import SabotageError
from roles.nftables.facts import DIGEST, LOADED
from roles.nftables.ruleset import LOADER, RULESET

START_SECONDS, ASK_SECONDS, CONSOLE_SECONDS = 240.0, 240.0, 60.0
# Runs on the gateway for as long as its standard input lasts, and leaves the ruleset as the loader makes it.
_HELPER = """
import json, select, subprocess, sys
loader, same, idle = sys.argv[1:]
def run(*argv, given=None):
    done = subprocess.run(argv, input=given, capture_output=True, text=True)
    return {"status": done.returncode, "out": done.stdout, "said": done.stderr}
mutated = False
try:
    while True:
        # Who leaves the ruleset broken and says nothing more is not waited for.
        if mutated and not select.select([sys.stdin.buffer], [], [], float(idle))[0]:
            break
        line = sys.stdin.buffer.readline()
        if not line:
            break
        asked = json.loads(line)
        if asked["do"] == "list":
            answer = run("nft", "-j", "list", "table", "inet", "gatehouse")
        elif asked["do"] == "apply":
            mutated = True
            answer = run("nft", "-f", "-", given=asked["text"])
        elif asked["do"] == "restore":
            answer = run(loader)
            mutated = answer["status"] != 0
        elif asked["do"] == "compare":
            answer = run("sh", "-c", same)
        sys.stdout.write(json.dumps(answer) + "\\n")
        sys.stdout.flush()
finally:
    if mutated:
        run(loader)
"""
_SAME = f"{DIGEST.format(file=RULESET)} | cmp -s - {LOADED}"
IDLE_SECONDS = 300


class Lines:
    """A program that answers each line with a line; it is waited for so long and no longer."""

    def __init__(self, what: str, source: IO[bytes], sink: IO[bytes]) -> None:
        self._what, self._source, self._sink = what, source, sink

    def say(self, message: Mapping[str, Any]) -> None:
        """Sends a message. Raises `SabotageError` where nobody listens."""
        try:
            self._sink.write(json.dumps(message).encode() + b"\n")
        except OSError:
            raise SabotageError(f"{self._what} has ended") from None

    def hear(self, seconds: float) -> dict[str, Any]:
        """The next line. Raises `SabotageError` where none comes."""
        end, line = time.monotonic() + seconds, b""
        # select() takes no descriptor above 1,023, and who runs many tests may have more.
        source = select.poll()
        source.register(self._source, select.POLLIN)
        while not line.endswith(b"\n"):
            left = end - time.monotonic()
            if left <= 0 or not source.poll(left * 1000):
                raise SabotageError(f"{self._what} gave no answer in {seconds:.0f} s")
            part = os.read(self._source.fileno(), 1 << 20)
            if not part:
                raise SabotageError(f"{self._what} has ended")
            line += part
        try:
            answer: dict[str, Any] = json.loads(line)
        except ValueError:
            said = line[:80].decode(errors="replace").strip()
            raise SabotageError(f"no answer of {self._what}: {said!r}") from None
        return answer


class Console:
    """The gateway's firewall, by the lab's console. Whatever ends the block, the declared ruleset is loaded after it."""

    def __init__(self, site: Site, gateway: str) -> None:
        command = hosts.entering(
            lab.name_of(site), gateway, "python3", "-I", "-c", _HELPER, LOADER, _SAME, str(IDLE_SECONDS)
        )
        # A session of its own: an interrupt at the terminal is for this side, which then ends the helper's input.
        self._process = subprocess.Popen(
            command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        assert self._process.stdin and self._process.stdout  # noqa: S101  they were opened as pipes
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._lines = Lines(f"{gateway}'s console", self._process.stdout, self._process.stdin)
        self._gateway = gateway

    def listing(self) -> str:
        """The table as it is now, in JSON. Raises `SabotageError` where it can't be listed."""
        answer = self._ask({"do": "list"})
        if answer["status"]:
            raise SabotageError(f"{self._gateway}: {answer['said'].strip() or 'no table inet gatehouse'}")
        return str(answer["out"])

    def apply(self, commands: Iterable[str]) -> str:
        """Loads commands in one transaction; empty, or why nft did not take them."""
        answer = self._ask({"do": "apply", "text": "\n".join(commands) + "\n"})
        said = answer["said"].strip().splitlines() or [f"status {answer['status']}"]
        return said[0] if answer["status"] else ""

    def restore(self) -> None:
        """Loads the declared ruleset, in one transaction. Raises `SabotageError` where that failed."""
        answer = self._ask({"do": "restore"})
        if answer["status"]:
            raise SabotageError(f"{self._gateway}: the ruleset could not be restored: {answer['said'].strip()}")

    def is_as_loaded(self) -> bool:
        """What a deploy and the drift check compare: the kernel's table with the one that was loaded from the file."""
        return bool(self._ask({"do": "compare"})["status"] == 0)

    def _ask(self, message: Mapping[str, Any]) -> dict[str, Any]:
        self._lines.say(message)
        return self._lines.hear(CONSOLE_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stdin.close()
        # An answer that nobody hears any more must not keep it from restoring the ruleset.
        self._stdout.close()
        self._process.wait(CONSOLE_SECONDS)


class Warm:
    """A warm session of the compliance suite (tests/compliance/warm.py); `first` is what it said of the gateway."""

    def __init__(self, site: Site) -> None:
        (theirs_in, ours_out), (ours_in, theirs_out) = os.pipe(), os.pipe()
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  closed in `close`
        command = [sys.executable, "-m", "pytest", "tests/compliance", "--site", site.name, "-q"]
        command += ["-p", "no:cacheprovider", "-p", "tests.compliance.warm", "--warm", f"{theirs_in},{theirs_out}"]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=self._said, stderr=self._said,
            pass_fds=(theirs_in, theirs_out), start_new_session=True,
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        self._sink = os.fdopen(ours_out, "wb", buffering=0)
        self._source = os.fdopen(ours_in, "rb", buffering=0)
        self._lines = Lines("the warm session", self._source, self._sink)  # type: ignore[arg-type]
        try:
            self.first = self._hear(START_SECONDS)
        except BaseException:
            self.close()
            raise

    def groups(self, wanted: Mapping[str, Iterable[tuple[str, str]] | None]) -> dict[str, dict[str, str]]:
        """For each group of probes, made again: the checks that fail, each with why. None stands for every probe."""
        groups = {name: None if keys is None else sorted(keys) for name, keys in wanted.items()}
        self._lines.say({"groups": groups})
        failed: dict[str, dict[str, str]] = self._hear(ASK_SECONDS)["failed"]
        return failed

    def areas(self, wanted: Iterable[str]) -> dict[str, dict[str, str]]:
        """Asks areas anew: for each of them the checks that fail, each with why."""
        self._lines.say({"areas": sorted(wanted)})
        failed: dict[str, dict[str, str]] = self._hear(ASK_SECONDS)["failed"]
        return failed

    def _hear(self, seconds: float) -> dict[str, Any]:
        try:
            return self._lines.hear(seconds)
        except SabotageError as error:
            self._end()  # then it has said why
            self._said.seek(0)
            said = self._said.read()[-600:].decode(errors="replace").strip()
            raise SabotageError(f"{error}{f': {said}' if said else ''}") from None

    def close(self) -> None:
        """Ends it."""
        self._end()
        self._source.close()
        self._said.close()

    def _end(self) -> None:
        self._sink.close()
        try:
            self._process.wait(40)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
