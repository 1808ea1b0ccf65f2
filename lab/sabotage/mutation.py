"""Mutates the derived firewall of a lab's gateway, one change at a time, and has the suite's probes say what they notice.

1. Each mutant is loaded alone and compared as a deploy compares: with what was loaded from the file.
2. Each is asked by the probes whose way it changes, as worked out from the ruleset. Mutants that change nothing of
   what the others are asked by are loaded together; what was missed there is asked alone, and by more probes.
3. What no such probe told is asked by the areas that are asked as a whole (lists, limits, quarantine, the tunnel, …).
4. What nothing is expected to tell is loaded together, and everything is asked: so it is seen that nothing tells it.

Whatever happens in between, an interrupt too, the declared ruleset is loaded at the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from deploy import run as deploying
from gatehouse.site import Site
from lab.sabotage.bench import SabotageError, Say
from lab.sabotage.model import matching
from lab.sabotage.mutants import Mutant, mutants
from lab.sabotage.mutation_bench import Console, Warm
from lab.sabotage.mutation_plan import THOROUGH, Planned, Planner, spread
from lab.sabotage.rules import Ruleset

ALL_AREAS = (
    "accounts",
    "database",
    "egress",
    "floods",
    "forged",
    "isolation",
    "refusals",
    "resolvers",
    "routers",
    "tunnel",
)
_EVERYTHING = "everything"
T = TypeVar("T")


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant: the checks that failed, each with why; whether the comparison saw it; why it was not made.

    `expected` is whether any question was expected to tell it.
    """

    name: str
    checks: Mapping[str, str] = field(default_factory=dict)
    compared: bool = False
    unmade: str = ""
    expected: bool = False


@dataclass(frozen=True)
class Mutation:
    """A run: what became of each mutant, and which checks failed at the end, with the ruleset as declared."""

    outcomes: tuple[Outcome, ...]
    whole: bool
    rounds: int
    seconds: float
    left: Mapping[str, str] = field(default_factory=dict)


class Firewall(Protocol):
    """Where mutants are loaded: see `mutation_bench.Console`."""

    def listing(self) -> str:
        """The table now."""

    def apply(self, commands: Iterable[str]) -> str:
        """Loads commands; empty, or why not."""

    def restore(self) -> None:
        """Loads the declared ruleset."""

    def is_as_loaded(self) -> bool:
        """Whether the comparison sees no difference."""


class Suite(Protocol):
    """Who asks: see `mutation_bench.Warm`."""

    def groups(self, wanted: Mapping[str, Iterable[tuple[str, str]] | None]) -> dict[str, dict[str, str]]:
        """The checks that fail, for each group of probes."""

    def areas(self, wanted: Iterable[str]) -> dict[str, dict[str, str]]:
        """The checks that fail, for each of these areas."""


def chosen(found: Sequence[Mutant], patterns: Iterable[str]) -> list[Mutant]:
    """The mutants that meet any of the patterns, all without one. Raises `SabotageError` for one that none meets."""
    patterns = list(patterns)
    names = [mutant.name for mutant in found]
    for pattern in patterns:
        if not matching([pattern], names):
            raise SabotageError(f"sabotage: no mutant is named '{pattern}' (one of {len(names)}: '{names[0]}')")
    wanted = matching(patterns, names) if patterns else set(names)
    return [mutant for mutant in found if mutant.name in wanted]


def mutate(site: Site, patterns: Iterable[str] = (), strict: bool = False, say: Say = print) -> Mutation:
    """Mutates the first gateway of a lab; `strict` loads each mutant alone.

    Raises `SabotageError` for a site that is no lab, one that is not as declared, and a check that fails at first.
    """
    if site.lab is not True:
        what = "a lab of virtual machines" if site.lab else "no lab"
        raise SabotageError(f"{site.name}: is {what}: nothing was broken (mutants are for `--site lab`)")
    started = time.monotonic()
    plan = deploying.plan(site)
    if not plan.empty:
        raise SabotageError(f"{site.name}: not as declared, so nothing was broken: `invoke harden` first\n{plan}")
    with Console(site, next(iter(site.gateways))) as console:
        ruleset = Ruleset.read(console.listing())
        found = mutants(ruleset)
        wanted = chosen(found, patterns)
        say(f"mutants: {len(wanted)} of {len(ruleset.rules)} rules, {len(ruleset.sets)} sets; asking everything first")
        with Warm(site) as warm:
            failing = {n: why for n, (verdict, why) in warm.first["verdicts"].items() if verdict == "failed"}
            for name, why in failing.items():
                raise SabotageError(f"{site.name}: {name} fails before anything is mutated: {why}")
            run = Run(Planner(ruleset, warm.first), console, warm, say, strict)
            outcomes = run.made(wanted)
            say("mutants: everything once more, as declared")
            left = run.asked_everything()
    return Mutation(tuple(outcomes), len(wanted) == len(found), run.rounds, time.monotonic() - started, left)


