"""A threat model in the form that OWASP pytm 1.4 loads (`pytm.load`): one JSON object for all gateways of a site.

Segments and gateways are its boundaries, services its processes, devices of one model its external entities. pytm knows
the encryption, the protocol and the port of a flow by the element that it ends at, so that each listener is an element
of its own. What stands against a threat, what proves that and what is left are attributes of the elements: pytm keeps
what it has no name for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from gatehouse.proof.threats import DataFlow, Element, Threat, ThreatModel, alike

Entry = dict[str, Any]
NO_PORT = -1
_TLS_1_2 = 6  # pytm.TLSVersion: no role admits less, and DTLS is 1.2, too
_PROTOCOLS = {"tls": "TLS", "dtls": "DTLS", "ssh": "SSH", "wireguard": "WireGuard"}
_REPLACED = "MANUALLY_REVOKABLE"  # pytm.Lifetime
ASSUMPTIONS: list[Entry] = [
    {
        "name": "How a program treats what it reads is its code's affair",
        "description": "The model knows no code. Most programs are Debian's, and Debian mends them.",
        "exclude": [
            "INP02", "INP07", "INP08", "INP12", "INP13", "INP14", "INP20", "INP23", "INP24", "INP25", "INP26", "INP27",
            "INP28", "INP29", "INP30", "INP31", "INP32", "INP33", "INP35", "INP41", "DE02",
        ],
    },
    {
        "name": "Who keeps a session in a browser is Grafana alone, and how it does so is its code's affair",
        "description": "The model knows no code, and no other page has a session.",
        "exclude": ["AC18", "AC20", "AC21"],
    },
]  # fmt: skip
"""Which of pytm's threats (`tm.excluded_findings`) are not asked of an element, and why."""


def document(models: Sequence[ThreatModel]) -> str:
    """The threat models of a site's gateways, as JSON."""
    made = [_Gateway(model, f"{model.gateway}: " if len(models) > 1 else "") for model in models]
    return json.dumps(
        {
            "name": f"Threat model of {models[0].site}",
            "description": "What is declared for " + ", ".join(model.gateway for model in models),
            "assumptions": ASSUMPTIONS,
            "boundaries": [entry for each in made for entry in each.boundaries()],
            # What is sent at several gateways is the same.
            "data": list({entry["name"]: entry for each in made for entry in each.data()}.values()),
            "elements": [entry for each in made for entry in each.elements()],
            "flows": [entry for each in made for entry in each.flows()],
        },
        indent=1,
        ensure_ascii=False,
    )


def name(flow: DataFlow) -> str:
    """What a flow is called there."""
    return f"{flow.source} to {receiver(flow)}: {flow.data}"


def receiver(flow: DataFlow) -> str:
    """The element that a flow ends at: a listener, or what else its destination takes so encrypted."""
    return f"{flow.destination} {flow.port or flow.encryption or 'none'}"


