"""The threat model of a site, derived from what its roles declare: flows, elements, STRIDE, proofs."""

from __future__ import annotations

import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, Literal

from gatehouse.proof.results import Run, Verdict
from gatehouse.site import Service, Site, derive

FILE = Path(__file__).with_name("threats.toml")
Kind = Literal["service", "device", "flow"]
NAMED = 4  # devices of the same kind, before the others are only counted


@dataclass(frozen=True)
class Proof:
    """The checks that stand behind a mitigation: their verdict taken together, and how many there were.

    One that failed makes all fail; none at all, or one that is not proven, leaves all *not proven*.
    """

    verdict: Verdict
    checks: tuple[str, ...]
    failed: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()

    def __str__(self) -> str:
        if not self.patterns:
            return "no check"
        word = self.verdict.replace("_", " ")
        which = f": {', '.join(self.failed)}" if self.failed else ""
        return f"{word} ({len(self.checks)} check{'' if len(self.checks) == 1 else 's'}{which})"


def together(proofs: Iterable[Proof]) -> Proof:
    """Several proofs as one: proven if each of them is, failed if one is."""
    some = tuple(proofs)
    failed = tuple(dict.fromkeys(name for proof in some for name in proof.failed))
    proven = bool(some) and all(proof.verdict == "proven" for proof in some)
    return Proof(
        "failed" if failed else "proven" if proven else "not_proven",
        tuple(sorted({name for proof in some for name in proof.checks})),
        failed,
        tuple(pattern for proof in some for pattern in proof.patterns),
    )


@dataclass(frozen=True)
class Threat:
    """Something that can be done to an element, what stands against it, and what is left even so."""

    stride: str
    text: str
    mitigation: str
    proof: Proof
    residual: str


@dataclass(frozen=True)
class Element:
    """A service of the gateway, or a device; `boundary` is the segment it is in, or `gateway`."""

    kind: Kind
    name: str
    title: str
    boundary: str
    secrets: tuple[str, ...]
    threats: tuple[Threat, ...]


@dataclass(frozen=True)
class DataFlow:
    """Data that may be on its way. `crosses` says whether it leaves one segment, or the gateway, for another."""

    source: str
    destination: str
    port: str
    data: str
    encryption: str
    authentication: str
    integrity: str
    compromise: str
    crosses: bool
    threats: tuple[Threat, ...]

    @property
    def encrypted(self) -> bool:
        """Whether somebody on the way reads nothing."""
        return self.encryption not in ("", "none")

    @property
    def authenticated(self) -> bool:
        """Whether it matters who speaks."""
        return not self.authentication.startswith("none")


@dataclass(frozen=True)
class ThreatModel:
    """One gateway of a site. `proven_at` is when the checks were made (ISO 8601), empty if there was no run."""

    site: str
    gateway: str
    proven_at: str
    segments: tuple[str, ...]
    elements: tuple[Element, ...]
    flows: tuple[DataFlow, ...]

    def as_dict(self) -> dict[str, Any]:
        """What the JSON form holds."""
        made = asdict(self)
        for entry, flow in zip(made["flows"], self.flows, strict=True):
            entry |= {"encrypted": flow.encrypted, "authenticated": flow.authenticated}
        return made


@cache
def known() -> tuple[Mapping[str, Any], ...]:
    """The entries of threats.toml."""
    return tuple(tomllib.loads(FILE.read_text())["threat"])


def model(site: Site, gateway: str, run: Run | None) -> ThreatModel:
    """The threat model of a gateway; `run` has the last verdicts, None where nothing was proven yet."""
    policy = derive(site, gateway)
    view = _Verdicts(run, gateway)
    services = site.services_of(gateway)
    elements = [_service(service, view) for service in services]
    devices = [device for device in site.devices_of(gateway) if device.status != "revoked"]
    at = {name: _threats(view, "device", segment=name) for name in {device.segment for device in devices}}
    elements += [Element("device", d.name, d.model, d.segment, (), at[d.segment]) for d in devices]
    return ThreatModel(
        site.name,
        gateway,
        run.started.isoformat(timespec="seconds") if run else "",
        policy.segments,
        tuple(elements),
        tuple(_flows(site, gateway, view)),
    )


def models(site: Site, run: Run | None) -> list[ThreatModel]:
    """The threat model of each gateway."""
    return [model(site, gateway, run) for gateway in site.gateways]


def alike(elements: Iterable[Element]) -> Iterator[tuple[str, Element]]:
    """Each element under its name; devices of one model in one segment are one, as the same holds for all of them."""
    same: dict[tuple[str, str], list[Element]] = defaultdict(list)
    for element in elements:
        if element.kind == "device":
            same[element.title, element.boundary].append(element)
        else:
            yield f"{element.kind} {element.name}", element
    for devices in same.values():
        names = ", ".join(device.name for device in devices[:NAMED])
        more = f" and {len(devices) - NAMED} more" if len(devices) > NAMED else ""
        yield f"{'device' if len(devices) == 1 else 'devices'} {names}{more}", devices[0]


