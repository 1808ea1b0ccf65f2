"""The tunnel for remote management, asked from the uplink by a peer of the suite's own, and by who is none."""

from __future__ import annotations

import base64
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gatehouse.identity import wireguard as keys
from gatehouse.proof import expect
from gatehouse.proof.channel import ProbeError
from gatehouse.proof.observation import Observation
from gatehouse.proof.wireguard import INITIATION_BYTES, NO_SHARED_KEY, Handshake, Session, said, syn
from gatehouse.site import INTERNET, MANAGEMENT
from gatehouse.site.remote import INTERFACE, PROBE, SERVICE
from tests.compliance.once import once

if TYPE_CHECKING:
    from tests.compliance.live import Live

# RFC 7748 §6.1: a private key that everybody knows.
PUBLISHED = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo="
TRIES = 3  # an attempt, and two more where an answer was lost
PAUSE = 0.7  # seconds between them
# From several places: tries, and seconds between any two. An attempt that comes after a later one is not heard, and the
# gateway takes 50 a second of a peer (§5.4.4, and its own limit). A busy machine is late by hundredths of a second.
OWN_TRIES, OWN_APART = 3, 0.1
OTHER_TRIES, OTHER_APART = 2, 0.05
SLOWEST = 3.0  # times as far apart, where everything takes longer
STRANGERS = ("a new key", "a published key")
NOISE = ("nothing", "a word", "noise", "an attempt at another gateway's key")
Target = tuple[str, str, int]
"""Where, address, port."""


@dataclass
class Seen:
    """What the tunnel did. `answers` are by who asked; `came_back` are those who answered through the tunnel."""

    at: str
    address: str
    answers: dict[str, Observation] = field(default_factory=dict)
    without_shared: str = "no answer"
    with_shared: str = "no answer"
    asked: dict[Target, bool] = field(default_factory=dict)
    """Everything that was asked through the tunnel, and whether it may be reached."""
    came_back: dict[tuple[str, int], str] = field(default_factory=dict)
    peers: dict[str, str] = field(default_factory=dict)


def runs(live: Live) -> bool:
    """Whether this gateway has a tunnel."""
    return any(service.name == SERVICE for service in live.site.services_of(live.name))


def callers(live: Live) -> dict[str, list[dict[str, Any]]]:
    """From every segment, an attempt of the suite's peer at every address of the gateway's; where there is a tunnel."""
    if not runs(live):
        return {}
    offer = next(o for o in expect.offers(live.site, live.name) if o.service.name == SERVICE)
    server = keys.public_of(keys.gateway_key(live.vault, live.name))
    own, now = keys.peer_key(live.vault, PROBE), time.time_ns()
    ways = [
        (segment, address, address in place.gateway)
        for segment, place in live.places.items()
        for other in live.places.values()
        for address in other.gateway
        if place.family(address)
    ]
    work: dict[str, list[dict[str, Any]]] = {}
    slower, begins = min(max(live.agent.pace, 1.0), SLOWEST), 0.0
    # Those at the segment's own address first, with more time for each.
    for at_own, tries, apart in ((True, OWN_TRIES, OWN_APART * slower), (False, OTHER_TRIES, OTHER_APART * slower)):
        group = [(segment, address) for segment, address, is_own in ways if is_own == at_own]
        pause = len(group) * apart
        for number, (segment, address) in enumerate(group):
            after = begins + number * apart
            stamps = [now + int(1e9 * (after + turn * pause)) for turn in range(tries)]
            made = [Handshake(own, server, stamp).message.hex() for stamp in stamps]
            probe = {"kind": "datagrams", "address": address, "port": offer.listener.port, "payloads": made}
            timing = {"after": after, "pause": pause, "timeout": 1.5}
            work.setdefault(segment, []).append({"id": expect.at_gateway(offer, address), **probe, **timing})
        begins += tries * pause
    return work


def last_sent(work: dict[str, list[dict[str, Any]]]) -> float:
    """Seconds from the first attempt of `callers` to the last; 0 where there is none."""
    probes = [probe for probes in work.values() for probe in probes]
    return max((p["after"] + (len(p["payloads"]) - 1) * p["pause"] for p in probes), default=0.0)


@once
def tunnel(live: Live) -> Seen:
    """Asks at the gateway's address on the uplink, then through the tunnel."""
    live.reach  # noqa: B018  hosts that listen are in the segments now
    remote = live.site.remote
    assert remote is not None, "asked only where there is one"
    place, here = live.place(INTERNET), remote.tunnels[live.name]
    seen = Seen(at=place.gateway[0], address=str(here.address(here.probe)))
    server = keys.public_of(keys.gateway_key(live.vault, live.name))
    own = keys.peer_key(live.vault, PROBE)
    shared = base64.b64decode(keys.shared_key(live.vault, live.name, PROBE))
    _strangers(live, seen, server, own)
    attempts, answer = _attempts(live, seen, server, own, "without the shared key")
    if answer and (session := _session(attempts, answer, NO_SHARED_KEY)) is not None:
        seen.without_shared = _first(live, seen, session)
    attempts, answer = _attempts(live, seen, server, own, "peer")
    session = _session(attempts, answer, shared) if answer else None
    if answer:
        seen.with_shared = "a session" if session else "an answer that its keys don't fit"
    _ask_through(live, seen, session)
    shown = live.run("wg", "show", INTERFACE, "allowed-ips")
    seen.peers = dict(line.split("\t", 1) for line in str(shown.result.get("output", "")).splitlines() if "\t" in line)
    return seen


