"""Which of the suite's questions can tell which mutants, and which mutants can be made at the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lab.sabotage.mutants import Mutant
from lab.sabotage.packets import Question, Surroundings, Way, meets, passes, question
from lab.sabotage.rules import Rule, Ruleset

SAMPLE = 12  # probes that a mutant is asked by at first
THOROUGH = 200  # by which it is asked alone, where these did not see it
AT_ONCE = 24  # mutants
ACCOUNTS, DATABASE, FLOODS, FORGED = "accounts", "database", "floods", "forged"
REFUSALS, ROUTERS = "refusals", "routers"


@dataclass(frozen=True)
class Planned:
    """A mutant, and what is expected to tell it: `differs` has the numbers of all questions that go another way.

    `probes` are those of them that can be asked by themselves, `areas` what else has to be asked; `ways` how each goes.
    """

    mutant: Mutant
    differs: frozenset[int]
    probes: tuple[int, ...]
    areas: frozenset[str]
    ways: Mapping[int, Way] = field(repr=False)

    @property
    def sample(self) -> tuple[int, ...]:
        """A few of the probes, from all of them."""
        return spread(self.probes, SAMPLE)


class Planner:
    """A ruleset, and the questions that the suite asks of it."""

    def __init__(self, ruleset: Ruleset, first: Mapping[str, Any]) -> None:
        """`first` is what a warm session says at first."""
        around = Surroundings(first["bridges"], first["addresses"], first["prefixes"], first["uplink"])
        found: dict[tuple[str, str, str], Question] = {}
        for area, position, probe in first["questions"]:
            if position in first["places"]:
                areas = frozenset([area]) if area else frozenset()
                made = question(around, position, first["places"][position], probe, areas)
                if made is not None:
                    found[area, position, f"{made.identity} {probe.get('source', '')}"] = made
        self.ruleset = ruleset
        self.questions = list(found.values())
        self.base = [passes(ruleset, each) for each in self.questions]
        self._met: dict[tuple[str, int], list[tuple[bool, ...]]] = {}

    def planned(self, mutant: Mutant) -> Planned:
        """What is expected of a mutant."""
        mutated = mutant.mutated(self.ruleset)
        numbers = range(len(self.questions)) if mutant.rule is None else self._affected(mutant.rule, mutated)
        ways = {n: way for n in numbers if (way := passes(mutated, self.questions[n])) != self.base[n]}
        probes = tuple(n for n in sorted(ways) if not self.questions[n].areas)
        # An attempt at the tunnel takes longer than the others: only where there is nothing else.
        quick = tuple(n for n in probes if not self.questions[n].identity.startswith("wireguard."))
        areas = frozenset(area for n in ways for area in self.questions[n].areas)
        return Planned(mutant, frozenset(ways), quick or probes, areas | by_hand(mutant, self.ruleset), ways)

    def _affected(self, rule: Rule, mutated: Ruleset) -> list[int]:
        """The questions with a packet that meets a rule either as it was or as it is now, and not both."""
        new = mutated.chains[rule.chain][rule.place]
        if rule.key not in self._met:
            self._met[rule.key] = [self._meets(rule, each) for each in self.questions]
        before = self._met[rule.key]
        same_end = new.expr[-1:] == rule.expr[-1:]
        return [
            number
            for number, each in enumerate(self.questions)
            if (now := self._meets(new, each)) != before[number] or (any(now) and not same_end)
        ]

    def _meets(self, rule: Rule, each: Question) -> tuple[bool, ...]:
        return tuple(packet is not None and meets(self.ruleset, rule, packet) for packet in (each.there, each.back))

    def keys(self, numbers: Iterable[int]) -> list[tuple[str, str]]:
        """The probes with these numbers, as a warm session knows them."""
        return [(self.questions[n].position, self.questions[n].identity) for n in numbers]

    def together(self, mutants: Iterable[Mutant]) -> Ruleset:
        """The ruleset with several of them."""
        ruleset = self.ruleset
        for mutant in mutants:
            ruleset = mutant.mutated(ruleset)
        return ruleset

    # rounds

    def by_probes(self, planned: Sequence[Planned]) -> list[list[Planned]]:
        """Rounds in which no mutant changes the way of what another is asked by; those that change most come first."""

        def fits(made: Sequence[Planned], each: Planned) -> bool:
            # Without neighbour discovery others are not found after a while: whoever may touch that is alone.
            if any(ROUTERS in p.areas for p in (*made, each)):
                return False
            return all(
                each.differs.isdisjoint(other.sample) and other.differs.isdisjoint(each.sample) for other in made
            ) and self._as_alone([*made, each], {p.mutant.name: p.sample for p in (*made, each)})

        return _filled(sorted(planned, key=lambda p: -len(p.differs)), fits)

    def by_areas(self, planned: Sequence[Planned]) -> list[list[Planned]]:
        """Rounds in which no two mutants are asked by the same areas, and none changes what another's ask."""
        of_area: dict[str, list[int]] = {}
        for number, each in enumerate(self.questions):
            for area in each.areas:
                of_area.setdefault(area, []).append(number)

        def fits(made: Sequence[Planned], each: Planned) -> bool:
            if any(not each.areas.isdisjoint(other.areas) for other in made):
                return False
            whole = (*made, each)
            return self._as_alone(
                whole, {p.mutant.name: [n for a in p.areas for n in of_area.get(a, ())] for p in whole}
            )

        return _filled(sorted(planned, key=lambda p: -len(p.areas)), fits)

    def unnoticed(self, mutants: Sequence[Mutant]) -> list[list[Mutant]]:
        """Rounds of mutants that nothing is expected to tell, not even together."""
        rounds: list[list[Mutant]] = []
        by_touch: dict[str, list[Mutant]] = {}
        for mutant in mutants:
            by_touch.setdefault(mutant.touches, []).append(mutant)
        for turn in range(max(map(len, by_touch.values()), default=0)):
            rounds += self._halved([several[turn] for several in by_touch.values() if len(several) > turn])
        return rounds

    def _halved(self, mutants: Sequence[Mutant]) -> list[list[Mutant]]:
        if len(mutants) <= 1 or self._is_as_before(mutants):
            return [list(mutants)]
        return self._halved(mutants[::2]) + self._halved(mutants[1::2])

    def _is_as_before(self, mutants: Sequence[Mutant]) -> bool:
        together = self.together(mutants)
        return all(passes(together, each) == self.base[n] for n, each in enumerate(self.questions))

    def _as_alone(self, made: Sequence[Planned], asked: Mapping[str, Iterable[int]]) -> bool:
        """Whether each is told by its own questions as if it were alone."""
        if len({p.mutant.touches for p in made}) < len(made):
            return False
        together = self.together(p.mutant for p in made)
        return all(
            passes(together, self.questions[n]) == p.ways.get(n, self.base[n])
            for p in made
            for n in asked[p.mutant.name]
        )


