"""Breaks the controls of a lab's gateway, one round after another, and has the compliance suite say what it notices.

A round is: break, run the whole suite, take away what no deploy can know of, deploy, and see that nothing is left to
change. What a deploy did not repair in one round shows as an accident in the next, and in the last run of the suite.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import lab
from deploy import run as deploying
from deploy import vaults
from deploy.inventory import ROOT
from gatehouse.errors import GatehouseError
from gatehouse.proof import results
from gatehouse.site import Site
from lab.sabotage.catalogue import OUT_OF_REACH, SABOTAGES
from lab.sabotage.judge import Checks, Outcome, changed, judged
from lab.sabotage.model import Sabotage
from lab.sabotage.rounds import one_by_one, packed
from lab.sabotage.surroundings import preamble

TOOLS = Path(__file__).with_name("tools.sh")
SUITE_SECONDS = 300
BREAK_SECONDS = 60

Say = Callable[[str], None]


class SabotageError(GatehouseError):
    """A gateway that can't be sabotaged, or that could not be repaired afterwards."""


@dataclass(frozen=True)
class Report:
    """What became of all sabotages, round by round; `before` and `after` are what the suite said first and last."""

    rounds: tuple[tuple[Outcome, ...], ...]
    before: Checks
    after: Checks
    seconds: float

    @property
    def outcomes(self) -> list[Outcome]:
        """All of them, in the catalogue's order."""
        order = {sabotage.name: number for number, sabotage in enumerate(SABOTAGES)}
        found = [outcome for group in self.rounds for outcome in group]
        return sorted(found, key=lambda outcome: order[outcome.sabotage.name])

    @property
    def never_failed(self) -> list[str]:
        """The checks that failed under no sabotage that names them, and of which nothing says why."""
        failed = {i for outcome in self.outcomes for group in outcome.failed.values() for i in group}
        return sorted(set(self.before) - failed - set(OUT_OF_REACH))

    @property
    def left(self) -> dict[str, str]:
        """The checks that say something else at the end than at the beginning, and what."""
        return changed(self.before, self.after)

    @property
    def caught(self) -> int:
        """How many sabotages were caught."""
        return sum(outcome.caught for outcome in self.outcomes)

    @property
    def repaired(self) -> int:
        """After how many the next deploy left nothing to change."""
        return sum(not outcome.unrepaired for outcome in self.outcomes)

    @property
    def accidents(self) -> int:
        """How many checks fell by accident, counted once a round."""
        return sum(len(group[0].accidents) for group in self.rounds)

    @property
    def succeeded(self) -> bool:
        """Whether every one was caught and repaired, and nothing fell by accident."""
        return bool(self.rounds) and all(outcome.clean for outcome in self.outcomes) and not self.left


def chosen(names: Iterable[str]) -> list[Sabotage]:
    """The sabotages of these names, all where none is named. Raises `SabotageError`."""
    wanted = set(names)
    if unknown := sorted(wanted - {sabotage.name for sabotage in SABOTAGES}):
        there = ", ".join(sabotage.name for sabotage in SABOTAGES)
        raise SabotageError(f"sabotage: there is no '{unknown[0]}' (there are: {there})")
    return [sabotage for sabotage in SABOTAGES if not wanted or sabotage.name in wanted]


def sabotage(site: Site, names: Iterable[str] = (), strict: bool = False, say: Say = print) -> Report:
    """Makes sabotages on the first gateway of a lab, all of them or those named; `strict` makes each alone.

    Raises `SabotageError` for a site that is no lab, or that is not as declared before anything is broken.
    """
    if not site.lab:
        raise SabotageError(f"{site.name}: is no lab: nothing was broken (sabotages are for `--site lab`)")
    wanted = chosen(names)
    started = time.monotonic()
    bench = Bench(site, say)
    with bench:
        before = bench.baseline()
        rounds = one_by_one(wanted) if strict else packed(wanted, before)
        say(f"sabotage: {len(wanted)} sabotages in {len(rounds)} rounds")
        made: list[tuple[Outcome, ...]] = []
        while rounds:
            now = rounds.pop(0)
            found = bench.round(now, before, f"{len(made) + 1}, {len(rounds)} to go")
            clear, again = settled(now, found)
            for line in dict.fromkeys(problem for outcome in found for problem in outcome.problems()):
                say(f"  {line}")
            if again:
                say(f"  not clear: {sum(map(len, again))} of them again, apart")
            made += [tuple(clear)] if clear else []
            rounds = again + rounds
        after = bench.checks()
    return Report(tuple(made), before, after, time.monotonic() - started)


