"""Which sabotages share a round: those that the suite can tell apart, so that one run of it judges several."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from lab.sabotage.model import Sabotage, matching


class Reach(NamedTuple):
    """The checks that a sabotage must fell, and those that it may."""

    must: set[str]
    may: set[str]


def packed(sabotages: Sequence[Sabotage], identities: Iterable[str]) -> list[list[Sabotage]]:
    """Few rounds, filled evenly, each in the given order; the same every time.

    Those that get on with the fewest others come first (Welsh and Powell's colouring), each into the emptiest round.
    """
    known = set(identities)
    reach = {s.name: Reach(matching(s.expected, known), matching(s.tolerated, known)) for s in sabotages}
    rivals = {s.name: {o.name for o in sabotages if o is not s and not apart(s, o, reach)} for s in sabotages}
    rounds: list[list[Sabotage]] = []
    for sabotage in sorted(sabotages, key=lambda s: -len(rivals[s.name])):
        fitting = [made for made in rounds if not any(other.name in rivals[sabotage.name] for other in made)]
        if fitting:
            min(fitting, key=len).append(sabotage)
        else:
            rounds.append([sabotage])
    order = {sabotage.name: number for number, sabotage in enumerate(sabotages)}
    return [sorted(made, key=lambda s: order[s.name]) for made in rounds]


def one_by_one(sabotages: Sequence[Sabotage]) -> list[list[Sabotage]]:
    """A round for each."""
    return [[sabotage] for sabotage in sabotages]


def apart(one: Sabotage, other: Sabotage, reach: Mapping[str, Reach]) -> bool:
    """Whether what must catch the one can't fall because of the other; both may have the same consequences."""
    if matching(one.apart_from, [other.name]) or matching(other.apart_from, [one.name]):
        return False
    mine, theirs = reach[one.name], reach[other.name]
    return mine.must.isdisjoint(theirs.must | theirs.may) and theirs.must.isdisjoint(mine.may)
