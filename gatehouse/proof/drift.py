"""Drift: what of a gateway is no longer as the site declares it; for people and for programs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gatehouse.columns import aligned

TABLE = "inet gatehouse"


@dataclass(frozen=True)
class Difference:
    """What differs: its kind (file, unit, package, account, kernel, firewall, …), its name, and how."""

    kind: str
    name: str
    how: str
    operation: str = ""
    """What of a deploy would mend it; empty where none does."""


@dataclass(frozen=True)
class Looked:
    """One gateway: what differs there, how often it was asked, and how long that took from the first connection on."""

    gateway: str
    differences: tuple[Difference, ...]
    round_trips: int
    seconds: float


def mend(site: str, difference: Difference) -> str:
    """What brings a gateway back, or the declaration in line with it."""
    if difference.operation:
        return f"./kit harden --site {site}"
    if difference.kind == "account":
        return f"on the gateway: userdel -f -- {difference.name}, and find out who made it (docs/playbooks.md)"
    return f"find out who did it (docs/playbooks.md); then ./kit harden --site {site}"


def document(site: str, looked: Sequence[Looked]) -> dict[str, Any]:
    """For programs."""
    return {
        "site": site,
        "drift": any(each.differences for each in looked),
        "gateways": {
            each.gateway: {
                "round_trips": each.round_trips,
                "seconds": round(each.seconds, 3),
                "differences": [{**asdict(d), "mend": mend(site, d)} for d in each.differences],
            }
            for each in looked
        },
    }


def table(site: str, looked: Sequence[Looked]) -> list[str]:
    """For people: a line a difference, then what mends them."""
    found = [(each.gateway, d) for each in looked for d in each.differences]
    if not found:
        return [f"{site}: as declared ({', '.join(each.gateway for each in looked)})"]
    rows = [["gateway", "what", "name", "difference"]]
    lines = aligned(rows + [[gateway, d.kind, d.name, d.how] for gateway, d in found])
    mends = dict.fromkeys(mend(site, d) for _, d in found)
    count = "1 difference" if len(found) == 1 else f"{len(found)} differences"
    return [*lines, "", f"{site}: {count}. What mends this:", *(f"  {each}" for each in mends)]


def rules(listing: Iterable[str]) -> list[str]:
    """The lines of `nft list table`, each with the chain or set that it is in: `chain input: tcp dport 22 accept`."""
    found, place = [], ""
    for line in listing:
        text = line.strip()
        if line.startswith("\t\t") and text not in ("", "}"):
            found.append(f"{place}: {text}")
        elif text.endswith("{"):
            place = text.removesuffix("{").strip()
            if line.startswith("\t"):
                found.append(place)
    return found


def rule_differences(declared: Iterable[str], running: Iterable[str]) -> Iterator[tuple[str, str]]:
    """`(place, what)` of each rule, chain and set that only one of two listings has, and of rules out of order.

    Both are from the same nft, so that they read alike where they say the same.
    """
    wanted, there = rules(declared), rules(running)
    missing, more = _without(wanted, there), _without(there, wanted)
    for how, lines in (("declared, not running", missing), ("running, not declared", more)):
        for line in lines:
            place, _, rule = line.partition(": ")
            yield place, f"{how}: {rule}" if rule else how
    if not missing and not more and wanted != there:
        moved = next(a for a, b in zip(wanted, there, strict=True) if a != b)
        place, _, rule = moved.partition(": ")
        yield place, f"not in the declared order: {rule}"


def _without(lines: Sequence[str], others: Sequence[str]) -> list[str]:
    """The lines that others have less often."""
    left = list(others)
    found = []
    for line in lines:
        if line in left:
            left.remove(line)
        else:
            found.append(line)
    return found


def superusers(passwd: Iterable[str]) -> list[str]:
    """Who of an /etc/passwd is root by another name: passwd(5), user number 0."""
    rows = [line.split(":") for line in passwd]
    return [row[0] for row in rows if len(row) == 7 and row[2].strip("0") == "" and row[0] != "root"]


def gathered(heard: Iterable[tuple[str, str, str]], operation: str) -> list[Difference]:
    """What an operation has said; where it said nothing and has something to do, that."""
    return [Difference(*each, operation) for each in dict.fromkeys(heard)] or [
        Difference("step", operation, "has something to do", operation)
    ]


def once(found: Iterable[Difference]) -> tuple[Difference, ...]:
    """Each difference once, whichever operation would mend it: several may ask about one file or package."""
    kept: dict[tuple[str, str, str], Difference] = {}
    for each in found:
        kept.setdefault((each.kind, each.name, each.how), each)
    return tuple(kept.values())


def settled(found: Sequence[Difference], named: Mapping[str, Sequence[Difference]]) -> tuple[Difference, ...]:
    """With the rules named one by one, the firewall's own word that something differs adds nothing."""
    rules = named.get("rules", ())
    kept = [d for d in found if not (rules and (d.kind, d.name) == ("firewall", TABLE))]
    return once([*kept, *(each for part in named.values() for each in part)])
