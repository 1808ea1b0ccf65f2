"""What a device in quarantine still reaches, beside one in the same segment that is not: asked of both positions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gatehouse.proof import expect, plays
from gatehouse.proof.channel import ProbeError
from gatehouse.proof.observation import Observation
from tests.compliance.line import CUT_OFF
from tests.compliance.live import Live
from tests.compliance.once import once

# nft(8) keeps them in the kernel; by the status of the devices in them.
SETS = {
    "quarantined": ("quarantined_hardware", "quarantined_4"),
    "revoked": ("revoked_hardware", "revoked_4"),
}


@dataclass(frozen=True)
class Pair:
    """The same question to both: from, or towards, a free device and one in quarantine."""

    free: Observation
    cut_off: Observation


@dataclass(frozen=True)
class Isolation:
    """`pairs` are connections through the gateway, `heard` what arrived there of the device in quarantine all the same.

    `alive` is the connection to the broker's port, which it must still reach.
    """

    pairs: tuple[Pair, ...]
    heard: tuple[str, ...]
    alive: Observation


@once
def isolation(live: Live) -> Isolation:
    """Asks: outwards all that a free device was asked, and in from every segment that may connect to devices."""
    _ = live.reach
    exposed = live.exposed
    if exposed is None:
        raise ProbeError(f"{live.name}: no broker for devices, so no position in quarantine")
    place, port = live.cut_off, live.mqtts.listener.port
    # to the others of TCP what listens there anyway, of UDP the datagrams that need no listener to be heard
    work = expect.crossing_work(live.places, [exposed], [f"{port}/tcp", live.datagrams])
    out = [seen.probe for seen in live.outside_of(exposed)]
    out += [p for p in work[exposed] if place.family(p["address"])]
    asked: list[dict[str, Any]] = [_said(probe) for probe in out]
    alive = {"kind": "tcp", "address": place.gateway[0], "port": port}
    live.ask({CUT_OFF: [{"kind": "listen", "ports": live.labels}]})
    inwards = {
        segment: [
            expect.crossing(segment, label, address)
            for address in place.addresses
            for label in (f"{port}/tcp", live.datagrams)
            if other.family(address)
        ]
        for segment, other in live.places.items()
        if segment != exposed and live.policy.forwards(segment, exposed)
    }
    answers = live.ask({CUT_OFF: [*asked, alive], **inwards})
    heard = live.ask({segment: [{"kind": "heard"}] for segment in live.places})
    *outwards, reached = answers.pop(CUT_OFF)
    pairs = [Pair(live.seen(exposed, p["id"]), seen) for p, seen in zip(out, outwards, strict=True)]
    pairs += [Pair(_twin(live, exposed, seen), seen) for several in answers.values() for seen in several]
    arrived = [line for (answer,) in heard.values() for line in answer.result["heard"] if line.startswith(CUT_OFF)]
    return Isolation(tuple(pairs), tuple(arrived), reached)


def _said(probe: Mapping[str, Any]) -> dict[str, Any]:
    """The probe as the one in quarantine makes it: the far side knows whom it heard."""
    said = {"say": f"{CUT_OFF} {probe['say'].partition(' ')[2]}"} if "say" in probe else {}
    return {**probe, **said, "id": f"{CUT_OFF}:{probe['id']}"}


def _twin(live: Live, exposed: str, seen: Observation) -> Observation:
    """What the same position was told by a free device in the segment."""
    label = seen.probe["id"].removeprefix("across:").partition("@")[0]
    family = ":" in seen.probe["address"]
    address = next(a for a in live.place(exposed).addresses if (":" in a) == family)
    return live.seen(seen.position, expect.across(label, address))


@once
def quarantined_play(live: Live) -> Observation:
    """What a device in quarantine can do at the broker, by a session from the position of one."""
    server = live.broker_server(live.cut_off.gateway[0])
    return live.ask({CUT_OFF: [plays.quarantine(server, live.credentials)]})[CUT_OFF][0]
