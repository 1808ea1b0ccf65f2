"""What the gateway's own programs tell, as points of InfluxDB's line protocol.

    messages,reason=replay refused=2i         messages that the intake refused since its start
    broker,reason=login refused=3i            connections that the broker refused since the reading before
    firewall,segment=iot,towards=gateway packets=12i      packets that were dropped since the ruleset was loaded
    refused,device=pump-02,why=limit packets=3i           of these, packets of a device, since it was refused first
    certificate,name=mosquitto days=239.5     days until a certificate is no longer valid
    devices,status=revoked count=1i           devices of the registry
    verified right=47i,wrong=1i,hours=3.200   what the nightly verification found, and how long ago

Counters begin anew with what they count in: the dashboards show differences, and none that is negative.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

DAY = 86_400
_REFUSED = re.compile(r'^gatehouse_intake_refused_total\{reason="([a-z-]+)"\} ([0-9]+)$', re.MULTILINE)
_DROPPED = re.compile(r"^(?P<segment>[a-z][a-z0-9]*) (?P<towards>to the gateway|onwards)$")
# The sets in which the firewall counts hardware addresses.
_WHY = {"refused_onwards": "onwards", "refused_here": "gateway", "over_limit": "limit", "forged": "forged"}
_TOWARDS = {"to the gateway": "gateway", "onwards": "onwards"}
# What mosquitto 2.0 logs of clients that it turns away: once each, in its `handle__connect` and at the end of TLS.
_BROKER = {
    "handshake": re.compile(r"Client \S+ (from \S+ failed: |disconnected: Protocol error)"),
    "login": re.compile(r"Client \S+ disconnected, not authorised"),
}
_TIME = "%b %d %H:%M:%S %Y %Z"


def messages(metrics: str) -> list[str]:
    """From the intake's numbers in Prometheus's text format."""
    return [f"messages,reason={reason} refused={number}i" for reason, number in _REFUSED.findall(metrics)]


def broker(lines: Iterable[str]) -> list[str]:
    """From what the broker logged since last time; a reason that did not occur is a zero."""
    found = dict.fromkeys(_BROKER, 0)
    for line in lines:
        for reason, pattern in _BROKER.items():
            if pattern.search(line):
                found[reason] += 1
                break
    return [f"broker,reason={reason} refused={number}i" for reason, number in found.items()]


def firewall(ruleset: str) -> list[str]:
    """From `nft -j list table inet gatehouse`. Raises `ValueError` for anything else."""
    dropped: dict[tuple[str, str], int] = {}
    for entry in json.loads(ruleset)["nftables"]:
        rule: Mapping[str, Any] = entry.get("rule", {})
        place = _place(rule)
        if place:
            packets = sum(e["counter"]["packets"] for e in rule["expr"] if isinstance(e.get("counter"), dict))
            dropped[place] = dropped.get(place, 0) + packets
    return [f"firewall,segment={s},towards={t} packets={number}i" for (s, t), number in sorted(dropped.items())]


def refused(ruleset: str, names: Mapping[str, str]) -> list[str]:
    """From the same: who was refused, and why. `names` are the devices by hardware address; all others are `unknown`.

    Raises `ValueError` for anything else.
    """
    counted: dict[tuple[str, str], int] = {}
    for entry in json.loads(ruleset)["nftables"]:
        why = _WHY.get(entry.get("set", {}).get("name", ""))
        for element in entry["set"].get("elem", ()) if why else ():
            found = element["elem"]
            # Whoever makes up addresses makes no names in the database.
            key = names.get(found["val"], "unknown"), str(why)
            counted[key] = counted.get(key, 0) + found["counter"]["packets"]
    return [f"refused,device={device},why={why} packets={n}i" for (device, why), n in sorted(counted.items())]


def _place(rule: Mapping[str, Any]) -> tuple[str, str] | None:
    """Whose packets a rule drops, and where they wanted to go."""
    if rule.get("chain") == "log_spoofed":
        counts = any("counter" in expression for expression in rule.get("expr", ()))
        return ("any", "forged") if counts else None
    said = str(rule.get("comment", ""))
    if said in ("revoked devices", "quarantined devices"):
        return said.split()[0], "anywhere"
    found = _DROPPED.match(said)
    return (found["segment"], _TOWARDS[found["towards"]]) if found else None


def certificate(name: str, end: str, now: float) -> str:
    """From `openssl x509 -noout -enddate`. Raises `ValueError` for anything else."""
    _, _, moment = end.strip().partition("notAfter=")
    # openssl pads the day with a blank, and knows GMT only.
    left = datetime.strptime(f"{' '.join(moment.split())}+0000", f"{_TIME}%z").timestamp() - now
    return f"certificate,name={name} days={left / DAY:.3f}"


def verified(result: str, now: float) -> str:
    """From what the nightly verification left. Raises `ValueError` or `TypeError` for anything else."""
    found = json.loads(result)
    checks: dict[str, str] = dict(found["checks"])
    wrong = sum(1 for how in checks.values() if how)
    hours = max(0.0, now - found["when"]) / 3600
    return f"verified right={len(checks) - wrong}i,wrong={wrong}i,hours={hours:.3f}"


def devices(counts: Mapping[str, int]) -> list[str]:
    """From the registry: how many devices have each status."""
    return [f"devices,status={status} count={number}i" for status, number in counts.items()]