class _Verdicts:
    """The verdicts of a run at one gateway."""

    def __init__(self, run: Run | None, gateway: str) -> None:
        self._checks = [c for c in run.checks if c.gateway in (gateway, None)] if run else []

    def of(self, *patterns: str) -> Proof:
        found = [c for c in self._checks if any(fnmatchcase(c.id, p) for p in patterns)]
        failed = tuple(c.id for c in found if c.verdict == "failed")
        proven = bool(found) and all(c.verdict == "proven" for c in found)
        verdict: Verdict = "failed" if failed else "proven" if proven else "not_proven"
        return Proof(verdict, tuple(sorted({c.id for c in found})), failed, patterns)


def _threats(view: _Verdicts, kind: Kind, service: Service | None = None, segment: str = "") -> tuple[Threat, ...]:
    found = []
    for entry in known():
        if entry["of"] != kind:
            continue
        if service and not _concerns(entry, service):
            continue
        name = service.name if service else ""
        patterns = [p.format(service=name, segment=segment) for p in entry["checks"]]
        found.append(Threat(entry["stride"], entry["text"], entry["mitigation"], view.of(*patterns), entry["residual"]))
    return tuple(found)


def _concerns(entry: Mapping[str, Any], service: Service) -> bool:
    if entry.get("network_facing") and not service.network_facing:
        return False
    if entry.get("secrets") and not service.secrets:
        return False
    return "services" not in entry or service.name in entry["services"]


def _service(service: Service, view: _Verdicts) -> Element:
    secrets = tuple(secret.name for secret in service.secrets)
    return Element("service", service.name, service.title, "gateway", secrets, _threats(view, "service", service))


def _flows(site: Site, gateway: str, view: _Verdicts) -> Iterator[DataFlow]:
    policy = derive(site, gateway)
    services = site.services_of(gateway)
    users = {service.user: service.name for service in reversed(services)}
    for rule in policy.input:
        o = rule.listener
        proof = view.of(f"gateway.{rule.service}.{o.name}-from-*", f"gateway.{rule.service}.{o.name}")
        opened = Threat(
            "spoofing",
            "It is opened from a segment that may not.",
            "The firewall admits it from the declared segments alone.",
            proof,
            "",
        )
        yield DataFlow(
            rule.segment, rule.service, o.label, o.data, o.encryption, o.authentication, _kept(o.encryption),
            o.compromise, True, (opened, *_threats(view, "flow")),
        )  # fmt: skip
    for service in services:
        for o in service.listeners:
            for account in (a for a in o.accounts if a != "root"):
                yield DataFlow(
                    users.get(account, account), service.name, o.label, o.data, o.encryption, o.authentication,
                    _kept(o.encryption, "it never leaves the gateway"), o.compromise, False, _threats(view, "flow"),
                )  # fmt: skip
        for f in service.flows:
            ends = {"gateway": service.name}
            source, destination = ends.get(f.source, f.source), ends.get(f.destination, f.destination)
            inside = {s.name for s in services}
            if (
                source in inside
                and destination in inside
                and any(o.accounts for o in site.service(destination).listeners)
            ):
                continue  # the listener at its end says the same, and who may use it
            yield DataFlow(
                source, destination, "", f.data, f.encryption, f.authentication,
                f.integrity or _kept(f.encryption, _vouched(f.authentication)), f.compromise,
                not {source, destination} <= inside, (),
            )  # fmt: skip
    for way in policy.forward:
        named = policy.destinations.get(way.destination)
        port = f"{named.port}/{named.transport}" if named else "any"
        checks = f"destinations.{way.destination}-*" if way.destination else f"segments.{way.segment}-to-{way.towards}"
        opened = Threat(
            "elevation of privilege",
            "More gets through than was declared.",
            "Dropped is what nobody declared, in both directions.",
            view.of(checks),
            "",
        )
        yield DataFlow(
            way.segment, way.towards, port, way.destination or "whatever its hosts send", "none",
            "none by the gateway: it is the hosts' own affair", "none by the gateway",
            f"a host of {way.segment} attacks what it may reach in {way.towards}", True, (opened,),
        )  # fmt: skip
    for profile in policy.profiles:
        for name in profile.destinations:
            named = policy.destinations[name]
            own = Threat(
                "elevation of privilege",
                "A device that it is not for uses it.",
                "It is open to the devices on its list alone.",
                view.of(f"egress.{name}-*"),
                "",
            )
            for segment in dict.fromkeys(device.segment for device in profile.devices):
                yield DataFlow(
                    segment, "internet", f"{named.port}/{named.transport}", name, "none",
                    "none by the gateway: it is the hosts' own affair", "none by the gateway",
                    f"{len(profile.devices)} devices may send there what they know", True, (own,),
                )  # fmt: skip


def _kept(encryption: str, otherwise: str = "none") -> str:
    return encryption.upper() if encryption not in ("", "none") else otherwise


def _vouched(authentication: str) -> str:
    return "none" if authentication.startswith("none") else f"as far as it is authenticated: {authentication}"
