"""What was silent by accident is asked once more; what is silent for a reason stays so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from gatehouse.proof.expect import GATEWAY, Place, Work, across
from gatehouse.proof.observation import Observation
from tests.compliance.field import position as host_in
from tests.compliance.looks import FEW, Looks

SILENT, ANSWERED = {"outcome": "silent"}, {"outcome": "answered"}


def probe(number: int) -> dict[str, Any]:
    """A probe of the port of that number, from one segment into another."""
    return {"id": across(f"{number}/udp", "10.0.2.9"), "kind": "udp", "address": "10.0.2.9", "port": number}


class Asked(Looks):
    """A gateway of which this is seen: `{(position, port): result}`; whoever is asked again is answered."""

    places = {"iot": Place("iot", ("10.0.1.9",), ("10.0.1.1",))}

    def __init__(self, seen: Mapping[tuple[str, int], dict[str, Any]]) -> None:
        self.again: list[tuple[str, int]] = []
        self._seen = {(p, probe(n)["id"]): Observation(p, probe(n), result) for (p, n), result in seen.items()}

    @property
    def field(self) -> Any:
        """The hosts around it."""
        return self

    def ask(self, work: Any, *around: Any, **_: Any) -> Any:
        """As the agent's, or with the places around as the hosts'."""
        names = {position: host_in(position) if around else position for position in work}
        self.again += [(names[position], each["port"]) for position, probes in work.items() for each in probes]
        found = {names[p]: [Observation(names[p], each, ANSWERED) for each in probes] for p, probes in work.items()}
        self._remember(found)
        return found


def asked_again(
    seen: Mapping[tuple[str, int], dict[str, Any]], awaited: list[tuple[str, int]]
) -> list[tuple[str, int]]:
    """Who is asked what once more, where these are to be answered."""
    live = Asked(seen)
    work: Work = {"iot": [probe(n) for p, n in seen if p == "iot"], GATEWAY: []}
    live._ask_once_more([(position, probe(number)) for position, number in awaited], work)
    return sorted(live.again)


def test_what_should_have_been_answered_is_asked_once_more() -> None:
    seen = {(GATEWAY, 1): SILENT, ("iot", 2): ANSWERED, ("iot", 3): {"outcome": "cut"}, ("iot", 4): SILENT}
    assert asked_again(seen, [(GATEWAY, 1), ("iot", 2), ("iot", 3)]) == [(GATEWAY, 1), ("iot", 3)]


@pytest.mark.parametrize(
    ("own", "theirs", "again"),
    [
        (SILENT, SILENT, []),
        (ANSWERED, ANSWERED, []),
        (SILENT, ANSWERED, [("iot", 1)]),
        (ANSWERED, SILENT, [(host_in("iot"), 1)]),
    ],
)
def test_who_was_not_answered_where_its_neighbour_was_is_asked_once_more(
    own: dict[str, Any], theirs: dict[str, Any], again: list[tuple[str, int]]
) -> None:
    assert asked_again({("iot", 1): own, (host_in("iot"), 1): theirs}, []) == again


def test_what_was_silent_for_a_reason_is_not_asked_once_more() -> None:
    many = {("iot", number): SILENT for number in range(FEW + 1)}
    assert asked_again(many, list(many)) == []
    assert asked_again(dict(list(many.items())[:FEW]), list(many)[:FEW]) == list(many)[:FEW]


def test_what_is_asked_meanwhile_does_not_disturb() -> None:
    live = Asked({("iot", number): ANSWERED for number in (1, 2)} | {(host_in("iot"), n): SILENT for n in (1, 2)})
    pairs = live.pairs("iot", host_in("iot"))
    first, _ = next(pairs)
    live.ask({"guest": [probe(3)]})
    second, _ = next(pairs)
    assert [first.probe["port"], second.probe["port"]] == [1, 2]
