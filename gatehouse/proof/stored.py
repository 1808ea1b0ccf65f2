"""Asks the gateway's database what it has stored, as whoever reads for the dashboards."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

from gatehouse.proof.database import DASHBOARDS, Probe, shows


def question(
    engine: str, name: str, server: Mapping[str, Any], secret: str, device: str, field: str, minutes: int
) -> Probe:
    """A probe of kind `https` for a field of a device's messages of the last minutes; `answer` reads what it gets.

    `name` and `server` are as for `database.questions`; `secret` is the dashboards' password (1.x) or token (2.x).
    """
    common = {"kind": "https", **server, "timeout": 20}
    headers = shows(engine, DASHBOARDS, secret)
    if engine == "influxdb1":
        asked = f"SELECT \"{field}\", kind FROM telemetry WHERE device = '{device}' AND time > now() - {minutes}m"  # noqa: S608
        path = "/query?" + urlencode({"db": name, "epoch": "ns", "q": asked})
        return {**common, "path": path, "headers": headers}
    flux = (
        f'from(bucket: "{name}") |> range(start: -{minutes}m)'
        f' |> filter(fn: (r) => r._measurement == "telemetry" and r.device == "{device}" and r._field == "{field}")'
    )
    headers |= {"Content-Type": "application/vnd.flux", "Accept": "application/csv"}
    path = "/api/v2/query?" + urlencode({"org": name}, quote_via=quote)
    return {**common, "method": "POST", "path": path, "headers": headers, "body": flux}


def answer(engine: str, result: Mapping[str, Any]) -> list[str] | None:
    """The values as text, one a point, oldest first; None where the database did not answer the question."""
    if result.get("outcome") != "answered" or result.get("status") != 200:
        return None
    try:
        if engine == "influxdb1":
            series = json.loads(result["body"])["results"][0].get("series", [])
            return [str(row[1]) for each in series for row in each["values"]]
        lines = [line for line in result["body"].splitlines() if line and not line.startswith("#")]
        return [str(row["_value"]) for row in csv.DictReader(lines) if row.get("_value") not in (None, "_value")]
    except (ValueError, LookupError, TypeError):
        return None
