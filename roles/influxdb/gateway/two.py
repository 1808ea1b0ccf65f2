"""InfluxDB 2.x: one organisation, one bucket, a token for each consumer, a task that makes the summaries.

InfluxDB OSS API v2: /setup, /signin, /buckets, /users, /authorizations, /tasks, /delete, /query. Tokens are stored
hashed from 2.9 on, so none is ever read back: a consumer whose token is lost gets another. The token of the set-up is
deleted; the administrator signs in with its password for each task.

A token is called `gatehouse CONSUMER GENERATION`: it follows what the vault has for the consumer, so that a rotation
there is one here. Which generation a token in a file is of stands beside it, with its hash.
"""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from common import ADMIN, FIRMWARE, Answer, Http, Settings, Trouble, device, generation, kept
from tokens import Shelf

READY = "/health"
SUMMARIES = "summaries"
LABEL = "gatehouse "
# What influxd adds to a user's name, to call the token that `influxd recovery auth create-operator` makes.
RECOVERY = "'s Recovery Token"
ALWAYS = "range(start: 1677-09-22T00:00:00Z, stop: 2262-04-11T00:00:00Z)"
CONSUMERS = ("intake", "collector", "dashboards")


class Engine:
    """An organisation and its bucket. As `private`, an instance that is not set up yet."""

    def __init__(self, settings: Settings, private: bool = False) -> None:
        self._settings, self._private = settings, private
        self._http = Http(settings, private)
        self._cookie = self._password = ""
        self._shelf = Shelf(settings)

    def awake(self) -> None:
        """Waits until it answers."""
        self._http.awake(READY)

    # accounts and limits

    def administrate(self) -> None:
        """On a private instance: sets it up, and deletes the token that comes with that."""
        here = self._settings
        if not self._http("GET", "/api/v2/setup").json().get("allowed"):
            raise Trouble(f"it is set up, and knows no user {here.administrator} (restore a backup of this site's)")
        given = {
            "username": here.administrator,
            "password": here.password,
            "org": here.database,
            "bucket": here.database,
            "retentionPeriodSeconds": here.retention,
        }
        self._ok(self._http("POST", "/api/v2/setup", json.dumps(given), content_type="application/json"), "set-up")
        for found in self._authorizations():
            self.ask("DELETE", f"/api/v2/authorizations/{found['id']}")

    def readmit(self, operator: str) -> None:
        """On a private instance: gives the administrator the settings' password, and ends the operator's token."""
        here, fields = self._settings, {"authorization": f"Token {operator}", "content_type": "application/json"}
        users = self._ok(self._http("GET", "/api/v2/users", **fields), "its users").json()["users"]
        (identity,) = (user["id"] for user in users if user["name"] == here.administrator)
        password = json.dumps({"password": here.password})
        self._ok(self._http("POST", f"/api/v2/users/{identity}/password", password, **fields), "a password")
        for found in self._authorizations():
            if found.get("description") == f"{here.administrator}{RECOVERY}":
                self.ask("DELETE", f"/api/v2/authorizations/{found['id']}")

    def lets_in(self, user: str, password: str) -> bool:
        """Whether a sign-in works; the session is then used for what follows."""
        both = base64.b64encode(f"{user}:{password}".encode()).decode()
        answer = self._http("POST", "/api/v2/signin", authorization=f"Basic {both}")
        if answer.status == 204:
            self._password = password
            self._cookie = (answer.headers.get("Set-Cookie") or "").partition(";")[0]
        return answer.status == 204

    def differences(self) -> Iterator[str]:
        """What is not as declared, in words; nothing where all is."""
        here = self._settings
        if not self.lets_in(*here.logins(ADMIN)[0]):
            yield "the administrator's login is refused"
            return
        # It shows others only while there is a token that may see them; without one nobody can make any.
        for user in self.ask("GET", "/api/v2/users")["users"]:
            if user["name"] != here.administrator:
                yield f"user {user['name']} is not declared"
        buckets = self._buckets()
        for name, limits in self.limits().items():
            if name not in buckets or _limits(buckets[name]) != limits:
                yield f"the retention of {name} is not as declared"
                return
        if (self._summary_bucket in buckets) != bool(here.summaries) or self._task_flux() != self._wanted_flux():
            yield "the summaries are not as declared"
        authorizations = self._authorizations()
        for consumer in CONSUMERS:
            mine = [a for a in authorizations if a.get("description") == self._label(consumer)]
            if len(mine) != 1 or mine[0]["status"] != "active" or _scope(mine[0]) != self._scope(consumer, buckets):
                yield f"the token of {consumer} has other rights than declared"
            elif not self._works(consumer):
                yield f"the token of {consumer} is not in its file"
        if any(a.get("description") not in self._labels() for a in authorizations):
            yield "there is a token that is not declared"

    def settle(self) -> None:
        """Makes all of it as declared."""
        here = self._settings
        if not self.enters():
            raise Trouble("the administrator's login is refused")
        self._settle_administrator()
        for user in self.ask("GET", "/api/v2/users")["users"]:
            if user["name"] != here.administrator:
                self.ask("DELETE", f"/api/v2/users/{user['id']}")
        self._settle_buckets()
        buckets = self._buckets()
        authorizations = self._authorizations()
        good = set()
        for consumer in CONSUMERS:
            mine = [a for a in authorizations if a.get("description") == self._label(consumer)]
            right = self._scope(consumer, buckets)
            if len(mine) == 1 and mine[0]["status"] == "active" and _scope(mine[0]) == right and self._works(consumer):
                good.add(mine[0]["id"])
            else:
                self._shelf.put(consumer, generation(here.passwords[consumer]), self._new_token(consumer, right))
            beside = self._labels(consumer) - {self._label(consumer)}
            good |= {a["id"] for a in authorizations if a.get("description") in beside}
        # Only when every consumer has its new one are the old ones, and those nobody declared, deleted.
        for found in authorizations:
            if found["id"] not in good:
                self.ask("DELETE", f"/api/v2/authorizations/{found['id']}")

    def _settle_administrator(self) -> None:
        """Gives it the password in use, where it came in with the one before."""
        (name, password), came = self._settings.logins(ADMIN)[0], self._password
        if password != came:
            found = next(user for user in self.ask("GET", "/api/v2/users")["users"] if user["name"] == name)
            self.ask("POST", f"/api/v2/users/{found['id']}/password", {"password": password})
            self._cookie = ""

    def enters(self) -> bool:
        """Whether one of the administrator's passwords works; the session is then used for what follows."""
        return any(self.lets_in(*each) for each in self._settings.logins(ADMIN))

    def takes(self, account: str, value: str) -> bool:
        """Whether a login works: the administrator's, or that of a consumer whose token is of the vault's value."""
        if account == ADMIN:
            user, password = self._settings.administrator, value.rpartition(":")[2]
            return Engine(self._settings).lets_in(user, password)
        token = self._shelf.token(account, generation(value))
        return bool(token) and self._knows(str(token))

    def _label(self, consumer: str) -> str:
        return f"{LABEL}{consumer} {generation(self._settings.passwords[consumer])}"

    def _labels(self, *consumers: str) -> set[str]:
        """What declared tokens are called, those taken beside the ones in use, too."""
        others = self._settings.others
        found = {self._label(consumer) for consumer in consumers or CONSUMERS}
        return found | {f"{LABEL}{c} {generation(v)}" for c in consumers or CONSUMERS for v in others.get(c, ())}

    def _settle_buckets(self) -> None:
        buckets = self._buckets()
        for name, (duration, shard) in self.limits().items():
            rule = {"type": "expire", "everySeconds": duration, "shardGroupDurationSeconds": shard}
            if name not in buckets:
                self.ask(
                    "POST", "/api/v2/buckets", {"orgID": self._organisation(), "name": name, "retentionRules": [rule]}
                )
            elif _limits(buckets[name]) != (duration, shard):
                self.ask("PATCH", f"/api/v2/buckets/{buckets[name]['id']}", {"retentionRules": [rule]})
        if self._task_flux() != self._wanted_flux():
            for task in self._tasks():
                self.ask("DELETE", f"/api/v2/tasks/{task['id']}")
            if flux := self._wanted_flux():
                self.ask("POST", "/api/v2/tasks", {"orgID": self._organisation(), "flux": flux, "status": "active"})
        if not self._settings.summaries and self._summary_bucket in buckets:
            self.ask("DELETE", f"/api/v2/buckets/{buckets[self._summary_bucket]['id']}")

    def _new_token(self, consumer: str, right: set[tuple[str, str]]) -> str:
        organisation = self._organisation()
        permissions = [
            {"action": action, "resource": {"type": "buckets", "id": bucket, "orgID": organisation}}
            for action, bucket in sorted(right)
        ]
        wanted = {"orgID": organisation, "description": self._label(consumer), "permissions": permissions}
        return str(self.ask("POST", "/api/v2/authorizations", wanted)["token"])

    def _works(self, consumer: str) -> bool:
        """Whether the token in a consumer's file is the one in use, and one that the database knows."""
        token = self._shelf.token(consumer, generation(self._settings.passwords[consumer]))
        return token is not None and token == kept(self._settings, consumer) and self._knows(token)

    def _knows(self, token: str) -> bool:
        """Whether the database knows a token: it lists what it may read."""
        return self._http("GET", "/api/v2/buckets", authorization=f"Token {token}").status == 200

    # data

    def erase(self, name: str) -> None:
        """Deletes every point of a device, in all buckets."""
        span = {"start": "1677-09-21T00:12:43.145224194Z", "stop": "2262-04-11T23:47:16.854775806Z"}
        for bucket in self._devices_buckets:
            path = "/api/v2/delete?" + urlencode({"org": self._settings.database, "bucket": bucket})
            self.ask("POST", path, {**span, "predicate": f'device="{device(name)}"'})

    def count(self, name: str) -> int:
        """How many points of a device a query finds, in all buckets."""
        flux = (
            f'from(bucket: "{{bucket}}") |> {ALWAYS}'
            f' |> filter(fn: (r) => r.device == "{device(name)}") |> count()'
            ' |> group(columns: ["_measurement", "device", "kind"]) |> max() |> group() |> sum()'
        )
        return sum(
            int(row["_value"])
            for bucket in self._devices_buckets
            for row in self._query(flux.replace("{bucket}", bucket))
        )

    def devices(self) -> list[str]:
        """The names of all devices that there is anything of. The index itself may hold more: it forgets late."""
        flux = (
            f'from(bucket: "{{bucket}}") |> {ALWAYS} |> last() |> keep(columns: ["device"]) |> group()'
            ' |> unique(column: "device")'
        )
        buckets = self._devices_buckets
        return sorted({row["device"] for bucket in buckets for row in self._query(flux.replace("{bucket}", bucket))})

    def firmware(self) -> dict[str, dict[str, Any]]:
        """What each device has reported last of its firmware; `time` in seconds since 1970."""
        # As texts, for a table has columns of one type; and what a report before the last one said is not of it.
        flux = (
            f'from(bucket: "{self._settings.database}") |> {ALWAYS}'
            ' |> filter(fn: (r) => r._measurement == "telemetry" and r.kind == "firmware")'
            ' |> last() |> toString() |> keep(columns: ["_time", "device", "_field", "_value"]) |> group()'
        )
        found: dict[str, dict[str, Any]] = {}
        for row in sorted(self._query(flux), key=lambda row: datetime.fromisoformat(row["_time"])):
            moment, name, value = datetime.fromisoformat(row["_time"]).timestamp(), row["_field"], row["_value"]
            if found.get(row["device"], {}).get("time") != moment:
                found[row["device"]] = {"time": moment}
            if name in FIRMWARE:
                found[row["device"]][name] = _number(value) if name in ("counter", "failed") else value
        return found

    # questions

    @property
    def _summary_bucket(self) -> str:
        return f"{self._settings.database}-{SUMMARIES}"

    @property
    def _numbers_bucket(self) -> str:
        return self._settings.numbers

    @property
    def _devices_buckets(self) -> list[str]:
        return [bucket for bucket in self.limits() if bucket != self._numbers_bucket]

    def limits(self) -> dict[str, tuple[int, int]]:
        """The declared buckets: retention and shard group duration in seconds."""
        both = self._settings.database, self._numbers_bucket
        found = dict.fromkeys(both, (self._settings.retention, self._settings.shard))
        if self._settings.summaries:
            found[self._summary_bucket] = (self._settings.summaries["retention"], self._settings.summaries["shard"])
        return found

    def _wanted_flux(self) -> str:
        """The task that makes the summaries."""
        if not self._settings.summaries:
            return ""
        every = self._settings.summaries["every"]
        return (
            f'import "types"\noption task = {{name: "{SUMMARIES}", every: {every}}}\n'
            f'from(bucket: "{self._settings.database}")\n    |> range(start: -task.every)\n'
            "    |> filter(fn: (r) => types.isNumeric(v: r._value))\n"
            f"    |> aggregateWindow(every: {every}, fn: mean, createEmpty: false)\n"
            f'    |> to(bucket: "{self._summary_bucket}")\n'
        )

    def _scope(self, consumer: str, buckets: dict[str, dict[str, Any]]) -> set[tuple[str, str]]:
        """What a consumer's token may do: two write to a bucket each, the dashboards read what there is."""
        into = {"intake": self._settings.database, "collector": self._numbers_bucket}.get(consumer)
        if into:
            return {("write", buckets[into]["id"])}
        return {("read", buckets[name]["id"]) for name in self.limits()}

    def _organisation(self) -> str:
        found = self.ask("GET", "/api/v2/orgs?" + urlencode({"org": self._settings.database}))["orgs"]
        return str(found[0]["id"])

    def _buckets(self) -> dict[str, dict[str, Any]]:
        found = self.ask("GET", "/api/v2/buckets?" + urlencode({"org": self._settings.database, "limit": 100}))
        return {bucket["name"]: bucket for bucket in found["buckets"]}

    def _authorizations(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask("GET", "/api/v2/authorizations")["authorizations"]
        return found

    def _tasks(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask("GET", "/api/v2/tasks?" + urlencode({"name": SUMMARIES}))["tasks"]
        return found

    def _task_flux(self) -> str:
        tasks = [task for task in self._tasks() if task["status"] == "active"]
        return str(tasks[0]["flux"]) if tasks else ""

    def _query(self, flux: str) -> list[dict[str, str]]:
        path = "/api/v2/query?" + urlencode({"org": self._settings.database})
        body = {"query": flux, "dialect": {"annotations": [], "header": True}}
        answer = self._request("POST", path, body)
        lines = self._ok(answer, "a query").body.decode().replace("\r\n", "\n")
        return list(csv.DictReader(io.StringIO(lines.strip())))

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """A request as the administrator; signs in when there is no session yet. Raises `Trouble`."""
        return self._ok(self._request(method, path, body), f"{method} {path.partition('?')[0]}").json()

    def _request(self, method: str, path: str, body: Any) -> Answer:
        if not self._cookie and not self.enters():
            raise Trouble("the administrator's login is refused")
        fields = {"cookie": self._cookie, "content_type": "application/json"}
        return self._http(method, path, json.dumps(body) if body is not None else b"", **fields)

    def _ok(self, answer: Answer, what: str) -> Answer:
        if answer.status >= 300:
            raise Trouble(f"the database refuses {what}: {answer.status} {answer.json().get('message', '')}".strip())
        return answer


def _number(text: str) -> float | str:
    """What a text says, or the text where that is no number."""
    try:
        return float(text)
    except ValueError:
        return text


def _limits(bucket: dict[str, Any]) -> tuple[int, int]:
    """Retention and shard group duration of a bucket, in seconds; 0 is for ever."""
    rules = bucket.get("retentionRules") or [{}]
    return rules[0].get("everySeconds", 0), rules[0].get("shardGroupDurationSeconds", 0)


def _scope(authorization: dict[str, Any]) -> set[tuple[str, str]]:
    """What a token may do, by bucket; `*` for anything beyond one bucket."""
    return {
        (p["action"], p["resource"].get("id", "*") if p["resource"]["type"] == "buckets" else "*")
        for p in authorization["permissions"]
    }
