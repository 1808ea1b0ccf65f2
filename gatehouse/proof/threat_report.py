"""A threat model as somebody reads it: Markdown, one self-contained HTML page with its picture, or JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape

from gatehouse.errors import GatehouseError
from gatehouse.proof.threat_diagram import svg
from gatehouse.proof.threats import DataFlow, Threat, ThreatModel, together

_FLOW = ("from", "to", "port", "data", "encrypted", "authenticated", "integrity", "if compromised", "opened only so")
_THREAT = ("threat", "what", "mitigation", "proof", "what is left")


class UnknownForm(GatehouseError):
    """A form that a threat model can't be shown in."""


def shown(models: Sequence[ThreatModel], form: str) -> str:
    """The threat models of a site's gateways in that form. Raises `UnknownForm`."""
    if form not in FORMS:
        raise UnknownForm(f"--format: {form[:30]!r} is no form of a threat model (use {', '.join(FORMS)})")
    return FORMS[form](models)


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


def _sections(model: ThreatModel) -> Iterator[tuple[str, Sequence[str], list[tuple[str, ...]]]]:
    yield "Data flows", _FLOW, [_flow(flow) for flow in model.flows]
    for element in model.elements:
        if element.threats:
            holds = f", holds: {', '.join(element.secrets)}" if element.secrets else ""
            title = f"{element.kind} {element.name} ({element.title}, in {element.boundary}{holds})"
            yield title, _THREAT, [_threat(threat) for threat in element.threats]
    left: list[tuple[str, ...]] = [
        (e.name, t.stride, t.residual) for e in model.elements for t in e.threats if t.residual
    ]
    yield "Residual risks", ("element", "threat", "what is left"), left


def _markdown(models: Sequence[ThreatModel]) -> str:
    lines = []
    for model in models:
        lines += [f"# Threat model of {model.site}, {model.gateway}", "", _when(model), ""]
        for title, head, rows in _sections(model):
            lines += [f"## {title}", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
            lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
            lines.append("")
    return "\n".join(lines)


def _html(models: Sequence[ThreatModel]) -> str:
    parts = [
        '<!DOCTYPE html><html lang="en"><meta charset="utf-8">',
        f"<title>Threat model of {escape(models[0].site)}</title><style>{_STYLE}</style>",
    ]
    for model in models:
        parts.append(f"<h1>Threat model of {escape(model.site)}, {escape(model.gateway)}</h1><p>{escape(_when(model))}")
        parts.append(f'<figure tabindex="0">{svg(model)}</figure>')
        for title, head, rows in _sections(model):
            heads = "".join(f'<th scope="col">{escape(name)}' for name in head)
            body = "".join(f"<tr>{''.join(map(_cell, row))}" for row in rows)
            parts.append(
                f'<h2>{escape(title)}</h2><div class="wide"><table><thead><tr>{heads}</thead>{body}</table></div>'
            )
    return "\n".join([*parts, "</html>"])


def _cell(text: str) -> str:
    kind = next((k for k in ("failed", "not proven", "proven") if text.startswith(k)), "")
    return f'<td class="{kind.replace(" ", "-")}">{escape(text)}' if kind else f"<td>{escape(text)}"


def _json(models: Sequence[ThreatModel]) -> str:
    return json.dumps([model.as_dict() for model in models], indent=1, ensure_ascii=False)


FORMS: Mapping[str, Callable[[Sequence[ThreatModel]], str]] = {"markdown": _markdown, "html": _html, "json": _json}

_STYLE = """
:root{color-scheme:light dark} body{font:15px/1.45 sans-serif;margin:2rem auto;max-width:1240px;padding:0 1rem}
figure{margin:1rem 0;background:#fff;border-radius:8px;overflow-x:auto} svg{width:100%;min-width:900px}
table{border-collapse:collapse;width:100%;font-size:13px} th,td{border:1px solid #8886;padding:.35rem .5rem;
text-align:left;vertical-align:top} th{background:#8882} .wide{overflow-x:auto}
.proven{color:light-dark(#146c3c,#6fd39b)} .failed{color:light-dark(#b00020,#ff8a94);font-weight:bold}
.not-proven{color:light-dark(#8a5200,#ffc266)} @media print{body{max-width:none;margin:0}}
"""
