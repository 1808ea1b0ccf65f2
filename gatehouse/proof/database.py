"""What to ask the database, as whom, and how to read what it says: the same questions for both engines.

InfluxQL 1.6 and the InfluxDB OSS API v2. Nothing is written: an empty write is judged by its right, and stores nothing.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import quote, urlencode

from gatehouse.proof import defaults
from gatehouse.proof.observation import Observation

Probe = dict[str, Any]
Verdict = Literal["allowed", "refused", "no answer"]
INTAKE, DASHBOARDS = "intake", "dashboards"
EMPTY = (("admin", ""), ("root", ""), ("gatehouse-admin", ""), (INTAKE, ""), (DASHBOARDS, ""), ("", ""))
WRONG = ((INTAKE, "not-its-password"), (DASHBOARDS, "not-its-password"), ("gatehouse-admin", "gatehouse-admin"))
CASES = {"default": defaults.of("influxdb"), "empty": EMPTY, "wrong": WRONG}


def questions(engine: str, name: str, server: Mapping[str, Any], credentials: Mapping[str, str]) -> list[Probe]:
    """The probes: `login:none …`, `login:CASE …`, and for each consumer what it may and what it may not.

    `server` has `address`, `port`, `ca` and `server_name`; `credentials` are the consumers' passwords or tokens.
    """
    asking = _One(name) if engine == "influxdb1" else _Two(name)
    found = [
        {"id": "login:none read", **asking.read(), "headers": {}},
        {"id": "login:none write", **asking.write(), "headers": {}},
        {"id": "login:none accounts", **asking.accounts(), "headers": {}},
    ]
    for case, logins in CASES.items():
        found += [{"id": f"login:{case} {number}", **asking.login(*each)} for number, each in enumerate(logins)]
    for consumer, secret in credentials.items():
        headers = shows(engine, consumer, secret)
        for what in ("read", "write", "accounts", "limits"):
            found.append({"id": f"{consumer}:{what}", "headers": headers, **getattr(asking, what)()})
    return [{"kind": "https", **server, "timeout": 30, **probe} for probe in found]


def verdict(seen: Observation) -> Verdict:
    """Whether a request was granted."""
    status = seen.result.get("status")
    if seen.outcome != "answered" or not isinstance(status, int) or status >= 500:
        return "no answer"
    try:
        said = json.loads(seen.result["body"] or "{}")
    except ValueError:
        said = {}
    wrong = " ".join(str(r.get("error", "")) for r in said.get("results", ())) if isinstance(said, dict) else ""
    if status in (401, 403) or "authoriz" in wrong or "privilege" in wrong:
        return "refused"
    if seen.probe["path"].startswith("/api/"):
        return _granted_by_two(status, said)
    return "allowed" if status < 300 and not wrong else "no answer"


def _granted_by_two(status: int, said: Mapping[str, Any]) -> Verdict:
    """2.x lists only what a token may see, and finds no bucket that it may not read."""
    if status == 404:
        return "refused"
    if status < 300 and "users" in said:
        return "allowed" if said["users"] else "refused"
    return "allowed" if status < 300 else "no answer"


def limits(engine: str, seen: Observation) -> dict[str, int] | None:
    """For how many seconds what is stored is kept, by retention policy or bucket; 0 is for ever. None for no answer."""
    try:
        said = json.loads(seen.result["body"])
        if engine == "influxdb1":
            (series,) = said["results"][0]["series"]
            return {row[0]: _seconds(row[1]) for row in series["values"]}
        own = [bucket for bucket in said["buckets"] if bucket.get("type") != "system"]
        return {b["name"]: sum(r["everySeconds"] for r in b["retentionRules"]) for b in own}
    except (KeyError, IndexError, TypeError, ValueError):
        return None


def _seconds(duration: str) -> int:
    """`720h0m0s`."""
    hours, _, rest = duration.rpartition("h")
    minutes, _, seconds = rest.rpartition("m")
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + int(seconds.rstrip("s") or 0)


def shows(engine: str, consumer: str, secret: str) -> dict[str, str]:
    """The headers with which a consumer shows what is in its file: password or `USER:PASSWORD` (1.x), token (2.x)."""
    if engine == "influxdb1":
        user, _, password = secret.rpartition(":")
        return _basic(user or consumer, password)
    return {"Authorization": f"Token {secret}", "Content-Type": "application/json"}


def _basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


class _One:
    """InfluxDB 1.x."""

    def __init__(self, name: str) -> None:
        self._name = name

    def _query(self, query: str) -> Probe:
        return {"path": "/query?" + urlencode({"db": self._name, "q": query})}

    def read(self) -> Probe:
        return self._query("SELECT * FROM telemetry LIMIT 1")

    def write(self) -> Probe:
        return {"method": "POST", "path": "/write?" + urlencode({"db": self._name}), "body": ""}

    def accounts(self) -> Probe:
        return self._query("SHOW USERS")

    def limits(self) -> Probe:
        return self._query(f'SHOW RETENTION POLICIES ON "{self._name}"')

    def login(self, user: str, password: str) -> Probe:
        return {**self._query("SHOW DATABASES"), "headers": _basic(user, password)}


class _Two:
    """InfluxDB 2.x."""

    def __init__(self, name: str) -> None:
        self._name = name

    def read(self) -> Probe:
        flux = f'from(bucket: "{self._name}") |> range(start: -1m) |> limit(n: 1)'
        body = json.dumps({"query": flux})
        return {"method": "POST", "path": "/api/v2/query?" + urlencode({"org": self._name}), "body": body}

    def write(self) -> Probe:
        where = urlencode({"org": self._name, "bucket": self._name}, quote_via=quote)
        return {"method": "POST", "path": f"/api/v2/write?{where}", "body": ""}

    def accounts(self) -> Probe:
        return {"path": "/api/v2/users"}

    def limits(self) -> Probe:
        return {"path": "/api/v2/buckets?limit=100"}

    def login(self, user: str, password: str) -> Probe:
        return {"method": "POST", "path": "/api/v2/signin", "headers": _basic(user, password)}