def settled(made: Sequence[Sabotage], found: Sequence[Outcome]) -> tuple[list[Outcome], list[list[Sabotage]]]:
    """The outcomes of a round that stand, and the rounds to be made to know the others.

    Whatever was caught stands. What was not may have been hidden: it is made alone. Where one could not be made as it
    should, it is made alone and the others without it; where something fell by accident, or was not repaired, both
    halves of the round are made to tell whose it is.
    """
    if len(made) == 1 or all(outcome.clean for outcome in found):
        return list(found), []
    if unmade := [outcome.sabotage for outcome in found if outcome.unmade]:
        rest = [sabotage for sabotage in made if sabotage not in unmade]
        return [], [*one_by_one(unmade), *([rest] if rest else [])]
    if any(outcome.accidents for outcome in found) or any(outcome.unrepaired for outcome in found):
        half = (len(made) + 1) // 2
        return [], [list(made[:half]), list(made[half:])]
    return [o for o in found if o.clean], [[o.sabotage] for o in found if not o.clean]


class Bench:
    """The lab's gateway while it is broken and repaired; repaired whenever the block is left, whatever happened."""

    def __init__(self, site: Site, say: Say) -> None:
        self._site, self._say = site, say
        self._lab = lab.default_name()
        self._gateway = next(iter(site.gateways))
        self._preamble = preamble(site, self._gateway, self._lab) + TOOLS.read_text()
        self._reports = (site.state or ROOT / "reports") / "sabotage"
        self._broken: list[Sabotage] = []

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        if self._broken:
            self._say("sabotage: repairing the gateway")
            self.repair()
        shutil.rmtree(self._reports, ignore_errors=True)

    def baseline(self) -> Checks:
        """What the suite says of the gateway as deployed. Raises `SabotageError` where a check fails already."""
        plan = deploying.plan(self._site)
        if not plan.empty:
            raise SabotageError(
                f"{self._site.name}: not as declared, so nothing was broken: `invoke harden` first\n{plan}"
            )
        found = self.checks()
        if failed := [check.id for check in found.values() if check.verdict == "failed"]:
            raise SabotageError(
                f"{self._site.name}: {failed[0]} fails before anything is broken (`invoke verify` says why)"
            )
        return found

    def round(self, sabotages: Sequence[Sabotage], before: Checks, number: str) -> list[Outcome]:
        """Breaks, asks, repairs; the outcomes."""
        marks = [time.monotonic()]
        self._say(f"round {number}: {', '.join(s.name for s in sabotages)}")
        unmade = {s.name: said for s in sabotages if (said := self._break(s))}
        marks.append(time.monotonic())
        after = self.checks()
        marks.append(time.monotonic())
        left = self.repair()
        times = [end - begin for begin, end in pairwise([*marks, time.monotonic()])]
        self._say(f"  broken in {times[0]:.0f} s, judged in {times[1]:.0f} s, repaired in {times[2]:.0f} s")
        found = judged(sabotages, before, after)
        return [replace(o, unmade=unmade.get(o.sabotage.name, ""), unrepaired=left) for o in found]

    def _break(self, sabotage: Sabotage) -> str:
        """Breaks one control; empty, or why that failed."""
        self._broken.append(sabotage)
        given = vaults.open_vault(self._site).get_authority_key(sabotage.reads) if sabotage.reads else None
        return self._shell(sabotage.breaks, given)

    def _shell(self, script: str, given: bytes | None = None) -> str:
        try:
            done = lab.run(self._lab, self._gateway, ["sh", "-c", self._preamble + script], given, BREAK_SECONDS)
        except TimeoutError as error:
            return str(error)
        said = (done.stderr or done.stdout).strip().splitlines() or [f"status {done.returncode}"]
        return said[-1] if done.returncode else ""

    def checks(self) -> Checks:
        """What the whole suite says now, by check id. Raises `SabotageError` if it says nothing."""
        shutil.rmtree(self._reports, ignore_errors=True)
        command = [sys.executable, "-m", "pytest", "tests/compliance", "--site", self._site.name, "-q"]
        command += ["--reports", str(self._reports), "-p", "no:cacheprovider"]
        try:
            done = subprocess.run(
                command,
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=SUITE_SECONDS,
                stdin=subprocess.DEVNULL,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise SabotageError(f"{self._site.name}: the compliance suite has no end after {SUITE_SECONDS} s") from None
        path = self._reports / self._site.name / results.LATEST / results.RESULTS
        if not path.exists():
            raise SabotageError(
                f"{self._site.name}: the compliance suite did not run: {(done.stderr or done.stdout)[-500:]}"
            )
        return {c.id: c for c in results.read(path).checks if c.gateway in (self._gateway, None)}

    def repair(self) -> str:
        """Takes away what no deploy can know of, then deploys; empty, or what a deploy would still change."""
        for sabotage in self._broken:
            if sabotage.ends:
                self._shell(sabotage.ends)
        with _quiet():
            deploying.apply(self._site)
        plan = deploying.plan(self._site)
        self._broken.clear()
        return "" if plan.empty else str(plan)


@contextmanager
def _quiet() -> Iterator[None]:
    """A deploy's own progress goes nowhere; its error says enough."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(stream) for stream in (1, 2)]
    with open(os.devnull, "w") as nowhere:
        for stream in (1, 2):
            os.dup2(nowhere.fileno(), stream)
    try:
        yield
    finally:
        for stream, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, stream)
            os.close(copy)