class _Gateway:
    """The threat model of one of them; `prefix` tells its elements from those of others."""

    def __init__(self, model: ThreatModel, prefix: str) -> None:
        self._model, self._prefix = model, prefix
        self._services = {element.name for element in model.elements if element.kind == "service"}
        self._gateway = model.gateway if prefix else "gateway"

    def boundaries(self) -> Iterator[Entry]:
        yield {"name": self._gateway}
        for segment in self._model.segments:
            yield {"name": f"{self._prefix}{segment}"}

    def data(self) -> Iterator[Entry]:
        for flow in self._model.flows:
            yield {"name": flow.data}
        for element in self._model.elements:
            for secret in element.secrets:
                yield {
                    "name": f"{element.name}: {secret}", "classification": "SECRET", "isCredentials": True,
                    "credentialsLife": _REPLACED, "isStored": True,
                }  # fmt: skip

    def elements(self) -> Iterator[Entry]:
        """Services and devices, then what flows come from and go to."""
        for title, element in alike(self._model.elements):
            yield self._service(element) if element.kind == "service" else self._devices(title, element)
        ends = {
            flow.source: self._source(flow.source) for flow in self._model.flows if flow.source not in self._services
        }
        yield from ends.values()
        yield from {receiver(flow): self._receiver(flow) for flow in self._model.flows}.values()

    def flows(self) -> Iterator[Entry]:
        for flow in self._model.flows:
            number = flow.port.partition("/")[0]
            yield {
                "name": f"{self._prefix}{name(flow)}",
                "source": f"{self._prefix}{flow.source}",
                "sink": f"{self._prefix}{receiver(flow)}",
                "data": [flow.data],
                "dstPort": int(number) if number.isdigit() else NO_PORT,
                "protocol": _PROTOCOLS.get(flow.encryption, ""),
                "tlsVersion": _tls(flow),
                "usesVPN": flow.encryption == "wireguard",
                "note": f"integrity: {flow.integrity}; if it is compromised: {flow.compromise}",
                "controls": {
                    "isEncrypted": flow.encrypted,
                    "providesConfidentiality": flow.encrypted,
                    "providesIntegrity": not flow.integrity.startswith("none"),
                    **_asks(flow.authenticated),
                    "authenticationScheme": flow.authentication,
                },
                "threats": [_threat(threat) for threat in flow.threats],
            }

    def _service(self, element: Element) -> Entry:
        comes = [flow for flow in self._model.flows if flow.destination == element.name]
        goes = [flow for flow in self._model.flows if flow.source == element.name]
        confined = [t.proof.verdict for t in element.threats if f"host.confines-{element.name}" in t.proof.patterns]
        return {
            "__class__": "Process",
            "name": f"{self._prefix}{element.name}",
            "description": element.title,
            "inBoundary": self._gateway,
            "controls": {
                **_asks(all(flow.authenticated for flow in comes)),
                # TLS, SSH and WireGuard are never spoken to a peer that has not shown its certificate or key.
                "authenticatesDestination": bool(goes) and all(flow.encrypted for flow in goes),
                "implementsPOLP": confined == ["proven"],
            },
            "secrets": element.secrets,
            "threats": [_threat(threat) for threat in element.threats],
        }

    def _devices(self, title: str, element: Element) -> Entry:
        return {
            "__class__": "ExternalEntity",
            "name": f"{self._prefix}{title}",
            "description": element.title,
            "inBoundary": f"{self._prefix}{element.boundary}",
            "hasPhysicalAccess": True,
            "threats": [_threat(threat) for threat in element.threats],
        }

    def _source(self, end: str) -> Entry:
        """Whoever is in a segment, or somebody beyond the site's: what they do is nobody's here to say."""
        place = {"inBoundary": f"{self._prefix}{end}"} if end in self._model.segments else {}
        kind = "ExternalEntity" if place else "Actor"
        return {"__class__": kind, "name": f"{self._prefix}{end}", "inScope": False, **place}

    def _receiver(self, flow: DataFlow) -> Entry:
        end, number = flow.destination, flow.port.partition("/")[0]
        place = {"inBoundary": f"{self._prefix}{end}"} if end in self._model.segments else {}
        if end in self._services:
            place = {"inBoundary": self._gateway}
        return {
            "__class__": "Asset",
            "name": f"{self._prefix}{receiver(flow)}",
            "inScope": end in self._services,
            "port": int(number) if number.isdigit() else NO_PORT,
            "protocol": _PROTOCOLS.get(flow.encryption, ""),
            "minTLSVersion": _tls(flow),
            "controls": {"isEncrypted": flow.encrypted},
            **place,
        }


def _tls(flow: DataFlow) -> int:
    return _TLS_1_2 if flow.encryption in ("tls", "dtls") else 0


def _asks(authenticated: bool) -> Entry:
    """What it means to ask who somebody is; who may do what follows from that everywhere."""
    asked = ("authenticatesSource", "authorizesSource", "hasAccessControl", "implementsAuthenticationScheme")
    return dict.fromkeys(asked, authenticated)


def _threat(threat: Threat) -> Entry:
    return {
        "stride": threat.stride, "text": threat.text, "mitigation": threat.mitigation, "proof": str(threat.proof),
        "residual": threat.residual,
    }  # fmt: skip
