"""A threat model as somebody reads it: Markdown, one self-contained HTML page with its picture, JSON, or pytm's."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from gatehouse.errors import GatehouseError
from gatehouse.proof import threat_pytm
from gatehouse.proof.results import VERDICTS, Verdict
from gatehouse.proof.templates import ENVIRONMENT, SIGNS
from gatehouse.proof.threat_diagram import svg
from gatehouse.proof.threats import DataFlow, Threat, ThreatModel, alike, together

_FLOW = ("from", "to", "port", "data", "encrypted", "authenticated", "integrity", "if compromised", "opened only so")
_THREAT = ("threat", "what", "mitigation", "proof", "what is left")


class UnknownForm(GatehouseError):
    """A form that a threat model can't be shown in."""


@dataclass(frozen=True)
class Section:
    """A table. `counts` has its threats by how their mitigations stand; empty where it is not about threats."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    counts: Mapping[Verdict, int]


@dataclass(frozen=True)
class View:
    """A gateway's threat model, ready for a page. `picture` is markup, safe as it is: an SVG element."""

    heading: str
    when: str
    picture: str
    counts: Mapping[Verdict, int]
    sections: tuple[Section, ...]


def shown(models: Sequence[ThreatModel], form: str) -> str:
    """The threat models of a site's gateways in that form. Raises `UnknownForm`."""
    if form not in FORMS:
        raise UnknownForm(f"--format: {form[:30]!r} is no form of a threat model (use {', '.join(FORMS)})")
    return FORMS[form](models)


def view(model: ThreatModel) -> View:
    """What a page shows of a threat model, in this order; the report has the same as the page of its own."""
    return View(
        model.gateway,
        _when(model),
        svg(model),
        _counts(threat for element in model.elements for threat in element.threats),
        tuple(_sections(model)),
    )


def _counts(threats: Iterable[Threat]) -> Mapping[Verdict, int]:
    found = [threat.proof.verdict for threat in threats]
    return {verdict: found.count(verdict) for verdict in VERDICTS if verdict in found}


def _flow(flow: DataFlow) -> tuple[str, ...]:
    return (
        flow.source, flow.destination, flow.port, flow.data, flow.encryption if flow.encrypted else "no",
        flow.authentication if flow.authenticated else "no", flow.integrity, flow.compromise,
        str(together(threat.proof for threat in flow.threats)),
    )  # fmt: skip


def _threat(threat: Threat) -> tuple[str, ...]:
    return (threat.stride, threat.text, threat.mitigation, str(threat.proof), threat.residual or "-")


def _when(model: ThreatModel) -> str:
    if model.proven_at:
        return f"Verdicts of the run of {model.proven_at}."
    return f"Nothing was proven yet: ./kit verify --site {model.site} does it."


def _sections(model: ThreatModel) -> Iterator[Section]:
    yield Section("Data flows", _FLOW, tuple(map(_flow, model.flows)), {})
    elements = list(alike(model.elements))
    for name, element in elements:
        if element.threats:
            holds = f", holds: {', '.join(element.secrets)}" if element.secrets else ""
            title = f"{name} ({element.title}, in {element.boundary}{holds})"
            yield Section(title, _THREAT, tuple(map(_threat, element.threats)), _counts(element.threats))
    left = tuple((name, t.stride, t.residual) for name, e in elements for t in e.threats if t.residual)
    yield Section("Residual risks", ("element", "threat", "what is left"), left, {})


def _markdown(models: Sequence[ThreatModel]) -> str:
    lines = []
    for model in models:
        lines += [f"# Threat model of {model.site}, {model.gateway}", "", _when(model), ""]
        for part in _sections(model):
            lines += [f"## {part.title}", "", f"| {' | '.join(part.head)} |", "|---" * len(part.head) + "|"]
            lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in part.rows]
            lines.append("")
    return "\n".join(lines)


def _html(models: Sequence[ThreatModel]) -> str:
    template = ENVIRONMENT.get_template("threat_model.html.j2")
    return template.render(site=models[0].site, models=map(view, models), signs=SIGNS)


def _json(models: Sequence[ThreatModel]) -> str:
    return json.dumps([model.as_dict() for model in models], indent=1, ensure_ascii=False)


FORMS: Mapping[str, Callable[[Sequence[ThreatModel]], str]] = {
    "markdown": _markdown,
    "html": _html,
    "json": _json,
    "pytm": threat_pytm.document,
}