def by_hand(mutant: Mutant, ruleset: Ruleset) -> frozenset[str]:
    """What else may tell a mutant, beside the questions whose ways are worked out."""
    found = set()
    rule = mutant.rule
    if rule is not None:
        if "limit rate over" in rule.label:
            found.add(FLOODS)
        if any(word in rule.label for word in ("icmp type", "icmpv6 type", "ipv6-icmp")):
            found.add(ROUTERS)
        if ruleset.base.get(rule.chain, {}).get("hook") == "output":
            found.add(ACCOUNTS)
        if "update @" in rule.label and "limit rate over" not in rule.label:
            found.add(FLOODS if "@over_limit " in rule.label else REFUSALS)
        if rule.by == {"lo"}:
            found.add(DATABASE)
    concerned = [rule] if rule else [r for r in ruleset.rules if f"@{mutant.touches.removeprefix('set ')} " in r.label]
    if any(r.chain in ruleset.at("prerouting") for r in concerned):
        found.add(FORGED)
    return frozenset(found)


def spread(numbers: Sequence[int], most: int) -> tuple[int, ...]:
    """At most so many of them, from the first to the last."""
    if len(numbers) <= most:
        return tuple(numbers)
    return tuple(numbers[round(i * (len(numbers) - 1) / (most - 1))] for i in range(most))


def _filled(planned: Iterable[Planned], fits: Callable[[Sequence[Planned], Planned], bool]) -> list[list[Planned]]:
    rounds: list[list[Planned]] = []
    for each in planned:
        for made in rounds:
            if len(made) < AT_ONCE and fits(made, each):
                made.append(each)
                break
        else:
            rounds.append([each])
    return rounds
