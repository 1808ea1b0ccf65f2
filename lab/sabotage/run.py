"""Breaks the controls of a lab's gateway, one round after another, and has the compliance suite say what it notices.

A round is: break, run the whole suite, take away what no deploy can know of, deploy, and see that nothing is left to
change. What a deploy did not repair in one round shows as an accident in the next, and in the last run of the suite.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from gatehouse.site import Site
from lab.sabotage.bench import Bench, SabotageError, Say
from lab.sabotage.catalogue import SABOTAGES
from lab.sabotage.judge import Outcome
from lab.sabotage.model import Sabotage
from lab.sabotage.report import Report
from lab.sabotage.rounds import one_by_one, packed


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
    if site.lab is not True:
        what = "a lab of virtual machines" if site.lab else "no lab"
        raise SabotageError(f"{site.name}: is {what}: nothing was broken (sabotages are for `--site lab`)")
    wanted = chosen(names)
    passing = Passing()
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
            if passing.may_pass(now, found):
                say("  not clear: once more as it is")
                rounds.insert(0, now)
                continue
            clear, again = settled(now, found)
            for line in dict.fromkeys(problem for outcome in found for problem in outcome.problems()):
                say(f"  {line}")
            if again:
                say(f"  not clear: {sum(map(len, again))} of them again, apart")
            made += [tuple(clear)] if clear else []
            rounds = again + rounds
        after = bench.ending(before)
    return Report(tuple(made), before, after, time.monotonic() - started, (*bench.passing, *passing.seen))


class Passing:
    """Knows what recurs: a round in which something happened that nothing explains is made once more as it is.

    `seen` are the happenings that did not recur, a line each: a program that crashed for a reason of its own, a machine
    that was busy. They are told, and are no false alarms.
    """

    def __init__(self) -> None:
        self.seen: list[str] = []
        self._first: dict[tuple[str, ...], dict[str, str]] = {}

    def may_pass(self, made: Sequence[Sabotage], found: Sequence[Outcome]) -> bool:
        """Whether that round is to be made once more before it is judged; the second time it never is."""
        key = tuple(sabotage.name for sabotage in made)
        happened = {identity: said for outcome in found for identity, said in outcome.accidents.items()}
        happened |= {outcome.sabotage.name: f"not made: {outcome.unmade}" for outcome in found if outcome.unmade}
        if key in self._first:
            self.seen += [f"{what}: {said}" for what, said in self._first.pop(key).items() if what not in happened]
            return False
        if happened:
            self._first[key] = happened
        return bool(happened)


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
