"""Which sabotages share a round: those that the suite can tell apart, so that one run of it judges several."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from typing import NamedTuple

from lab.sabotage.model import Sabotage, matching


class Reach(NamedTuple):
    """The checks that a sabotage must fell, and those that it may."""

    must: set[str]
    may: set[str]


def packed(sabotages: Sequence[Sabotage], identities: Iterable[str]) -> list[list[Sabotage]]:
    """As few rounds as are found, each in the given order; the same every time.

    Those that get on with the fewest others come first (Welsh and Powell's colouring), each into the round that it likes
    best: what one more sabotage, or one more that keeps apart, changes is where few of the others are.
    """
    known = set(identities)
    reach = {s.name: Reach(matching(s.expected, known), matching(s.tolerated, known)) for s in sabotages}
    rivals = {s.name: {o.name for o in sabotages if o is not s and not apart(s, o, reach)} for s in sabotages}
    order = {sabotage.name: number for number, sabotage in enumerate(sabotages)}
    first = sorted(sabotages, key=lambda s: (-len(rivals[s.name]), s.name))
    made = next(found for rounds in count() if (found := _within(rounds, first, rivals)) is not None)
    return [sorted(each, key=lambda s: order[s.name]) for each in made if each]


def _within(rounds: int, sabotages: Sequence[Sabotage], rivals: Mapping[str, set[str]]) -> list[list[Sabotage]] | None:
    """The sabotages in so many rounds; None where one finds no place."""
    made: list[list[Sabotage]] = [[] for _ in range(rounds)]
    for sabotage in sabotages:
        fitting = [n for n, each in enumerate(made) if not any(other.name in rivals[sabotage.name] for other in each)]
        if not fitting:
            return None
        made[max(fitting, key=lambda n: zlib.crc32(f"{sabotage.name} {n}".encode()))].append(sabotage)
    return made


def one_by_one(sabotages: Sequence[Sabotage]) -> list[list[Sabotage]]:
    """A round for each."""
    return [[sabotage] for sabotage in sabotages]


def apart(one: Sabotage, other: Sabotage, reach: Mapping[str, Reach]) -> bool:
    """Whether what must catch the one can't fall because of the other; both may have the same consequences."""
    if matching(one.apart_from, [other.name]) or matching(other.apart_from, [one.name]):
        return False
    mine, theirs = reach[one.name], reach[other.name]
    return mine.must.isdisjoint(theirs.must | theirs.may) and theirs.must.isdisjoint(mine.may)
