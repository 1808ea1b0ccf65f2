"""The port audit of a site: from a position in each segment of each gateway, and from where the operator is."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from typing import Any

from deploy import positions
from deploy.inventory import connection
from gatehouse.proof import audit, expect, scans
from gatehouse.proof.channel import Agent
from gatehouse.proof.expect import GATEWAY, Place
from gatehouse.proof.observation import Observation
from gatehouse.proof.probes.scan import nmap, speaks
from gatehouse.proof.sockets import LISTENING, Socket, lasting, sockets
from gatehouse.site import INTERNET, Policy, Site, derive

OPERATOR = "operator"
PATIENCE = 900  # seconds for all scans of a gateway
_CONNECT_SECONDS = 1.5
_AT_ONCE = 3000  # connections, if a process may have as many files open


def run(site: Site) -> tuple[list[audit.Finding], list[audit.Port]]:
    """What differs from what is declared, and what is open as declared. Raises `ProbeError`."""
    findings: list[audit.Finding] = []
    found: list[audit.Port] = []
    for gateway in site.gateways:
        policy = derive(site, gateway)
        with positions.agent(site, gateway, positions.segments(site, gateway)) as agent:
            places = _places(agent)
            lost = [s for s, at in agent.positions.items() if "error" in at]
            findings += [
                audit.Finding(gateway, s, "", "all", audit.BLIND, str(agent.positions[s]["error"])) for s in lost
            ]
            there = _listening(agent)
            with ThreadPoolExecutor(1) as pool:
                here = pool.submit(_from_here, site, gateway)
                seen = _scanned(agent, policy, places, expect.labels(site, gateway))
                mine, segment = here.result()
            seen += mine
            segment_of = {**{s: s for s in places}, OPERATOR: segment}
            more = audit.ports(site, policy, gateway, seen, _spoken(agent, seen), there, segment_of)
        findings += more[0]
        found += more[1]
    return findings, found


def _places(agent: Agent) -> dict[str, Place]:
    return {
        segment: Place(segment, tuple(at["addresses"]), tuple(a.partition("/")[0] for a in at["gateway"]))
        for segment, at in agent.positions.items()
        if "error" not in at
    }


def _listening(agent: Agent) -> list[Socket]:
    """Looked at twice: a question to a resolver has a socket for a moment."""
    asked = {GATEWAY: [{"kind": "run", "argv": list(LISTENING)}]}
    return lasting(lambda: sockets(str(agent.ask(asked)[GATEWAY][0].get("output", ""))))


def _scanned(agent: Agent, policy: Policy, places: Mapping[str, Place], labels: list[str]) -> list[Observation]:
    work = scans.work(policy, places, labels)
    answers = agent.ask(work, PATIENCE)
    return [
        Observation(position, probe, result)
        for position, probes in work.items()
        for probe, result in zip(probes, answers[position], strict=True)
    ]


def _spoken(agent: Agent, seen: list[Observation]) -> dict[tuple[str, str, str], dict[str, Any]]:
    """What answers at each open TCP port, asked from where it was found open."""
    wanted: dict[tuple[str, str], set[int]] = {}
    for each in seen:
        ports = {expect.split(label)[0] for label in each.result.get("open", ()) if label.endswith("/tcp")}
        if ports:
            wanted.setdefault((each.position, str(each.probe["address"])), set()).update(ports)
    work: dict[str, list[dict[str, Any]]] = {}
    for (position, address), ports in wanted.items():
        work.setdefault(position, []).append({"kind": "speaks", "address": address, "ports": sorted(ports)})
    mine = work.pop(OPERATOR, [])
    with ThreadPoolExecutor(1) as pool:
        near = pool.submit(lambda: [speaks(probe) for probe in mine])
        answers: dict[str, list[dict[str, Any]]] = agent.ask(work, PATIENCE) if work else {}
    answers[OPERATOR] = near.result()
    work[OPERATOR] = mine
    return {
        (position, probe["address"], label): said
        for position, probes in work.items()
        for probe, result in zip(probes, answers[position], strict=True)
        for label, said in result.get("answers", {}).items()
    }


def _from_here(site: Site, gateway: str) -> tuple[list[Observation], str]:
    """All TCP ports at the address that the operator's SSH goes to, by connections; and the segment that this is."""
    given = connection(site, gateway)
    try:
        address = socket.getaddrinfo(given["ssh_hostname"], given["ssh_port"], type=socket.SOCK_STREAM)[0][4][0]
        with socket.create_connection((address, given["ssh_port"]), 10) as wire:
            own = ip_address(wire.getsockname()[0])
    except OSError as error:
        probe = {"kind": "tcp", "transport": "tcp", "address": given["ssh_hostname"]}
        return [Observation(OPERATOR, probe, {"outcome": "incapable", "reason": str(error)})], INTERNET
    networks = site.gateways[gateway].networks
    near = (s for s, n in networks.items() if any(own in prefix for prefix in n.prefixes))
    segment = next(near, INTERNET)
    expected = sorted(expect.admitted(derive(site, gateway), segment, "tcp"))
    probe = {"kind": "nmap", "transport": "tcp", "address": str(address), "ports": "all", "expected": expected}
    if shutil.which("nmap") and os.geteuid() == 0:
        result = nmap({**probe, "rate": scans.RATE})
    else:
        result = {"outcome": "scanned", "open": asyncio.run(_connected(str(address), expected)), "closed": []}
    return [Observation(OPERATOR, probe, result)], segment


async def _connected(address: str, expected: list[str]) -> list[str]:
    """The TCP ports of an address that take a connection: it needs neither nmap nor root.

    What is expected and was not seen is asked once more, with patience: at that pace a packet may be lost.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, _AT_ONCE + 200)), hard))
    free = asyncio.Semaphore(min(_AT_ONCE, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 200))

    async def one(port: int, patience: float) -> str:
        async with free:
            with contextlib.suppress(OSError, TimeoutError):
                _, writer = await asyncio.wait_for(asyncio.open_connection(address, port), patience)
                writer.close()
                return f"{port}/tcp"
        return ""

    found = {label for label in await asyncio.gather(*(one(p, _CONNECT_SECONDS) for p in range(1, 65536))) if label}
    missing = [expect.split(label)[0] for label in expected if label not in found]
    again = await asyncio.gather(*(one(port, 5 * _CONNECT_SECONDS) for port in missing))
    return sorted({*found, *filter(None, again)}, key=expect.split)
