"""What there is to know of a site's devices at a glance: a table for people, rows for machines."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gatehouse.columns import aligned
from gatehouse.identity.renewal import is_due
from gatehouse.site import Device

_COLUMNS = {
    "name": "NAME",
    "model": "MODEL",
    "gateway": "GATEWAY",
    "segment": "SEGMENT",
    "status": "STATUS",
    "certificate_age_days": "AGE",
    "certificate_days_left": "LEFT",
    "last_seen": "LAST SEEN",
}
_DAY = datetime.timedelta(days=1)


def rows(
    devices: Iterable[Device], now: datetime.datetime, last_seen: Mapping[str, datetime.datetime] | None = None
) -> list[dict[str, Any]]:
    """A row a device, by name: ages in whole days, moments in ISO 8601, None for what is not known.

    `certificate_days_left` is negative for one that has expired; `certificate_due` says that two thirds of its life
    are over. `last_seen` gives the moments at which devices were last heard of.
    """
    seen = last_seen or {}
    return [
        {
            **{fact: getattr(device, fact) for fact in ("name", "model", "gateway", "segment", "status")},
            **_certificate(device, now),
            "last_seen": seen[device.name].isoformat(timespec="seconds") if device.name in seen else None,
        }
        for device in sorted(devices, key=lambda device: device.name)
    ]


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The rows as lines of text, headed; ages in days, `-` for what is not known, `!` where a renewal is due."""
    gateways = {row["gateway"] for row in rows}
    columns = [column for column in _COLUMNS if column != "gateway" or len(gateways) > 1]
    cells = [[_COLUMNS[column] for column in columns], *([_shown(row, column) for column in columns] for row in rows)]
    return aligned(cells)


def _certificate(device: Device, now: datetime.datetime) -> dict[str, Any]:
    begin, end = device.not_before, device.not_after
    if begin is None or end is None:
        return {"certificate_age_days": None, "certificate_days_left": None, "certificate_due": None}
    return {
        "certificate_age_days": max(0, (now - begin) // _DAY),
        "certificate_days_left": (end - now) // _DAY,
        "certificate_due": is_due(device, now),
    }


def _shown(row: Mapping[str, Any], column: str) -> str:
    value = row[column]
    if value is None:
        return "-"
    if column == "certificate_days_left" and row["certificate_due"]:
        return f"{value} !" if value >= 0 else "expired !"
    return str(value)
