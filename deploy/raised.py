"""What is raised on a site's gateways now, and whether it gets out: asked of all of them at once."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from deploy.asking import at_once
from deploy.remote import RemoteError, connected
from gatehouse.columns import aligned
from gatehouse.errors import GatehouseError
from gatehouse.site import Site
from gatehouse.site.alerts import SERVICE
from roles.alerts.files import BOOK, STATUS

PATIENCE = 10.0  # seconds for all gateways together
STALE = 300  # seconds: it is judged once a minute
_ASK = f"cat {STATUS} && echo && cat {BOOK} && echo && date +%s"


class NoAlerts(GatehouseError):
    """A site without alerts."""


def look(site: Site) -> tuple[list[dict[str, Any]], list[str]]:
    """What is raised, the oldest first, and a line for each gateway or way that is not well. Raises `NoAlerts`."""
    gateways = site.gateways_with(SERVICE)
    if not gateways:
        raise NoAlerts(f"{site.name}: has no alerts (say alerts={{}} in the site, then harden)")
    found, reasons = at_once(gateways, lambda gateway: _of(site, gateway), PATIENCE)
    rows = [row for raised, _ in found.values() for row in raised]
    notes = [f"{reasons[name]}: what is raised there is unknown" for name in gateways if name in reasons]
    notes += [note for _, some in found.values() for note in some]
    return sorted(rows, key=lambda row: (row["since"], row["gateway"], row["alert"], row["about"])), notes


def _of(site: Site, gateway: str) -> tuple[list[dict[str, Any]], list[str]]:
    with connected(site, gateway) as remote:
        answer = remote.run(_ASK)
    try:
        status, book, now = [json.loads(line) for line in answer.splitlines() if line.strip()]
        return read(gateway, status, book, now)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RemoteError(f"{gateway}: its alerts can't be read ({type(error).__name__}: {error})") from None


def read(
    gateway: str, status: dict[str, Any], book: dict[str, Any], now: float
) -> tuple[list[dict[str, Any]], list[str]]:
    """From the two files on a gateway, and its clock (seconds since 1970)."""
    rows = []
    for key, alert in book["raised"].items():
        kind, _, about = key.partition(" ")
        since = datetime.fromtimestamp(alert["since"], UTC).isoformat(timespec="seconds")
        rows.append({"gateway": gateway, "alert": kind, "about": about, "since": since, "text": alert["text"]})
    notes = []
    if (age := now - status["when"]) > STALE:
        notes.append(f"{gateway}: judged last {age / 60:.0f} min ago (journalctl -u gatehouse-alerts says why)")
    for name, way in book["ways"].items():
        if way["failing"]:
            since = datetime.fromtimestamp(way["failing"], UTC)
            notes.append(
                f"{gateway}: {name}: {len(way['waiting'])} wait since {since:%Y-%m-%d %H:%M} UTC: {way['error']}"
            )
    return rows, notes


def table(rows: list[dict[str, Any]]) -> list[str]:
    """For people."""
    if not rows:
        return ["nothing is raised"]
    cells = [[r["gateway"], r["since"].replace("T", " ").removesuffix("+00:00"), r["alert"], r["text"]] for r in rows]
    return aligned([["gateway", "since (UTC)", "alert", "what"], *cells])
