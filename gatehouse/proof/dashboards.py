"""What to ask the dashboards, as whom, and how to read what they say. Grafana HTTP API.

Grafana lets nobody of a name in after five wrong logins within five minutes: each run tries three a name at most,
and one for the administrator.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from gatehouse.proof import defaults
from gatehouse.proof.observation import Observation

Probe = dict[str, Any]
DEFAULTS = defaults.of("grafana")
WRONG = "admin"
"""The password that is tried for the administrator of the site."""
_COOKIE = re.compile(r"(grafana_session=[^;]+)")
# What nobody is told without a login, and how it is asked.
CLOSED = {
    "who am I": {"path": "/api/user"},
    "dashboards": {"path": "/api/search"},
    "a dashboard": {"path": "/api/dashboards/uid/fleet"},
    "data sources": {"path": "/api/datasources"},
    "a page": {"path": "/d/fleet"},
}


def login(name: str, password: str) -> Probe:
    """A login, as the login page makes it."""
    return _posted("/login", {"user": name, "password": password})


def sign_up() -> Probe:
    """What the page for a new account of one's own sends."""
    return _posted("/api/user/signup", {"email": "stranger@example.invalid"})


def query(source: str, texts: Mapping[str, str], engine: str, span: str = "now-15m") -> Probe:
    """Queries through Grafana, by `refId`: the texts as they stand in the dashboards, its own variables and all."""
    common = {"datasource": {"uid": source}, "intervalMs": 60_000, "maxDataPoints": 500}
    common |= {"rawQuery": True, "resultFormat": "time_series"} if engine == "influxdb1" else {}
    queries = [{"refId": name, **common, "query": text} for name, text in texts.items()]
    return _posted("/api/ds/query", {"queries": queries, "from": span, "to": "now"})


def _posted(path: str, content: Mapping[str, Any]) -> Probe:
    headers = {"Content-Type": "application/json"}
    return {"method": "POST", "path": path, "body": json.dumps(content), "headers": headers}


def with_session(probe: Probe, cookie: str) -> Probe:
    """The same in a session."""
    return {**probe, "headers": {**probe.get("headers", {}), "Cookie": cookie}}


def session(seen: Observation) -> str:
    """The cookie of the session that a login began; empty where it was refused."""
    found = _COOKIE.search(str(seen.result.get("cookie", "")))
    return found[1] if found and seen.result.get("status") == 200 else ""


def said(seen: Observation) -> Any:
    """The answer's JSON; None where it is none, or the answer no success."""
    try:
        return json.loads(seen.result["body"]) if seen.result.get("status") == 200 else None
    except (KeyError, ValueError):
        return None


def refused(seen: Observation) -> bool:
    """Whether Grafana answered, and would not: with a status of its own, or by showing the login page."""
    status = seen.result.get("status")
    return status in (401, 403) or (status == 302 and str(seen.result.get("location", "")).startswith("/login"))


def texts(boards: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The query of every panel: `fleet: Last seen`."""
    return {
        f"{board['uid']}: {panel['title']}": target["query"]
        for board in boards
        for panel in board["panels"]
        for target in panel["targets"]
    }


def outcomes(seen: Observation) -> dict[str, str]:
    """Of each query what went wrong; empty for an answer, with data or without."""
    try:
        results: Mapping[str, Mapping[str, Any]] = json.loads(seen.result["body"])["results"]
        return {name: str(result.get("error", "")) for name, result in results.items()}
    except (KeyError, ValueError, AttributeError):
        return {}


def values(seen: Observation, name: str) -> list[Any]:
    """Everything in the data frames of one query, times and all."""
    try:
        frames = json.loads(seen.result["body"])["results"][name]["frames"]
        return [value for frame in frames for column in frame["data"]["values"] for value in column]
    except (KeyError, ValueError, TypeError):
        return []


def newest(seen: Observation, name: str) -> float:
    """The newest time in the data frames of one query, Unix seconds; 0 where there is none."""
    try:
        frames = json.loads(seen.result["body"])["results"][name]["frames"]
        return max((float(t) for frame in frames for t in frame["data"]["values"][0]), default=0.0) / 1000
    except (KeyError, ValueError, TypeError, IndexError):
        return 0.0
