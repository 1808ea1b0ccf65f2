"""What every benchmark shares: timed processes, ratios of paired runs, and how they are shown."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from gatehouse.errors import GatehouseError

ROOT = Path(__file__).resolve().parent.parent


class BenchmarkError(GatehouseError):
    """What was to be measured could not run, or did not do what it is measured for."""


@dataclass(frozen=True)
class Run:
    """One run: `seconds` of wall clock; `peak` bytes resident in the largest of its processes, 0 where unknown."""

    seconds: float
    peak: int = 0


# A process starts as a copy of the one that starts it, and the copy counts in its peak: so a small one starts it.
_LAUNCHER = """
import os, sys, time
started = time.perf_counter()
_, status, usage = os.wait4(os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ), 0)
seconds = time.perf_counter() - started
os.write(int(sys.argv[1]), f"{seconds} {usage.ru_maxrss} {os.waitstatus_to_exitcode(status)}".encode())
"""


def timed(command: Sequence[str], *, environment: Mapping[str, str] | None = None, cwd: Path = ROOT) -> Run:
    """Runs a command, from start to exit. Raises `BenchmarkError` with what it said last, if it fails."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as result:
        launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(result.fileno()), *command]
        streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT}
        subprocess.run(launcher, **streams, env=environment, cwd=cwd, pass_fds=[result.fileno()], check=False)
        output.seek(0)
        result.seek(0)
        seconds, kibibytes, status = (result.read().decode() or "0 0 127").split()
        if status != "0":
            said = output.read().decode(errors="replace").strip().splitlines()[-5:]
            raise BenchmarkError(f"{command[0]}: exit status {status}: {' | '.join(said) or 'no output'}")
    return Run(float(seconds), int(kibibytes) * 1024)


def in_turn(rounds: int, *measured: Callable[[], Run], log: Callable[[str], None]) -> list[tuple[Run, ...]]:
    """Runs each once a round: what disturbs the machine for a while disturbs all of them alike."""
    done = []
    for number in range(1, rounds + 1):
        done.append(tuple(run() for run in measured))
        log(f"round {number} of {rounds}: " + ", ".join(f"{run.seconds:.2f} s" for run in done[-1]))
    return done


@dataclass(frozen=True)
class Ratio:
    """What is measured ÷ what it is measured against, of paired runs; `to_reach` is the largest value that is good."""

    title: str
    runs: Sequence[tuple[Run, Run]]
    to_reach: float

    @property
    def value(self) -> float:
        """The median of the pairs' ratios."""
        return median(ours.seconds / theirs.seconds for ours, theirs in self.runs)

    @property
    def reached(self) -> bool:
        """Whether the value is as good as it shall be."""
        return self.value <= self.to_reach

    def as_dict(self) -> dict[str, Any]:
        """Plain values for `--json`: seconds and bytes, medians first, then every run."""
        sides = [list(side) for side in zip(*self.runs, strict=True)]
        return {
            "title": self.title,
            "ratio": round(self.value, 4),
            "to_reach": round(self.to_reach, 4),
            "reached": self.reached,
            "seconds": [round(median(run.seconds for run in side), 3) for side in sides],
            "peak_bytes": [max(run.peak for run in side) or None for side in sides],
            "runs": [[round(run.seconds, 3) for run in pair] for pair in self.runs],
        }


def table(ratios: Sequence[Ratio]) -> str:
    """The ratios as a Markdown table, so that the same text serves a terminal and the documentation."""
    rows = [("ratio", "measured", "to reach", "seconds (medians)", "peak memory", "runs")]
    for ratio in ratios:
        values = ratio.as_dict()
        seconds = " ÷ ".join(f"{value:.2f}" for value in values["seconds"])
        memory = " / ".join(f"{value / 2**20:.0f} MiB" if value else "–" for value in values["peak_bytes"])
        verdict = "" if ratio.reached else " (not reached)"
        rows.append(
            (
                ratio.title,
                _number(ratio.value) + verdict,
                f"≤ {_number(ratio.to_reach)}",
                seconds,
                memory,
                str(len(ratio.runs)),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _number(value: float) -> str:
    """Small ratios as people say them: 1/12."""
    return f"1/{1 / value:.1f}".removesuffix(".0") if 0 < value < 0.5 else f"{value:.2f}".removesuffix(".00")


def main(
    name: str,
    measure: Callable[[argparse.Namespace], Sequence[Ratio]],
    options: Callable[[argparse.ArgumentParser], Any],
) -> int:
    """The command line of a benchmark; returns the exit status: 1 if it could not be measured."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}")
    parser.add_argument("--json", action="store_true", help="print every run as JSON instead of the table")
    options(parser)
    chosen = parser.parse_args()
    try:
        ratios = measure(chosen)
    except GatehouseError as error:
        print(error, file=sys.stderr)
        return 1
    if chosen.json:
        print(json.dumps({"benchmark": name, "ratios": [ratio.as_dict() for ratio in ratios]}, indent=2))
    else:
        print(table(ratios))
    return 0


def progress(text: str) -> None:
    """Says what is going on, beside the result."""
    print(text, file=sys.stderr, flush=True)
