"""InfluxDB 1.x: users with a right each, retention policies, a continuous query that makes the summaries.

InfluxQL 1.6, "Authentication and authorization", "Database management", "Continuous queries".
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from common import ADMIN, FIRMWARE, Answer, Http, Settings, Trouble, device, keep, kept, login

CONSUMERS = ("intake", "collector", "dashboards")
MESSAGES, SUMMARIES = "messages", "summaries"
READY = "/ping"


class Engine:
    """A database and its users. As `private`, an instance without logins."""

    def __init__(self, settings: Settings, private: bool = False) -> None:
        self._settings, self._private = settings, private
        self._http = Http(settings, private)
        self._as = settings.logins(ADMIN)[0]

    def awake(self) -> None:
        """Waits until it answers."""
        self._http.awake(READY)

    # accounts and limits

    def differences(self) -> Iterator[str]:
        """What is not as declared, in words; nothing where all is."""
        here, name = self._settings, self._settings.database
        if not all(self.lets_in(*each) for each in here.logins(ADMIN)):
            yield "the administrator's login is refused"
            return
        wanted = self.wanted_users()
        users = dict(self.rows("SHOW USERS"))
        for user in sorted(users.keys() | wanted.keys()):
            if users.get(user) != wanted.get(user):
                yield f"user {user} is not as declared"
        for database in (name, here.numbers):
            if [database] not in self.rows("SHOW DATABASES"):
                yield f"there is no database {database}"
                return
            found = self.policies(database)
            if any(found.get(policy) != limits for policy, limits in self.limits(database).items()):
                yield "the retention is not as declared"
        policies = self.policies(name)
        if SUMMARIES in policies and not here.summaries or self.summarising() != self.wanted_summaries():
            yield "the summaries are not as declared"
        for consumer in CONSUMERS:
            for user, password in here.logins(consumer):
                if user in users and self.grants(user) != self.rights(consumer):
                    yield f"user {user} has other rights than declared"
                if not self.lets_in(user, password):
                    yield f"the login of {user} is refused"
            if kept(here, consumer) != here.passwords[consumer]:
                yield f"the credential of {consumer} is not in its file"

    def settle(self) -> None:
        """Makes all of it as declared."""
        here, name = self._settings, self._settings.database
        if not self.enters():
            raise Trouble("the administrator's login is refused")
        wanted = self.wanted_users()
        for user, administers in self.rows("SHOW USERS"):
            if administers != wanted.get(user, administers):
                self.ask(f'DROP USER "{user}"')
        self._settle_administrators()
        for database in (name, here.numbers):
            self._settle_database(database)
        policies = self.policies(name)
        if self.summarising() != self.wanted_summaries():
            self.ask(f'DROP CONTINUOUS QUERY "{SUMMARIES}" ON "{name}"')
            if wanted_query := self.wanted_summaries():
                self.ask(wanted_query)
        if SUMMARIES in policies and not here.summaries:
            self.ask(f'DROP RETENTION POLICY "{SUMMARIES}" ON "{name}"')
        users = dict(self.rows("SHOW USERS"))
        for consumer in CONSUMERS:
            for user, password in here.logins(consumer):
                if user not in users:
                    self.ask(f"CREATE USER \"{user}\" WITH PASSWORD '{password}'")
                elif not self.lets_in(user, password):
                    self.ask(f"SET PASSWORD FOR \"{user}\" = '{password}'")
                if self.grants(user) != self.rights(consumer):
                    self.ask(f'REVOKE ALL PRIVILEGES FROM "{user}"')
                    for database, _ in self.grants(user):
                        self.ask(f'REVOKE ALL ON "{database}" FROM "{user}"')
                    for database, right in sorted(self.rights(consumer)):
                        self.ask(f'GRANT {right} ON "{database}" TO "{user}"')
            if kept(here, consumer) != here.passwords[consumer]:
                keep(here, consumer, here.passwords[consumer])
        # Only when every consumer has its new login is a former one, and one that nobody declared, taken away.
        for user in users.keys() - wanted.keys():
            self.ask(f'DROP USER "{user}"')

    def _settle_administrators(self) -> None:
        users = dict(self.rows("SHOW USERS"))
        logins = self._settings.logins(ADMIN)
        for user, password in logins:
            if user not in users:
                self.ask(f"CREATE USER \"{user}\" WITH PASSWORD '{password}' WITH ALL PRIVILEGES")
            elif not self.lets_in(user, password):
                self.ask(f"SET PASSWORD FOR \"{user}\" = '{password}'")
        self._as = logins[0]

    def wanted_users(self) -> dict[str, bool]:
        """The declared users, and whether each is an administrator."""
        return {user: who == ADMIN for who in (ADMIN, *CONSUMERS) for user, _ in self._settings.logins(who)}

    def enters(self) -> bool:
        """Whether one of the administrator's logins works; what follows uses it."""
        self._as = next((each for each in self._settings.logins(ADMIN) if self.lets_in(*each)), self._as)
        return self.lets_in(*self._as)

    def takes(self, account: str, value: str) -> bool:
        """Whether a login works: the administrator's, or a consumer's."""
        return self.lets_in(*login(account, value))

    def _settle_database(self, name: str) -> None:
        limits = self.limits(name)
        long, portion, _ = limits[MESSAGES]
        if [name] not in self.rows("SHOW DATABASES"):
            self.ask(f'CREATE DATABASE "{name}" WITH DURATION {long}s SHARD DURATION {portion}s NAME "{MESSAGES}"')
        policies = self.policies(name)
        for policy, (duration, shard, default) in limits.items():
            if policies.get(policy) != (duration, shard, default):
                verb = "ALTER" if policy in policies else "CREATE"
                self.ask(
                    f'{verb} RETENTION POLICY "{policy}" ON "{name}" DURATION {duration}s REPLICATION 1'
                    f" SHARD DURATION {shard}s{' DEFAULT' * default}"
                )

    def administrate(self) -> None:
        """On a private instance: makes the administrator, or gives it the password of the settings."""
        here = self._settings
        users = dict(self.rows("SHOW USERS"))
        if here.administrator in users:
            self.ask(f"SET PASSWORD FOR \"{here.administrator}\" = '{here.password}'")
            self.ask(f'GRANT ALL PRIVILEGES TO "{here.administrator}"')
        else:
            self.ask(f"CREATE USER \"{here.administrator}\" WITH PASSWORD '{here.password}' WITH ALL PRIVILEGES")

    # data

    def erase(self, name: str) -> None:
        """Deletes every point of a device, and its entry in the index, in all retention policies."""
        self.ask(f"DROP SERIES WHERE \"device\" = '{device(name)}'")

    def count(self, name: str) -> int:
        """How many points of a device a query finds, in all retention policies."""
        found = 0
        for policy in self.policies(self._settings.database):
            query = f'SELECT count(*) FROM "{policy}"./.*/ WHERE "device" = \'{device(name)}\' GROUP BY "device"'
            for series in self.series(query):
                found += max((int(v) for v in series["values"][0][1:] if v is not None), default=0)
        return found

    def devices(self) -> list[str]:
        """The names of all devices that there is anything of."""
        return sorted({row[1] for row in self.rows('SHOW TAG VALUES WITH KEY = "device"')})

    def firmware(self) -> dict[str, dict[str, Any]]:
        """What each device has reported last of its firmware; `time` in seconds since 1970."""
        fields = ", ".join(f'"{name}"' for name in FIRMWARE)
        query = f'SELECT {fields} FROM "{MESSAGES}"."telemetry" WHERE "kind" = \'firmware\' GROUP BY "device"'
        found: dict[str, dict[str, Any]] = {}
        for series in self.series(f"{query} ORDER BY time DESC LIMIT 1"):
            moment, *values = series["values"][0]
            said = {name: value for name, value in zip(FIRMWARE, values, strict=True) if value is not None}
            found[series["tags"]["device"]] = {"time": datetime.fromisoformat(moment).timestamp(), **said}
        return found

    # questions

    def rights(self, consumer: str) -> set[tuple[str, str]]:
        """What a consumer shall be able to do."""
        both = self._settings.database, self._settings.numbers
        return {
            "intake": {(both[0], "WRITE")},
            "collector": {(both[1], "WRITE")},
            "dashboards": {(database, "READ") for database in both},
        }[consumer]

    def limits(self, database: str) -> dict[str, tuple[int, int, bool]]:
        """The declared retention policies: duration and shard duration in seconds, whether writes go there."""
        found = {MESSAGES: (self._settings.retention, self._settings.shard, True)}
        if self._settings.summaries and database == self._settings.database:
            found[SUMMARIES] = (self._settings.summaries["retention"], self._settings.summaries["shard"], False)
        return found

    def policies(self, database: str) -> dict[str, tuple[int, int, bool]]:
        """The retention policies that there are."""
        rows = self.rows(f'SHOW RETENTION POLICIES ON "{database}"')
        return {name: (_seconds(long), _seconds(shard), default) for name, long, shard, _, default in rows}

    def grants(self, user: str) -> set[tuple[str, str]]:
        """What a user may do: `{("telemetry", "WRITE")}`."""
        rows = self.rows(f'SHOW GRANTS FOR "{user}"')
        return {(database, right.split()[0]) for database, right in rows if right != "NO PRIVILEGES"}

    def summarising(self) -> str:
        """The continuous query that makes the summaries, without quotes; empty where there is none."""
        found = [
            row[1]
            for series in self.series("SHOW CONTINUOUS QUERIES")
            if series.get("name") == self._settings.database
            for row in series.get("values", [])
            if row[0] == SUMMARIES
        ]
        return str(found[0]).replace('"', "") if found else ""

    def wanted_summaries(self) -> str:
        """The declared one."""
        name = self._settings.database
        if not self._settings.summaries:
            return ""
        return (
            f"CREATE CONTINUOUS QUERY {SUMMARIES} ON {name} BEGIN SELECT mean(*) INTO {name}.{SUMMARIES}.:MEASUREMENT"
            f" FROM {name}.{MESSAGES}./.*/ GROUP BY time({self._settings.summaries['every']}), * END"
        )

    def lets_in(self, user: str, password: str) -> bool:
        """Whether a login works."""
        return self._post("SHOW DATABASES", user, password).status == 200

    def rows(self, query: str) -> list[Any]:
        """The rows of a query, whatever series they are in."""
        return [row for series in self.series(query) for row in series.get("values", [])]

    def series(self, query: str) -> list[dict[str, Any]]:
        """The series that a query returns."""
        return [series for result in self.ask(query) for series in result.get("series", [])]

    def ask(self, query: str) -> list[dict[str, Any]]:
        """The results of a query as the administrator. Raises `Trouble`; queries can hold passwords, so not with it."""
        answer = self._post(query, *self._as)
        said = answer.json()
        results: list[dict[str, Any]] = said.get("results", [])
        wrong = said.get("error") or next((r["error"] for r in results if "error" in r), "")
        if answer.status != 200 or wrong:
            verb = " ".join(query.split()[:2])
            raise Trouble(f"the database refuses {verb}: {answer.status} {wrong}".strip())
        return results

    def _post(self, query: str, user: str, password: str) -> Answer:
        fields = {"content_type": "application/x-www-form-urlencoded"}
        if not self._private:
            both = base64.b64encode(f"{user}:{password}".encode()).decode()
            fields["authorization"] = f"Basic {both}"
        path = "/query?" + urlencode({"db": self._settings.database})
        return self._http("POST", path, urlencode({"q": query}), **fields)


def _seconds(duration: str) -> int:
    """`720h0m0s` in seconds; 0 is for ever."""
    units = {"h": 3600, "m": 60, "s": 1}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([hms])", duration))
