"""Whether the firewall notes whom it refuses: `invoke refused` and the collector show what it has noted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gatehouse.proof import expect
from gatehouse.proof.observation import Observation
from gatehouse.site import INTERNET, MANAGEMENT
from tests.compliance.egress import STRANGER
from tests.compliance.live import Live
from tests.compliance.once import once

HERE, ONWARDS, FORGED = "refused_here", "refused_onwards", "forged"  # nft(8), dynamic sets
SETS = (HERE, ONWARDS, FORGED)
DISCARD = 9  # RFC 863: nobody offers it
_SECONDS = 1.0  # nobody is to answer


@dataclass(frozen=True)
class Refusal:
    """Something that must be refused, and by how much the count of its sender has risen in the set that is for it."""

    what: str
    sent: Observation
    hardware: str
    risen: int


@once
def refusals(live: Live) -> dict[str, list[Refusal]]:
    """From each segment but the internet: to the gateway, to where it may not reach, and with a forged sender."""
    asked: dict[str, list[tuple[str, dict[str, Any]]]] = {
        segment: list(_refused(live, segment)) for segment in live.places if segment != INTERNET
    }
    link = {"kind": "run", "argv": ["ip", "-j", "link", "show", expect.INTERFACE]}
    own = {
        s: json.loads(str(a.result["output"]))[0]["address"] for s, (a,) in live.ask({s: [link] for s in asked}).items()
    }
    before = _noted(live)
    sent = live.ask({segment: [probe for _, probe in probes] for segment, probes in asked.items()})
    after = _noted(live)
    return {
        segment: [
            Refusal(name, seen, own[segment], after.get((name, own[segment]), 0) - before.get((name, own[segment]), 0))
            for (name, _), seen in zip(probes, sent[segment], strict=True)
        ]
        for segment, probes in asked.items()
    }


def _refused(live: Live, segment: str) -> Iterator[tuple[str, dict[str, Any]]]:
    here = live.place(segment).gateway[0]
    if not live.policy.admits(segment, DISCARD, "tcp", segment):
        yield HERE, {"kind": "tcp", "address": here, "port": DISCARD, "timeout": _SECONDS}
    shut = [s for s in live.places if s not in (segment, INTERNET) and not live.policy.forwards(segment, s)]
    for towards in sorted(shut, key=lambda s: s != MANAGEMENT)[:1]:
        near = [a for a in live.place(towards).addresses if live.place(segment).family(a)]
        yield from ((ONWARDS, {"kind": "tcp", "address": a, "port": DISCARD, "timeout": _SECONDS}) for a in near[:1])
    yield (
        FORGED,
        {"kind": "spoof", "address": here, "port": DISCARD, "source": STRANGER[6 if ":" in here else 4], "say": "-"},
    )


def _noted(live: Live) -> dict[tuple[str, str], int]:
    """The packets that were counted, by set and hardware address."""
    listings = [{"kind": "run", "argv": ["nft", "-j", "list", "set", "inet", "gatehouse", name]} for name in SETS]
    found: dict[tuple[str, str], int] = {}
    for name, seen in zip(SETS, live.ask({expect.GATEWAY: listings})[expect.GATEWAY], strict=True):
        if seen.result.get("status") == 0:
            listed = json.loads(str(seen.result["output"]))["nftables"]
            for element in (e["elem"] for entry in listed for e in entry.get("set", {}).get("elem", ())):
                address, _ = element["val"]["concat"]
                found[name, address] = element.get("counter", {}).get("packets", 0)
    return found
