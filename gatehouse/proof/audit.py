"""A port audit: what is reached from each position, against what the site declares."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from gatehouse.columns import aligned
from gatehouse.proof import expect
from gatehouse.proof.observation import Observation
from gatehouse.proof.sockets import Socket
from gatehouse.site import Listener, Policy, Site

OPEN = "open, not declared"
THROUGH = "let through, and nobody listens"
HIDDEN = "listens behind the firewall, not declared"
CLOSED = "declared, not open"
PLAIN = "plaintext where TLS is declared"
WRONG = "another service than declared"
BLIND = "could not be looked at"
_SPEAKS = {"tls": "tls", "ssh": "ssh"}
_TEMPORARY = (".scope", ".slice")


@dataclass(frozen=True)
class Finding:
    """One difference between what is and what is declared; `close` is the command that ends what is too much."""

    gateway: str
    position: str
    address: str
    port: str
    what: str
    got: str = ""
    program: str = ""
    unit: str = ""
    close: str = ""


@dataclass(frozen=True)
class Port:
    """A port that is open as declared, and what answers there."""

    gateway: str
    position: str
    address: str
    port: str
    declared: str
    speaks: str
    version: str = ""


def ports(
    site: Site,
    policy: Policy,
    gateway: str,
    scans: Iterable[Observation],
    spoken: Mapping[tuple[str, str, str], Mapping[str, Any]],
    sockets: Iterable[Socket],
    segment_of: Mapping[str, str],
) -> tuple[list[Finding], list[Port]]:
    """What differs, and what is as declared. `segment_of` says which segment a position counts as.

    `spoken` is by position, address and port what answered there: `speaks` and `version`.
    """
    listening = list(sockets)
    findings: list[Finding] = []
    found: list[Port] = []
    declared = {r.listener.label: (f"{r.service} {r.listener.name}", r.listener) for r in policy.input}
    for seen in scans:
        position, address = seen.position, str(seen.probe["address"])
        transport = str(seen.probe["transport"])
        if seen.outcome != "scanned":
            findings.append(
                Finding(gateway, position, address, f"all/{transport}", BLIND, str(seen.result.get("reason")))
            )
            continue
        expected = expect.admitted(policy, segment_of[position], transport)
        opened = {label for label in seen.result["open"] if "/" in label}
        for label in sorted(opened - expected, key=expect.split):
            findings.append(_too_much(gateway, position, address, label, OPEN, listening, spoken))
        for label in (label for label in seen.result["closed"] if label not in expected):
            findings.append(Finding(gateway, position, address, label, THROUGH, close="./kit harden"))
        # Of UDP silence is no answer: a listener may not know the question.
        missing = expected - opened if transport == "tcp" else set()
        for label in sorted(missing, key=expect.split):
            name, listener = declared[label]
            findings.append(
                Finding(gateway, position, address, label, CLOSED, f"declared: {name}", close=_start(site, listener))
            )
        for label in sorted(opened & expected, key=expect.split):
            name, listener = declared[label]
            said = spoken.get((position, address, label), {})
            if wrong := _otherwise(listener, str(said.get("speaks", ""))):
                findings.append(_too_much(gateway, position, address, label, wrong, listening, spoken))
            found.append(
                Port(gateway, position, address, label, name, str(said.get("speaks", "")), str(said.get("version", "")))
            )
    return findings + hidden(site, gateway, listening, findings), found


def hidden(site: Site, gateway: str, sockets: Iterable[Socket], known: Iterable[Finding]) -> list[Finding]:
    """What listens without a declaration, and no scan has met."""
    declared = {offer.listener.label for offer in expect.offers(site, gateway)} | set(expect.own_clients(site, gateway))
    units = {unit for service in site.services_of(gateway) for unit in service.units}
    met = {finding.port for finding in known}
    return [
        Finding(gateway, "gateway", s.address, s.label, HIDDEN, "", s.program, s.unit, _end(s))
        for s in sockets
        if s.label not in declared and s.label not in met and not (s.asks and s.unit in units)
    ]


def _otherwise(listener: Listener, speaks: str) -> str:
    """What is wrong with what answers at a listener; empty where nothing is, or nothing could be told."""
    if listener.transport != "tcp" or not speaks:
        return ""
    wanted = _SPEAKS.get(listener.encryption)
    if wanted is None:
        return WRONG if speaks in ("tls", "ssh") else ""
    if speaks == wanted:
        return ""
    return PLAIN if wanted == "tls" else WRONG


def _too_much(
    gateway: str, position: str, address: str, label: str, what: str, sockets: Iterable[Socket],
    spoken: Mapping[tuple[str, str, str], Mapping[str, Any]],
) -> Finding:  # fmt: skip
    said = spoken.get((position, address, label), {})
    got = " ".join(filter(None, (str(said.get("speaks", "")), str(said.get("version", "")))))
    there = [s for s in sockets if s.label == label and s.address.partition("%")[0] in (address, "*", "0.0.0.0", "::")]  # noqa: S104
    if not there:
        return Finding(gateway, position, address, label, what, got, "", "", "./kit harden")
    return Finding(gateway, position, address, label, what, got, there[0].program, there[0].unit, _end(there[0]))


def _end(socket: Socket) -> str:
    """The command on the gateway that ends whoever has a socket."""
    if socket.unit and not socket.unit.endswith(_TEMPORARY):
        return f"sudo systemctl disable --now {socket.unit}"
    return f"sudo fuser -k -n {socket.label.partition('/')[2]} {socket.label.partition('/')[0]}"


def _start(site: Site, listener: Listener) -> str:
    service = next(s for s in site.services if listener in s.listeners)
    return f"sudo systemctl restart {service.units[0]}" if service.units else "./kit harden"


def table(findings: Iterable[Finding], found: Iterable[Port]) -> list[str]:
    """For people: what differs first."""
    rows = [("from", "at", "port", "what", "program (unit)", "to mend it")]
    for f in findings:
        who = f"{f.program} ({f.unit})" if f.unit else f.program
        rows.append((f.position, f.address, f.port, f"{f.what}{f': {f.got}' if f.got else ''}", who, f.close))
    lines = aligned(rows) if len(rows) > 1 else ["every port is as declared"]
    rows = [("from", "at", "port", "declared", "speaks", "version")]
    rows += [(p.position, p.address, p.port, p.declared, p.speaks, p.version) for p in found]
    return [*lines, "", *aligned(rows)]


def document(site: Site, findings: Iterable[Finding], found: Iterable[Port]) -> dict[str, Any]:
    """For machines."""
    return {"site": site.name, "findings": [asdict(f) for f in findings], "open": [asdict(p) for p in found]}
