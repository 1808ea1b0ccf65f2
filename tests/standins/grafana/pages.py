"""STAND-IN: the pages, with the fields of Grafana's login form, and dashboards as plain tables and lines."""

from __future__ import annotations

import html
import json
from pathlib import Path

import source
import yaml

BANNER = "STAND-IN: this is not Grafana, but what Gatehouse's tests use where Grafana's package is not at hand"
_STYLE = """
body { margin: 0; font: 14px sans-serif; background: #f4f5f5; color: #222; }
header { background: #b00020; color: #fff; padding: 8px 16px; font-weight: bold; }
nav { padding: 8px 16px; }
main { display: grid; grid-template-columns: repeat(24, 1fr); gap: 8px; padding: 0 16px 16px; }
section { background: #fff; border: 1px solid #ddd; padding: 8px 12px; overflow: hidden; }
h2 { font-size: 14px; margin: 0 0 6px; } td, th { text-align: left; padding: 1px 12px 1px 0; font-size: 12px; }
svg { width: 100%; height: 110px; } polyline { fill: none; stroke-width: 1.5; } .number { font-size: 32px; }
form { max-width: 320px; margin: 80px auto; display: grid; gap: 8px; } input, button { padding: 8px; font-size: 14px; }
"""
_COLOURS = ("#3274d9", "#56a64b", "#e0b400", "#e02f44", "#8f3bb8", "#ff780a", "#5794f2", "#96d98d")
_LOGIN = """<form onsubmit="enter(event)"><h1>Dashboards</h1>
<input name="user" placeholder="email or username" autocomplete="username">
<input name="password" type="password" placeholder="password" autocomplete="current-password">
<button type="submit">Log in</button><p id="said"></p></form>
<script>async function enter(event) { event.preventDefault();
const form = event.target, body = JSON.stringify({user: form.user.value, password: form.password.value});
const answer = await fetch("/login", {method: "POST", headers: {"Content-Type": "application/json"}, body});
if (answer.ok) location.href = "/"; else document.getElementById("said").textContent = (await answer.json()).message; }
</script>"""


def page(title, body):
    """A page, named as a stand-in in its title and at its top."""
    return (
        f'<!doctype html><html><head><meta charset="utf-8"><title>STAND-IN: {html.escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body><header>{BANNER}</header>{body}</body></html>"
    )


def login():
    """The login page."""
    return page("Dashboards", _LOGIN)


def boards(provisioning):
    """The provisioned dashboards by uid, as they are on the disk now."""
    found = {}
    for path in sorted((Path(provisioning) / "dashboards").glob("*.yaml")):
        for provider in yaml.safe_load(path.read_text())["providers"]:
            for file in sorted(Path(provider["options"]["path"]).glob("*.json")):
                board = json.loads(file.read_text())
                found[board["uid"]] = board
    return found


def dashboard(found, uid, sources):
    """A dashboard with its data."""
    links = " · ".join(f'<a href="/d/{u}">{html.escape(b["title"])}</a>' for u, b in found.items())
    panels = "".join(_panel(panel, sources) for panel in found[uid]["panels"])
    return page(found[uid]["title"], f"<nav>{links}</nav><main>{panels}</main>")


def _panel(panel, sources):
    place = panel["gridPos"]
    style = f"grid-column: {place['x'] + 1} / span {place['w']}"
    try:
        series = [
            each
            for target in panel["targets"]
            for each in sources[target["datasource"]["uid"]].series(source.filled(target["query"], "1h"))
        ]
        shown = _lines(series) if panel["type"] == "timeseries" else _table(series)
    except (OSError, ValueError, KeyError) as error:
        shown = f"<p>{html.escape(str(error))}</p>"
    return f'<section style="{style}"><h2>{html.escape(panel["title"])}</h2>{shown}</section>'


def _name(series):
    return " ".join((series.get("tags") or {}).values()) or series["name"]


def _table(series):
    if not series:
        return "<p>No data</p>"
    if len(series) == 1 and not series[0].get("tags"):
        return f'<p class="number">{series[0]["values"][-1][-1]}</p>'
    row = '<tr><td>{}</td><td>{}</td><td class="when" data-ms="{}"></td></tr>'
    rows = "".join(row.format(html.escape(_name(s)), s["values"][-1][-1], s["values"][-1][0]) for s in series)
    when = "for (const e of document.querySelectorAll('.when')) e.textContent = new Date(+e.dataset.ms).toISOString();"
    return f"<table>{rows}</table><script>{when}</script>"


def _by_column(series):
    """A series for each column: numbers of different kinds are no line."""
    for each in series:
        for number, column in enumerate(each["columns"][1:], start=1):
            named = {**(each.get("tags") or {}), "column": column} if len(each["columns"]) > 2 else each.get("tags")
            yield {**each, "tags": named, "values": [[row[0], row[number]] for row in each["values"]]}


def _lines(given):
    series = list(_by_column(given))
    points = [(i, row[0], v) for i, s in enumerate(series) for row in s["values"] for v in row[1:] if v is not None]
    if not points:
        return "<p>No data</p>"
    start, end = min(p[1] for p in points), max(p[1] for p in points)
    low, high = min(0, *(p[2] for p in points)), max(0, *(p[2] for p in points))
    drawn = ""
    for number, _ in enumerate(series):
        mine = [(p[1], p[2]) for p in points if p[0] == number]
        at = " ".join(
            f"{1000 * (t - start) / ((end - start) or 1):.0f},{104 - 98 * (v - low) / ((high - low) or 1):.0f}"
            for t, v in mine
        )
        drawn += f'<polyline points="{at}" stroke="{_COLOURS[number % len(_COLOURS)]}"/>'
    names = ", ".join(
        f'<span style="color:{_COLOURS[n % len(_COLOURS)]}">{html.escape(_name(s))}</span>'
        for n, s in enumerate(series)
    )
    return f'<svg viewBox="0 0 1000 110" preserveAspectRatio="none">{drawn}</svg><p>{names}</p>'
