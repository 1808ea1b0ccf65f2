"""How long the proof takes: the whole compliance suite, against the same checks each over a connection of its own.

`python -m benchmarks.verify [--json]`; docs/benchmarks.md says what each figure means.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET  # noqa: S405  written by pytest, just now
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean

from benchmarks.measure import ROOT, BenchmarkError, Ratio, Run, main, progress

LONGEST = 90.0  # seconds that the whole suite may take
SUITE = "tests/compliance"


def measure(chosen: argparse.Namespace) -> list[Ratio]:
    """The suite's seconds, and the ratio. Raises `BenchmarkError` where the site isn't proven: it must be there."""
    checks = collected(chosen.site)
    sample = sampled(checks, chosen.every)
    whole, each = [], []
    for number in range(1, chosen.rounds + 1):
        whole.append(_suite(chosen.site))
        progress(f"round {number}: {len(checks)} checks over one connection: {whole[-1].seconds:.1f} s")
        took = _one_by_one(chosen.site, sample)
        each.append(Run(estimate(checks, took)))
        progress(f"round {number}: {len(took)} of them, each over its own: {sum(took.values()):.1f} s;"
                 f" all of them would take {each[-1].seconds:.0f} s")  # fmt: skip
    return [
        Ratio(f"compliance suite ÷ {LONGEST:.0f} s", [(run, Run(LONGEST)) for run in whole], 1),
        Ratio("compliance suite ÷ a connection a check", list(zip(whole, each, strict=True)), 1 / 5),
    ]


def sampled(checks: Sequence[str], every: int) -> list[str]:
    """Each `every`-th check of each file of checks, its first always."""
    return [check for some in _by_file(checks).values() for check in some[::every]]


def estimate(checks: Iterable[str], took: dict[str, float]) -> float:
    """Seconds that all checks would take: in each file as many times the mean of those that were measured."""
    means = {file: mean(took[check] for check in some) for file, some in _by_file(took).items()}
    return sum(len(some) * means[file] for file, some in _by_file(checks).items())


def _by_file(checks: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for check in checks:
        found.setdefault(check.partition("::")[0], []).append(check)
    return found


def collected(site: str) -> list[str]:
    """The suite's checks for a site, as pytest names them."""
    said = _pytest(site, SUITE, "--collect-only", "-q", "--disable-warnings")
    found = [line for line in said.splitlines() if line.startswith(f"{SUITE}/") and "::" in line]
    if not found:
        raise BenchmarkError(f"{SUITE}: no check was found for site {site!r}")
    return found


def _suite(site: str) -> Run:
    with tempfile.TemporaryDirectory() as folder:
        return Run(_timed(site, folder, [SUITE])[0])


def _one_by_one(site: str, checks: Sequence[str]) -> dict[str, float]:
    """Seconds of each check with a connection, positions and answers of its own; processes are not started anew."""
    with tempfile.TemporaryDirectory() as folder:
        found = _timed(site, folder, [*checks, "--connection-each"])[1]
    if len(found) != len(checks):
        raise BenchmarkError(f"{len(found)} of {len(checks)} checks were measured")
    return dict(zip(checks, (found[name] for name in map(_short, checks)), strict=True))


def _short(check: str) -> str:
    """File and test of a check, as JUnit's XML has them."""
    file, _, test = check.partition("::")
    return f"{file.removesuffix('.py').replace('/', '.')}::{test}"


def _timed(site: str, folder: str, arguments: Sequence[str]) -> tuple[float, dict[str, float]]:
    """Seconds of the session, and of each test from its setup to its end."""
    file = Path(folder, "times.xml")
    _pytest(site, *arguments, "--reports", folder, f"--junitxml={file}")
    suite = ET.parse(file).getroot()[0]  # noqa: S314
    cases = {
        f"{case.get('classname')}::{case.get('name')}": float(case.get("time", 0)) for case in suite.iter("testcase")
    }
    return float(suite.get("time", 0)), cases


def _pytest(site: str, *arguments: str) -> str:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--site", site, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or ["no output"]
        said = [line for line in lines if line.startswith("failed: ")] or lines[-2:]
        raise BenchmarkError(f"the suite over site {site!r}: {' | '.join(said)} (./kit harden --site {site} first)")
    return done.stdout


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--site", default="lab", help="the site, hardened and up (default: lab)")
    parser.add_argument("--every", type=int, default=8, help="measure each n-th check by itself (1: all of them)")
    parser.add_argument("--rounds", type=int, default=1, help="how often both are measured")


if __name__ == "__main__":
    sys.exit(main("verify", measure, _options))