def _strangers(live: Live, seen: Seen, server: str, own: str) -> None:
    """Those that must get no answer, all at once."""
    another = keys.public_of(keys.new_key())
    messages = {
        "a new key": Handshake(keys.new_key(), server).message,
        "a published key": Handshake(PUBLISHED, server).message,
        "nothing": b"",
        "a word": b"hello\n",
        "noise": b"\1\0\0\0" + secrets.token_bytes(INITIATION_BYTES - 4),
        "an attempt at another gateway's key": Handshake(own, another).message,
    }
    found = live.ask({INTERNET: [_probe(live, seen, who, [message]) for who, message in messages.items()]})[INTERNET]
    seen.answers |= dict(zip(messages, found, strict=True))


def _attempts(live: Live, seen: Seen, server: str, own: str, who: str) -> tuple[list[Handshake], bytes]:
    """Attempts of the suite's peer, and the answer to one of them; empty without one."""
    now = time.time_ns()
    made = [Handshake(own, server, now + number) for number in range(TRIES)]
    (found,) = live.ask({INTERNET: [_probe(live, seen, who, [each.message for each in made])]})[INTERNET]
    seen.answers[who] = found
    answers = [bytes.fromhex(answer) for answer in found.result.get("answers", ())]
    return made, next((a for a in answers if any(each.answered_by(a) for each in made)), b"")


def _session(attempts: list[Handshake], answer: bytes, shared: bytes) -> Session | None:
    return next(each for each in attempts if each.answered_by(answer)).session(answer, shared)


def _probe(live: Live, seen: Seen, who: str, payloads: list[bytes], **more: Any) -> dict[str, Any]:
    port = live.site.listener(SERVICE, "tunnel").port
    sent = [payload.hex() for payload in payloads]
    return {"kind": "datagrams", "address": seen.at, "port": port, "payloads": sent, "pause": PAUSE, **more, "as": who}


def _first(live: Live, seen: Seen, session: Session) -> str:
    """What SSH says to a session that there should be none of."""
    place = live.place(MANAGEMENT)
    packet = session.packed(syn(seen.address, place.gateway[0], live.site.ssh.port, 1024 + secrets.randbelow(8_000)))
    (found,) = live.ask({INTERNET: [_probe(live, seen, "first", [packet])]})[INTERNET]
    return "a session that carries" if found.result.get("answers") else "a session"


def _ask_through(live: Live, seen: Seen, session: Session | None) -> None:
    """Connections to everything, through the tunnel; each asked for twice."""
    seen.asked = dict(targets(live))
    if session is None:
        return
    # The firewall remembers connections: those of an earlier run would be let through as known.
    first = 10_000 + secrets.randbelow(50_000)
    around = [
        session.packed(syn(seen.address, address, port, first + number))
        for _ in range(2)
        for number, (_, address, port) in enumerate(seen.asked)
    ]
    # A pause after each: a burst may be more than a socket takes.
    probe = _probe(live, seen, "through", around, pause=0.005, timeout=2.5, enough=10 * len(around))
    (found,) = live.ask({INTERNET: [probe]})[INTERNET]
    for answer in found.result.get("answers", ()):
        packet = session.unpacked(bytes.fromhex(answer))
        if packet is not None and (told := said(packet)) is not None:
            seen.came_back[told[0], told[1]] = told[2]


def targets(live: Live) -> list[tuple[Target, bool]]:
    """What is asked for through the tunnel, and whether it may be reached: management's hosts, and what it encrypts."""
    ports = sorted(expect.split(label)[0] for label in live.labels if label.endswith("/tcp"))
    allowed = {rule.listener.port for rule in live.policy.remote if rule.listener.transport == "tcp"}
    found: list[tuple[Target, bool]] = []
    for segment, place in live.places.items():
        near = segment == MANAGEMENT
        for own in (a for a in place.gateway if ":" not in a):
            found += [((f"the gateway in {segment}", own, port), near and port in allowed) for port in ports]
        for host in (a for a in place.addresses if ":" not in a):
            found += [((f"a host in {segment}", host, port), near) for port in ports]
    return found


def declared(live: Live) -> dict[str, str]:
    """The peers that the gateway must have, each with its address, by public keys."""
    remote = live.site.remote
    if remote is None:
        raise ProbeError(f"{live.name}: no remote management")
    here = remote.tunnels[live.name]
    found = {
        keys.peer_public(live.vault, name, peer): f"{here.address(peer.number)}/32"
        for name, peer in remote.peers.items()
    }
    return {**found, keys.public_of(keys.peer_key(live.vault, PROBE)): f"{here.address(here.probe)}/32"}
