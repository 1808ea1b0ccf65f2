"""The lab's separate hosts as positions: whatever they see must agree with what the probes in the bridges see."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import lab
from gatehouse.proof.channel import START, ProbeError, asking, opening
from gatehouse.proof.expect import GATEWAY, Place
from gatehouse.proof.observation import Observation
from gatehouse.site import INTERNET, Site
from lab.field import PORT

TALKS = [f"{PORT}/tcp", f"{PORT}/udp"]
# These depend on the position itself (its interface, or what is listening there), are good once, or are measured.
OWN = frozenset({"dhcp", "ping", "spoof", "listen", "heard", "datagrams"})


def position(segment: str) -> str:
    """The name of the position that the lab's host in a segment is."""
    return f"host in {segment}"


class Field:
    """The hosts around one gateway of the lab."""

    def __init__(self, site: Site, gateway: str) -> None:
        self._name = lab.name_of(site)
        self._topology = lab.from_site(site, self._name)
        self.hosts = {host.segment: host for host in self._topology.hosts if host.gateway == gateway}
        self.hosts[INTERNET] = self._topology.internet

    def targets(self, labels: Iterable[str]) -> list[tuple[str, str, str]]:
        """What answers around the gateway: each host on the echo port, and the internet's services on every port."""
        inside = [(segment, host) for segment, host in self.hosts.items() if segment != INTERNET]
        found = [(segment, label, str(a.ip)) for segment, host in inside for a in host.addresses for label in TALKS]
        tcp = [label for label in labels if label.endswith("/tcp")]
        return found + [(INTERNET, label, str(service.ip)) for service in self._topology.services for label in tcp]

    def ask(
        self, work: Mapping[str, list[dict[str, Any]]], places: Mapping[str, Place]
    ) -> dict[str, list[Observation]]:
        """The probes of each segment's position, from its host; the internet's host asks for the uplink only."""
        chosen = {}
        for segment in self.hosts:
            near = set(places[segment].gateway) if segment in places else set()
            chosen[segment] = [
                probe
                for probe in work.get(segment, [])
                if probe["kind"] not in OWN and (segment != INTERNET or probe.get("address") in near)
            ]
        with ThreadPoolExecutor(len(self.hosts)) as pool:
            return dict(pool.map(self._ask_one, chosen, chosen.values()))

    def probes(self, segment: str, probes: list[dict[str, Any]]) -> list[Observation]:
        """Probes of the host in a segment alone, whatever they are."""
        return self._ask_one(segment, probes)[1]

    def _ask_one(self, segment: str, probes: list[dict[str, Any]]) -> tuple[str, list[Observation]]:
        host = self.hosts[segment].name
        said = [
            {**probe, "say": probe["say"].replace(segment, position(segment), 1)} if "say" in probe else probe
            for probe in probes
        ]
        asked = opening({}) + asking({GATEWAY: said})
        done = lab.run(self._name, host, ["python3", "-I", "-c", START], stdin=asked, timeout=300)
        lines = done.stdout.splitlines()
        if done.returncode != 0 or len(lines) != 2:
            raise ProbeError(f"lab host {host}: no answer of its probes: {done.stderr.strip().splitlines()[-1:]}")
        results = json.loads(lines[1])["results"][GATEWAY]
        return position(segment), [Observation(position(segment), p, r) for p, r in zip(said, results, strict=True)]
