"""A stand-in for InfluxDB 2.x: not the database, but what its maker's documentation of the OSS API v2 says of it.

It has what the kit uses: set-up, sign-in, organisations, users, buckets, authorizations, tasks, write, query, delete. A
query is understood as far as the kit's own go. Tokens are kept hashed and shown once, as 2.9 does. That the real one
behaves so is not proven by it.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import secrets
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

DAY = 86_400


class Refused(Exception):
    """An answer that is no success: status and message."""


class Influx:
    """The state of the database."""

    def __init__(self) -> None:
        self.users: dict[str, dict[str, str]] = {}
        self.passwords: dict[str, str] = {}
        self.sessions: set[str] = set()
        self.orgs: dict[str, str] = {}
        self.buckets: dict[str, dict[str, Any]] = {}
        self.authorizations: dict[str, dict[str, Any]] = {}
        self.tasks: dict[str, dict[str, Any]] = {}
        self.points: list[dict[str, str]] = []
        self._ids = itertools.count(1)

    def new_id(self) -> str:
        """16 hexadecimal digits."""
        return f"{next(self._ids):016x}"

    def add_bucket(self, org: str, name: str, rules: list[dict[str, Any]], kind: str = "user") -> dict[str, Any]:
        """A bucket; names are unique."""
        if any(b["name"] == name for b in self.buckets.values()):
            raise Refused(422, f"bucket with name {name} already exists")
        made = {
            "id": self.new_id(),
            "orgID": org,
            "name": name,
            "type": kind,
            "retentionRules": [_rule(r) for r in rules],
        }
        self.buckets[made["id"]] = made
        return made

    def add_authorization(self, org: str, description: str, permissions: list[dict[str, Any]]) -> dict[str, Any]:
        """An authorization; the token is in what is returned, and nowhere else."""
        token = secrets.token_urlsafe(32)
        made = {
            "id": self.new_id(),
            "orgID": org,
            "status": "active",
            "description": description,
            "permissions": permissions,
        }
        self.authorizations[made["id"]] = {**made, "hash": hashlib.sha512(token.encode()).hexdigest()}
        return {**made, "token": token}

    def authorization(self, token: str) -> dict[str, Any] | None:
        """The active authorization of a token."""
        wanted = hashlib.sha512(token.encode()).hexdigest()
        found = (a for a in self.authorizations.values() if a["hash"] == wanted and a["status"] == "active")
        return next(found, None)


def _last_as_text(points: list[dict[str, str]]) -> str:
    """The last value of each field of each device, as `last() |> toString()` gives them."""
    last: dict[tuple[str, str], tuple[int, str]] = {}
    for point in points:
        _, fields, nanoseconds = point["line"].split(" ")
        for name, _, value in (field.partition("=") for field in fields.split(",")):
            key, moment = (point["device"], name), int(nanoseconds)
            last[key] = max(last.get(key, (0, "")), (moment, value.strip('"').removesuffix("i")))
    rows = []
    for (device, name), (moment, value) in last.items():
        shown = datetime.fromtimestamp(moment / 10**9, UTC).isoformat().replace("+00:00", "Z")
        rows.append(f",_result,0,{shown},{device},{name},{value}")
    return "\r\n".join([",result,table,_time,device,_field,_value", *rows, ""]) if rows else "\r\n"


def _rule(rule: dict[str, Any]) -> dict[str, Any]:
    seconds = rule.get("everySeconds", 0)
    default = 3600 if 0 < seconds <= 2 * DAY else DAY if 0 < seconds <= 180 * DAY else 7 * DAY
    return {
        "type": "expire",
        "everySeconds": seconds,
        "shardGroupDurationSeconds": rule.get("shardGroupDurationSeconds") or default,
    }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    influx: Influx

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PATCH(self) -> None:
        self._answer("PATCH")

    def do_DELETE(self) -> None:
        self._answer("DELETE")

    def _answer(self, method: str) -> None:
        parts = urlsplit(self.path)
        given = {name: values[0] for name, values in parse_qs(parts.query).items()}
        text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.cookie = ""
        try:
            status, body = self._route(method, parts.path.removeprefix("/api/v2"), given, text)
        except Refused as refused:
            status, body = refused.args[0], {"code": "refused", "message": refused.args[1]}
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        if self.cookie:
            self.send_header("Set-Cookie", f"influxdb-oss-session={self.cookie}; Path=/api/; HttpOnly; Secure")
        if status != 204:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if status != 204:
            self.wfile.write(data)

    def _route(self, method: str, path: str, given: dict[str, str], text: bytes) -> tuple[int, Any]:
        if path == "/health":
            return 200, {"status": "pass"}
        if path == "/setup":
            return self._setup(method, text)
        if path == "/signin":
            return self._sign_in()
        who = self._who()
        _, kind, *rest = path.split("/")
        if kind in ("write", "query", "delete"):
            return getattr(self, f"_{kind}")(who, given, text)  # type: ignore[no-any-return]
        if kind == "me":
            return (200, next(iter(self.influx.users.values()))) if who is None else (401, {"message": "unauthorized"})
        body = json.loads(text) if text else {}
        if kind == "users" and rest[1:] == ["password"] and (who is None or self._sees_users(who)):
            self.influx.passwords[self.influx.users[rest[0]]["name"]] = body["password"]
            # Whoever signed in with the former one is out.
            self.influx.sessions.clear()
            return 204, ""
        return self._resource(method, kind, rest[0] if rest else "", given, body, who)

    def _setup(self, method: str, text: bytes) -> tuple[int, Any]:
        if method == "GET":
            return 200, {"allowed": not self.influx.users}
        if self.influx.users:
            raise Refused(422, "onboarding has already been completed")
        asked = json.loads(text)
        user, org = {"id": self.influx.new_id(), "name": asked["username"]}, self.influx.new_id()
        self.influx.users[user["id"]], self.influx.passwords[asked["username"]] = user, asked["password"]
        self.influx.orgs[asked["org"]] = org
        for name, kind in (("_tasks", "system"), ("_monitoring", "system")):
            self.influx.add_bucket(org, name, [{"everySeconds": 3 * DAY}], kind)
        bucket = self.influx.add_bucket(
            org, asked["bucket"], [{"everySeconds": asked.get("retentionPeriodSeconds", 0)}]
        )
        everything = [
            {"action": a, "resource": {"type": t}}
            for a in ("read", "write")
            for t in ("authorizations", "buckets", "users")
        ]
        auth = self.influx.add_authorization(org, f"{asked['username']}'s Token", everything)
        return 201, {"user": user, "org": {"id": org, "name": asked["org"]}, "bucket": bucket, "auth": auth}

    def _sign_in(self) -> tuple[int, Any]:
        user, password = self._basic()
        if not password or self.influx.passwords.get(user) != password:
            raise Refused(401, "unauthorized access")
        self.cookie = secrets.token_urlsafe(32)
        self.influx.sessions.add(self.cookie)
        return 204, ""

    def _basic(self) -> tuple[str, str]:
        scheme, _, both = (self.headers.get("Authorization") or "").partition(" ")
        user, _, password = base64.b64decode(both).decode().partition(":") if scheme == "Basic" else ("", "", "")
        return user, password

    def _who(self) -> dict[str, Any] | None:
        """None for a session, which may do everything; a token's authorization otherwise."""
        session = re.search(r"influxdb-oss-session=([\w-]+)", self.headers.get("Cookie") or "")
        if session and session[1] in self.influx.sessions:
            return None
        scheme, _, token = (self.headers.get("Authorization") or "").partition(" ")
        found = self.influx.authorization(token) if scheme == "Token" else None
        if found is None:
            raise Refused(401, "unauthorized access")
        return found

    def _sees_users(self, who: dict[str, Any] | None) -> bool:
        """Whether others are shown: to a token for users, and to a session while there is such a token."""
        tokens = self.influx.authorizations.values() if who is None else [who]
        return any(p["resource"]["type"] == "users" for token in tokens for p in token["permissions"])

    def _may(self, who: dict[str, Any] | None, action: str, bucket: dict[str, Any]) -> bool:
        return who is None or any(
            p["action"] == action and p["resource"].get("id", bucket["id"]) == bucket["id"] for p in who["permissions"]
        )

    def _bucket(self, name: str) -> dict[str, Any]:
        found = next((b for b in self.influx.buckets.values() if b["name"] == name), None)
        if found is None:
            raise Refused(404, f'bucket "{name}" not found')
        return found

    def _write(self, who: dict[str, Any] | None, given: dict[str, str], text: bytes) -> tuple[int, Any]:
        bucket = self._bucket(given["bucket"])
        if not self._may(who, "write", bucket):
            raise Refused(403, "insufficient permissions for write")
        for line in text.decode().splitlines():
            tags = dict(tag.split("=", 1) for tag in line.split(" ")[0].split(",")[1:])
            self.influx.points.append({"bucket": bucket["name"], "line": line, **tags})
        return 204, ""

    def _query(self, who: dict[str, Any] | None, given: dict[str, str], text: bytes) -> tuple[int, Any]:
        flux = json.loads(text)["query"]
        name = re.search(r'bucket: "([^"]+)"', flux)
        bucket = self._bucket(name[1] if name else "")
        if not self._may(who, "read", bucket):
            raise Refused(404, f'failed to initialize execute state: could not find bucket "{bucket["name"]}"')
        rows = [point for point in self.influx.points if point["bucket"] == bucket["name"]]
        if 'r.kind == "firmware"' in flux:
            return 200, _last_as_text([point for point in rows if point.get("kind") == "firmware"])
        if "unique(" in flux:
            column, values = "device", sorted({point["device"] for point in rows})
        else:
            device = re.search(r'r\.device == "([^"]+)"', flux)
            found = sum(not device or point["device"] == device[1] for point in rows)
            column, values = "_value", [str(found)] if found else []
        if not values:
            return 200, "\r\n"
        head = f",result,table,{column}\r\n"
        return 200, "".join([head, *(f",_result,0,{value}\r\n" for value in values), "\r\n"])

    def _delete(self, who: dict[str, Any] | None, given: dict[str, str], text: bytes) -> tuple[int, Any]:
        bucket, asked = self._bucket(given["bucket"]), json.loads(text)
        device = re.fullmatch(r'device="([^"]+)"', asked["predicate"])
        if not self._may(who, "write", bucket) or device is None:
            raise Refused(403, "insufficient permissions to delete")
        gone = {"bucket": bucket["name"], "device": device[1]}
        self.influx.points = [p for p in self.influx.points if {k: p.get(k) for k in gone} != gone]
        return 204, ""

    def _resource(
        self, method: str, kind: str, name: str, given: dict[str, str], body: dict[str, Any], who: dict[str, Any] | None
    ) -> tuple[int, Any]:
        shelf: dict[str, dict[str, Any]] = getattr(self.influx, kind)
        if kind == "orgs":
            return 200, {
                "orgs": [{"id": i, "name": n} for n, i in self.influx.orgs.items() if n == given.get("org", n)]
            }
        if method == "GET":
            seen = [
                entry
                for entry in shelf.values()
                if who is None or (kind == "buckets" and self._may(who, "read", entry)) or kind == "users"
            ]
            if kind == "users" and not self._sees_users(who):
                seen = seen[:1] if who is None else []
            shown = [{k: v for k, v in entry.items() if k != "hash"} for entry in seen]
            return 200, {kind: [entry for entry in shown if entry.get("name") == given.get("name", entry.get("name"))]}
        if who is not None:
            raise Refused(401, f"{method.lower()}:{kind} is unauthorized")
        if method == "POST" and kind == "buckets":
            return 201, self.influx.add_bucket(body["orgID"], body["name"], body["retentionRules"])
        if method == "POST" and kind == "authorizations":
            return 201, self.influx.add_authorization(body["orgID"], body["description"], body["permissions"])
        if method == "POST" and kind == "tasks":
            title = re.search(r'name: "([^"]+)"', body["flux"])
            made = {"id": self.influx.new_id(), "name": title[1] if title else "", **body}
            shelf[made["id"]] = made
            return 201, made
        if name not in shelf:
            raise Refused(404, f"{kind} not found")
        if method == "PATCH":
            shelf[name]["retentionRules"] = [_rule(rule) for rule in body["retentionRules"]]
            return 200, shelf[name]
        del shelf[name]
        return 204, ""


@contextmanager
def serving(chain: Path | None = None, key: Path | None = None) -> Iterator[tuple[Influx, int]]:
    """The stand-in on a free port of loopback, over TLS with a certificate; its state, and the port."""
    influx = Influx()
    handler = type("Handler", (_Handler,), {"influx": influx})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    if chain and key:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield influx, server.server_port
    finally:
        server.shutdown()
        server.server_close()
