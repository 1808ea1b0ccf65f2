"""STAND-IN: the data source, asked as Grafana asks InfluxDB 1.x, and its answers as data frames."""

from __future__ import annotations

import base64
import http.client
import json
import re
import socket
import ssl
from urllib.parse import urlencode, urlsplit


class Source:
    """One provisioned data source."""

    def __init__(self, entry, expanded):
        self._entry = entry
        self._secrets = {name: expanded(value) for name, value in entry["secureJsonData"].items()}

    def public(self):
        """What the API shows: no secret."""
        return {name: value for name, value in self._entry.items() if name != "secureJsonData"}

    def series(self, query):
        """The series of an InfluxQL query. Raises OSError or ValueError."""
        entry, place = self._entry, urlsplit(self._entry["url"])
        context = ssl.create_default_context(cadata=self._secrets["tlsCACert"])
        connection = http.client.HTTPConnection(place.hostname, place.port, timeout=20)
        plain = socket.create_connection((place.hostname, place.port), 20)
        connection.sock = context.wrap_socket(plain, server_hostname=entry["jsonData"]["serverName"])
        both = f"{entry['basicAuthUser']}:{self._secrets['basicAuthPassword']}"
        fields = {
            "Authorization": "Basic " + base64.b64encode(both.encode()).decode(),
            "Content-Type": "application/x-www-form-urlencoded",
        }
        try:
            asked = urlencode({"q": query, "db": entry["database"], "epoch": "ms"})
            connection.request("POST", "/query", asked, fields)
            said = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        (result,) = said.get("results") or [said]
        if "error" in result:
            raise ValueError(result["error"])
        return result.get("series", [])


def filled(query, span="6h"):
    """The query without Grafana's own variables."""
    known = {"$timeFilter": f"time > now() - {span}", "$__interval": "1m", "$interval": "1m"}
    return re.sub(r"\$[A-Za-z_]+", lambda found: known.get(found[0], found[0]), query)


def answers(sources, given):
    """The answer to POST /api/ds/query."""
    span = str(given.get("from", "now-6h")).removeprefix("now-")
    results = {}
    for query in given["queries"]:
        try:
            series = sources[query["datasource"]["uid"]].series(filled(query["query"], span))
            results[query["refId"]] = {"status": 200, "frames": [_frame(each) for each in series]}
        except (OSError, ValueError, KeyError) as error:
            results[query["refId"]] = {"status": 500, "error": str(error), "frames": []}
    return {"results": results}


def _frame(series):
    columns = list(zip(*series["values"], strict=True))
    fields = [
        {"name": name, "type": "time" if name == "time" else "number", "labels": series.get("tags")}
        for name in series["columns"]
    ]
    return {"schema": {"name": series["name"], "fields": fields}, "data": {"values": [list(c) for c in columns]}}