class Run:
    """Mutants on a gateway, asked by a suite."""

    def __init__(self, planner: Planner, firewall: Firewall, suite: Suite, say: Say, strict: bool = False) -> None:
        self._planner, self._firewall, self._suite, self._say, self._strict = planner, firewall, suite, say, strict
        self.rounds = 0
        self._caught: dict[str, dict[str, str]] = {}
        self._unmade: dict[str, str] = {}

    def made(self, wanted: Sequence[Mutant]) -> list[Outcome]:
        """All of them, in their order."""
        compared = self._compared(wanted)
        planned = [self._planner.planned(m) for m in wanted if m.name not in self._unmade]
        self._by_probes([p for p in planned if p.probes])
        self._by_areas([p for p in planned if p.areas and not self._caught.get(p.mutant.name)])
        self._unnoticed([p.mutant for p in planned if not p.differs and not self._caught.get(p.mutant.name)])
        expected = {p.mutant.name: bool(p.differs) for p in planned}
        return [
            Outcome(
                m.name, self._caught.get(m.name, {}), m.name in compared, self._unmade.get(m.name, ""),
                expected.get(m.name, False),
            )
            for m in wanted
        ]  # fmt: skip

    def _compared(self, wanted: Sequence[Mutant]) -> set[str]:
        """Loads each alone; those that the comparison sees."""
        if not self._firewall.is_as_loaded():
            raise SabotageError("the kernel's ruleset is not the one that was loaded: `invoke harden` first")
        seen = set()
        for number, mutant in enumerate(wanted, start=1):
            said = self._load([mutant])
            if said:
                self._unmade[mutant.name] = said
            elif not self._firewall.is_as_loaded():
                seen.add(mutant.name)
            self._firewall.restore()
            if number % 50 == 0 or number == len(wanted):
                self._say(f"  compared: {number} of {len(wanted)}")
        if not self._firewall.is_as_loaded():
            raise SabotageError("the declared ruleset did not come back: `invoke harden` loads it")
        return seen

    def _load(self, made: Iterable[Mutant]) -> str:
        now = Ruleset.read(self._firewall.listing())
        return self._firewall.apply(mutant.command(now) for mutant in made)

    def _round(self, made: Sequence[Mutant], what: str, ask: Callable[[], T]) -> T:
        """Loads, asks, and loads the declared ruleset again. Raises `SabotageError` where they can't be loaded."""
        self.rounds += 1
        begun = time.monotonic()
        try:
            if said := self._load(made):
                raise SabotageError(f"{len(made)} mutants together: nft says: {said}")
            found = ask()
        finally:
            self._firewall.restore()
        self._say(f"  round {self.rounds}: {len(made)} mutants, {what}, {time.monotonic() - begun:.1f} s")
        return found

    def _by_probes(self, planned: Sequence[Planned]) -> None:
        rounds = [[p] for p in planned] if self._strict else self._planner.by_probes(planned)
        self._say(f"mutants: {len(planned)} by probes, in {len(rounds)} rounds")
        for made in rounds:
            self._ask_probes(made, {p.mutant.name: p.sample for p in made})
        for each in [p for p in planned if not self._caught.get(p.mutant.name)]:
            if len(each.probes) > len(each.sample) or not self._strict:
                self._ask_probes([each], {each.mutant.name: spread(each.probes, THOROUGH)})

    def _ask_probes(self, made: Sequence[Planned], asked: Mapping[str, Sequence[int]]) -> None:
        groups = {name: self._planner.keys(numbers) for name, numbers in asked.items()}
        total = sum(map(len, groups.values()))
        failed = self._round([p.mutant for p in made], f"{total} probes", lambda: self._suite.groups(groups))
        self._caught |= {name: checks for name, checks in failed.items() if checks}

    def _by_areas(self, planned: Sequence[Planned]) -> None:
        rounds = [[p] for p in planned] if self._strict else self._planner.by_areas(planned)
        self._say(f"mutants: {len(planned)} by areas, in {len(rounds)} rounds")
        again: list[Planned] = []
        for made in rounds:
            caught = self._ask_areas(made)
            again += [p for p in made if len(made) > 1 and p.mutant.name not in caught]
        for each in again:
            self._ask_areas([each])

    def _ask_areas(self, made: Sequence[Planned]) -> set[str]:
        """No two mutants of a round are told by the same area, so each check says whose it is."""
        areas = sorted({area for p in made for area in p.areas})
        failed = self._round([p.mutant for p in made], ", ".join(areas), lambda: self._suite.areas(areas))
        found = {p.mutant.name: _merged(failed[area] for area in p.areas if area in failed) for p in made}
        self._caught |= {name: checks for name, checks in found.items() if checks}
        return {name for name, checks in found.items() if checks}

    def _unnoticed(self, left: Sequence[Mutant]) -> None:
        rounds = [[m] for m in left] if self._strict else self._planner.unnoticed(left)
        self._say(f"mutants: {len(left)} that nothing is expected to tell, in {len(rounds)} rounds")
        for made in rounds:
            self._ask_everything(made)

    def _ask_everything(self, made: Sequence[Mutant]) -> None:
        """Where something tells some of them, halves of them say which."""
        failed = self._round(made, "everything", self.asked_everything)
        if not failed:
            return
        if len(made) == 1:
            self._caught[made[0].name] = failed
            return
        half = len(made) // 2
        for part in (made[:half], made[half:]):
            self._ask_everything(part)

    def asked_everything(self) -> dict[str, str]:
        """Every probe and every area: the checks that fail."""
        found = self._suite.groups({_EVERYTHING: None})[_EVERYTHING]
        return {**found, **_merged(self._suite.areas(ALL_AREAS).values())}


def _merged(several: Iterable[Mapping[str, str]]) -> dict[str, str]:
    return {name: why for each in several for name, why in each.items()}
