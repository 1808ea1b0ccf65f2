"""One request over HTTP or HTTPS. What it asks with (a password, a token) comes with the probe, on standard input."""

from __future__ import annotations

import http.client
from typing import Any

from gatehouse.proof.probes.reach import Probe, Result, patience
from gatehouse.proof.probes.tls import failed, open_session

LARGEST = 16_000_000  # bytes of an answer


def https(probe: Probe) -> Result:
    """Asks `method` (GET) `path` with `headers` and `body`: `answered`, `status` and `body`, or what became of TLS."""
    connection, agreed = open_session(probe)
    if connection is None:
        return agreed
    asking = http.client.HTTPConnection(probe.get("server_name") or probe["address"], probe["port"])
    asking.sock = connection
    return _asked(probe, asking, agreed)


def http_(probe: Probe) -> Result:
    """The same in the clear."""
    asking = http.client.HTTPConnection(probe["address"], probe["port"], timeout=patience(probe, 10))
    return _asked(probe, asking, {})


def _asked(probe: Probe, asking: http.client.HTTPConnection, agreed: dict[str, Any]) -> Result:
    """`headers` have their names in lower case; `cookie` and `location` are what the answer says of them."""
    try:
        body = probe["body"].encode() if "body" in probe else None
        asking.request(probe.get("method", "GET"), probe["path"], body, probe.get("headers", {}))
        answer = asking.getresponse()
        return {
            **agreed,
            "outcome": "answered",
            "status": answer.status,
            "headers": {name.lower(): value for name, value in answer.getheaders()},
            "body": answer.read(LARGEST).decode("utf-8", "replace"),
            "cookie": answer.headers.get("Set-Cookie", ""),
            "location": answer.headers.get("Location", ""),
        }
    except http.client.HTTPException as error:
        return {"outcome": "error", "error": f"no HTTP: {type(error).__name__}"}
    except OSError as error:
        return failed(error)
    finally:
        asking.close()
