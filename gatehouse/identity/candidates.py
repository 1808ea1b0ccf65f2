"""Which devices may be enrolled: each request is checked against the names, the site, the registry and the others."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from pydantic import ValidationError

from gatehouse.identity.authority import PkiError
from gatehouse.identity.csr import read_csr
from gatehouse.identity.leaf import spki
from gatehouse.identity.names import NameRefused, check_device_name
from gatehouse.site import Device, Site
from gatehouse.site.pages import labels
from gatehouse.site.validation import entry_problems, place_problems

_LONGEST_MODEL = 64


@dataclass(frozen=True)
class Request:
    """A device to enrol. What is None the registry says already, or it is as by default.

    `csr` is its certificate request (PEM or DER) when its key never leaves it; `line` is where it stands in a list;
    `authentication` is `psk` for one that can't have a certificate.
    """

    name: str
    model: str | None = None
    gateway: str | None = None
    segment: str | None = None
    hardware_address: str | None = None
    address: str | None = None
    csr: bytes | None = field(default=None, repr=False)
    line: int | None = None
    authentication: str | None = None


@dataclass(frozen=True)
class Refusal:
    """Why a device can't be enrolled; `line` is where it stands in a list, None when it stands in none."""

    line: int | None
    why: str

    def __str__(self) -> str:
        return self.why if self.line is None else f"line {self.line}: {self.why}"


@dataclass
class Sorted:
    """Requests as they were found: to be enrolled, enrolled before, or refused."""

    wanted: list[tuple[Request, Device]] = field(default_factory=list)
    already: list[str] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)


class Judge:
    """Tells which requests can be met, for one site. `device_dns_name` is the name that a certificate will have."""

    def __init__(self, site: Site, domain_of_devices: str) -> None:
        self._site = site
        self._domain = domain_of_devices
        self._reserved = frozenset(
            {*(service.name for service in site.services), *site.gateways, *labels(site.services)}
        )

    def sort(self, requests: Iterable[Request], registry: Mapping[str, Mapping[str, Any]]) -> Sorted:
        """Sort requests, given the registry's entries by name. Of two that ask for the same thing the first gets it."""
        found = Sorted()
        seen: dict[str, int | None] = {}
        taken: dict[tuple[str, str], str] = {}
        for name, entry in registry.items():
            taken.update(dict.fromkeys(_unique(entry), name))
        for request in requests:
            why = None
            if request.name in seen:
                first = seen[request.name]
                why = f"device '{request.name}': is in line {first} already; leave one of them" if first else "twice"
            else:
                seen[request.name] = request.line
                outcome = self._judge(request, registry.get(request.name), taken)
                if isinstance(outcome, Device):
                    found.wanted.append((request, outcome))
                elif outcome is None:
                    found.already.append(request.name)
                else:
                    why = outcome
            if why is not None:
                found.refused.append(Refusal(request.line, why))
        return found

    def _judge(
        self, request: Request, entry: Mapping[str, Any] | None, taken: dict[tuple[str, str], str]
    ) -> Device | str | None:
        """The device to be enrolled (with the key of its request), None when it was before, or why not."""
        name = request.name
        try:
            check_device_name(name, self._reserved)
        except NameRefused as error:
            return str(error)
        facts = self._facts(request, entry)
        try:
            device = Device.model_validate(facts)
            problems = list(place_problems(device, self._site.gateways))
        except ValidationError:
            problems = list(entry_problems(facts, 0))
        if problems:
            return "; ".join(map(str, problems))
        if not device.model.isprintable() or not 0 < len(device.model) <= _LONGEST_MODEL:
            return f"device '{name}' model: give 1 to {_LONGEST_MODEL} printable characters"
        why = self._contradiction(device, entry)
        if device.authentication == "psk":
            if not self._site.psk:
                return f"device '{name}': the site takes no pre-shared keys; give the site psk=True, then harden"
            if request.csr is not None:
                return f"device '{name}': a certificate request and a pre-shared key; leave one of them out"
        key = None
        if request.csr is not None and why is None:
            try:
                key = sha256(spki(read_csr(request.csr, name, f"{name}.{self._domain}"))).hexdigest()
            except PkiError as error:
                return str(error)
            if entry is not None and entry.get("spki_sha256") not in (None, key):
                why = f"device '{name}': was enrolled with another key; `./kit renew --name {name}` changes it"
        if why is not None:
            return why
        for what, value in _unique({**facts, "spki_sha256": key}):
            if (other := taken.setdefault((what, value), name)) != name:
                return f"device '{name}': its {what} is that of '{other}' too; each device has its own"
        if key is not None:
            device = device.model_copy(update={"spki_sha256": key})
        return None if device.enrolled else device

    def _facts(self, request: Request, entry: Mapping[str, Any] | None) -> dict[str, Any]:
        given = {
            what: getattr(request, what)
            for what in ("name", "model", "gateway", "segment", "hardware_address", "address", "authentication")
            if getattr(request, what)
        }
        gateways = list(self._site.gateways)
        default = {"gateway": gateways[0]} if len(gateways) == 1 else {}
        return {**default, **(entry or {}), **given}

    def _contradiction(self, device: Device, entry: Mapping[str, Any] | None) -> str | None:
        """What the registry says otherwise of a device that it has."""
        if entry is None:
            return None
        if device.status == "revoked":
            return f"device '{device.name}': was revoked, and its name with it; choose another one"
        here = Device.model_validate(entry)
        for what in ("model", "gateway", "segment", "hardware_address", "address", "authentication"):
            old, new = getattr(here, what), getattr(device, what)
            if what == "authentication" and not here.enrolled:
                continue
            if old is not None and old != new:
                mend = "correct one of them, or choose another name"
                return f"device '{device.name}': its {what} is '{old}' in the registry, not '{new}'; {mend}"
        return None


def _unique(entry: Mapping[str, Any]) -> Collection[tuple[str, str]]:
    """What only one device may have, of what an entry says."""
    facts = {
        "hardware address": str(entry.get("hardware_address") or "").lower(),
        f"address on {entry.get('gateway')}": str(entry.get("address") or ""),
        "key": str(entry.get("spki_sha256") or ""),
    }
    return [(what, value) for what, value in facts.items() if value]
