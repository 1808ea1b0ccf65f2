"""A threat model's data flows as a picture (SVG): trust boundaries are frames, flows lead from one to the other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from html import escape

from gatehouse.proof.threats import DataFlow, ThreatModel

WIDTH = 1180
_LEFT, _MIDDLE, _RIGHT = 110, 480, 940  # x of the three columns
_BOX, _ROW, _TOP = 220, 56, 60
Place = tuple[int, int]


def svg(model: ThreatModel) -> str:
    """The picture. Flows with the same ends are one line, with their ports; one in the clear is broken and amber.

    Its colours are the page's that it stands in: style.css.j2, class `flows`.
    """
    services = [e for e in model.elements if e.kind == "service" and _takes_part(e.name, model.flows)]
    outside = sorted(_ends(model.flows) - {e.name for e in services} - set(model.segments))
    places: dict[str, Place] = {}
    spread = max(len(services), len(model.segments), len(outside) + 1)
    for names, x in ((model.segments, _LEFT), ([s.name for s in services], _MIDDLE), (outside, _RIGHT)):
        step = _ROW * spread / max(1, len(names))
        for number, name in enumerate(names):
            places[name] = (x, int(_TOP + step * (number + 0.5) - 20))
    height = _TOP + _ROW * spread + 60
    titles = {e.name: e.title for e in services}
    count: dict[str, int] = defaultdict(int)
    for element in model.elements:
        if element.kind == "device":
            count[element.boundary] += 1
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="data flows of {escape(model.gateway)}" class="flows" font-family="sans-serif" font-size="13">',
        f'<rect class="gateway" x="{_MIDDLE - 20}" y="20" width="{_BOX + 40}" height="{height - 70}" rx="10"/>',
        f'<text class="name" x="{_MIDDLE - 8}" y="42">{escape(_heading(model.gateway))}</text>',
        f'<text class="name" x="{_LEFT}" y="42">segments</text>',
        f'<text class="name" x="{_RIGHT}" y="42">beyond</text>',
    ]
    parts += _lines(model.flows, places)
    for name, (x, y) in places.items():
        kind = "segment" if name in model.segments else "service" if name in titles else "beyond"
        below = titles.get(name, f"{count[name]} devices" if count[name] else "")
        parts.append(f'<rect class="{kind}" x="{x}" y="{y}" width="{_BOX}" height="40" rx="6"/>')
        parts.append(f'<text x="{x + 10}" y="{y + (17 if below else 25)}">{escape(name)}</text>')
        if below:
            parts.append(f'<text class="small" x="{x + 10}" y="{y + 32}">{escape(below)}</text>')
    parts.append(
        f'<line class="kept" x1="{_LEFT}" y1="{height - 22}" x2="{_LEFT + 40}" y2="{height - 22}"/>'
        f'<text class="small" x="{_LEFT + 48}" y="{height - 18}">encrypted</text>'
        f'<line class="clear" x1="{_LEFT + 140}" y1="{height - 22}" x2="{_LEFT + 180}" y2="{height - 22}"/>'
        f'<text class="small" x="{_LEFT + 188}" y="{height - 18}">in the clear</text>'
    )
    return "\n".join([*parts, "</svg>"])


def _heading(gateway: str) -> str:
    return gateway if gateway.startswith("gateway") else f"gateway {gateway}"


def _ends(flows: Iterable[DataFlow]) -> set[str]:
    return {end for flow in flows for end in (flow.source, flow.destination)}


def _takes_part(name: str, flows: Iterable[DataFlow]) -> bool:
    return name in _ends(flows)


def _lines(flows: Iterable[DataFlow], places: dict[str, Place]) -> Iterator[str]:
    together: dict[tuple[str, str], list[DataFlow]] = defaultdict(list)
    for flow in flows:
        together[flow.source, flow.destination].append(flow)
    for (source, destination), same in together.items():
        (x1, y1), (x2, y2) = places[source], places[destination]
        y1, y2 = y1 + 20, y2 + 20
        if x1 == x2:
            left = x1 == _LEFT
            side = x1 if left else x1 + _BOX
            bow = side + (-24 - abs(y2 - y1) // 7 if left else 30 + abs(y2 - y1) // 4)
            # Where a third of the curve is done, so that those that end at the same place are told apart.
            label = (int(side + 0.66 * (bow - side)) + 4, int(0.74 * y1 + 0.26 * y2))
            path = f"M{side} {y1}C{bow} {y1} {bow} {y2} {side} {y2}"
        else:
            a, b = (x1 + _BOX, x2) if x1 < x2 else (x1, x2 + _BOX)
            middle = (a + b) // 2
            path, label = f"M{a} {y1}C{middle} {y1} {middle} {y2} {b} {y2}", (b - 8 if a < b else b + 8, y2 - 4)
        kind = "kept" if all(flow.encrypted for flow in same) else "clear"
        ports = ", ".join(dict.fromkeys(flow.port for flow in same if flow.port))
        about = escape(f"{source} to {destination}: " + "; ".join(dict.fromkeys(flow.data for flow in same)))
        yield f'<path class="{kind}" d="{path}"><title>{about}</title></path>'
        if ports and x1 == _LEFT and x2 == _MIDDLE:
            yield f'<text class="port" text-anchor="end" x="{label[0]}" y="{label[1]}">{escape(ports)}</text>'
        elif ports and x1 == x2 == _MIDDLE:
            yield f'<text class="port" x="{label[0]}" y="{label[1]}">{escape(ports)}</text>'
