"""What is seen from a gateway's segments, by scans, and on the gateway itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from testinfra.host import Host

from gatehouse.proof import expect, scans
from gatehouse.proof.channel import ProbeError
from gatehouse.proof.expect import Work, split
from gatehouse.proof.observation import Observation
from gatehouse.proof.sockets import CONNECTED, LISTENING, Connection, Socket, connections, lasting, sockets
from gatehouse.site import INTERNET
from tests.compliance import errands
from tests.compliance.field import OWN
from tests.compliance.field import position as host_in
from tests.compliance.line import Line
from tests.compliance.once import once
from tests.compliance.remote import callers

# Seconds to wait for an answer that must come: a busy gateway takes its time.
PATIENT = 8.0
FEW = 24  # probes whose answer may have been lost by accident


def _by_position(probes: Iterable[tuple[str, dict[str, Any]]]) -> Work:
    """What each position is to be asked; nothing twice."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for position, probe in probes:
        found.setdefault(position, {})[probe["id"]] = probe
    return {position: list(named.values()) for position, named in found.items()}


class Looks(Line):
    """One gateway, looked at from every side."""

    # what is seen from the positions

    @once
    def labels(self) -> list[str]:
        """The ports that cross-segment probes use."""
        return expect.labels(self.site, self.name)

    @once
    def reach(self) -> dict[str, list[str]]:
        """Asks everything about who reaches whom; what the far side heard, by segment."""
        listeners = self.ask({segment: [{"kind": "listen", "ports": self.labels}] for segment in self.places})
        for segment, (answer,) in listeners.items():
            if answer.outcome != "listening":
                raise ProbeError(f"{self.name}: no listeners in {segment}: {answer.result.get('error')}")
        work = expect.gateway_work(self.site, self.name, self.places)
        for more in (
            expect.crossing_work(self.places, [*self.places, expect.GATEWAY], self.labels),
            self._outside_work(),
            callers(self),
        ):
            for position, probes in more.items():
                work.setdefault(position, []).extend(probes)
        awaited = list(self._awaited(work))
        for _, probe in awaited:
            probe["timeout"] = PATIENT
        with ThreadPoolExecutor(2) as pool:
            hosts = pool.submit(self.field.ask, work, self.places) if self.field and self.asks_hosts else None
            self.ask(work)
            if hosts is not None:
                self._remember(hosts.result())
        self._ask_once_more(awaited, work)
        self.ask(expect.spoof_work(self.policy, self.places, self.datagrams))
        heard = self.ask({segment: [{"kind": "heard"}] for segment in self.places})
        return {segment: answer.result["heard"] for segment, (answer,) in heard.items()}

    def _awaited(self, work: Work) -> Iterator[tuple[str, dict[str, Any]]]:
        """The probes that the policy lets through to somebody else: who waits longer for them waits for nothing."""
        towards = {address: place.segment for place in self.places.values() for address in place.addresses}
        towards |= {address: segment for segment, _, address in self.outside}
        for position, probes in work.items():
            for probe in probes:
                kind, _, rest = probe["id"].partition(":")
                label, _, address = rest.partition("@")
                if kind != "across" or (":" in address and towards[address] == INTERNET):
                    continue
                if position == expect.GATEWAY or expect.permitted(
                    self.policy, position, towards[address], address, label
                ):
                    yield position, probe

    def _ask_once_more(self, awaited: Sequence[tuple[str, dict[str, Any]]], work: Work) -> None:
        """Asks a few once more that should have been answered, or that somebody else in their segment was answered.

        A datagram may be lost and a host be busy. What shall be shut out gains nothing by that: silence that is asked
        once more can only be broken. Where many are silent it was no accident.
        """
        lost = [(position, probe) for position, probe in awaited if not self._seen[position, probe["id"]].reached]
        unheard: list[tuple[str, dict[str, Any]]] = []
        for segment in self.places:
            probes = {probe["id"]: probe for probe in work[segment] if probe["kind"] not in OWN}
            for own, theirs in self.pairs(segment, host_in(segment)):
                if own.let_in == theirs.let_in or (probe := probes.get(own.probe["id"])) is None:
                    continue
                (lost if theirs.let_in else unheard).append((segment, probe))
        if len(lost) + len(unheard) > FEW:
            return
        if lost:
            self.ask(_by_position(lost))
        if self.field and unheard:
            self._remember(self.field.ask(_by_position(unheard), self.places))

    @property
    def datagrams(self) -> str:
        """The UDP port that forged datagrams go to."""
        return next(label for label in self.labels if label.endswith("/udp"))

    def _outside_work(self) -> dict[str, list[dict[str, Any]]]:
        """Named destinations, and in the lab the hosts around the gateway and other services on its internet."""
        targets = list(self.outside)
        work: dict[str, list[dict[str, Any]]] = {}
        for position in (*self.places, expect.GATEWAY):
            own = self.places.get(position)
            work[position] = [
                expect.outwards(position, label, address)
                for segment, label, address in targets
                if segment != position and (own is None or own.family(address))
            ]
        return work

    @once
    def outside(self) -> list[tuple[str, str, str]]:
        """Real hosts to be reached or not: `(segment, "443/tcp", address)`."""
        found = [
            ("internet", f"{destination.port}/{destination.transport}", str(network.network_address))
            for destination in self.site.destinations.values()
            for network in destination.addresses
            if network.num_addresses == 1
        ]
        return list(dict.fromkeys([*found, *(self.field.targets(self.labels) if self.field else [])]))

    def outside_of(self, position: str) -> list[Observation]:
        """What a position was asked of real hosts."""
        asked = {expect.across(label, address) for segment, label, address in self.outside if segment != position}
        return [
            seen for (where, identity), seen in self._seen.copy().items() if where == position and identity in asked
        ]

    def pairs(self, position: str, other: str) -> Iterator[tuple[Observation, Observation]]:
        """What two positions were both asked."""
        # Other lanes go on asking meanwhile.
        for (where, identity), seen in self._seen.copy().items():
            if where == position and (theirs := self._seen.get((other, identity))) is not None:
                yield seen, theirs

    # scans

    @once
    def sockets(self) -> list[Socket]:
        """What listens on the gateway. Looked at twice: a question to a resolver has a socket for a moment."""
        return lasting(lambda: sockets(self._output(LISTENING)))

    @once
    def connections(self) -> list[Connection]:
        """What the gateway has a connection with. Looked at twice: what only the suite's own questions open is gone."""
        return lasting(lambda: connections(self._output(CONNECTED)))

    @once
    def scans(self) -> dict[tuple[str, str, str], Observation]:
        """Scans from every position at the same time. At the gateway's other addresses, of what listens at all: where
        nothing does, nothing can be open."""
        listening = {split(s.label)[0] for s in self.sockets if s.label.endswith("/tcp")}
        listening |= {split(label)[0] for label in self.labels if label.endswith("/tcp")}
        work = scans.work(self.policy, self.places, self.labels)
        for segment, place in self.places.items():
            others = [a for s, p in self.places.items() if s != segment for a in p.gateway if place.family(a)]
            asked = {"kind": "nmap", "transport": "tcp", "ports": sorted(listening)}
            work[segment] += [{"id": f"scan:listening@{a}", **asked, "address": a} for a in others]
        found = self.ask(work, patience=600)  # each scan twice at most, and a busy gateway takes its time
        return {(s, seen.probe["id"], seen.probe["address"]): seen for s, several in found.items() for seen in several}

    def scan(self, segment: str, what: str, address: str) -> Observation:
        """A scan from a segment: `tcp` (all ports), `udp` (common ones), or `listening` (what listens at all)."""
        self.place(segment)
        return self.scans[segment, f"scan:{what}@{address}", address]

    # what the gateway tells

    @once
    def host(self) -> Host:
        """testinfra's view of the gateway; each of its commands is run anew."""
        return errands.host(self.name, self._run_again)

    def exists(self, path: str) -> bool:
        """Whether there is a file, looked for once in a session. Raises `ProbeError`."""
        seen = self.run("test", "-e", path)
        if seen.result.get("status") not in (0, 1):
            raise ProbeError(f"{self.name}: {path}: {seen}")
        return seen.result["status"] == 0

    def run(self, *argv: str) -> Observation:
        """What a program on the gateway prints, run once in a session."""
        return self.memory.of(argv, lambda: self._run_again(argv))

    def _run_again(self, argv: tuple[str, ...]) -> Observation:
        """The same, run each time."""
        return self.ask({expect.GATEWAY: [{"kind": "run", "argv": list(argv)}]})[expect.GATEWAY][0]

    def _output(self, argv: tuple[str, ...]) -> str:
        return str(self._run_again(argv).result.get("output", ""))

    @once
    def keys(self) -> list[dict[str, str | None]]:
        """Every file with a private key on the gateway."""
        seen = self.ask({expect.GATEWAY: [{"kind": "keys"}]})[expect.GATEWAY][0]
        if seen.outcome != "answered":
            raise ProbeError(f"{self.name}: {seen}")
        found: list[dict[str, str | None]] = seen.result["keys"]
        return found

    @once
    def is_container(self) -> bool:
        """Whether clock and kernel belong to the machine underneath."""
        return self.run("systemd-detect-virt", "--container").result.get("status") == 0
