"""What the gateway's own programs tell, as points of InfluxDB's line protocol.

    messages,reason=replay refused=2i         messages that the intake refused since its start
    broker,reason=login refused=3i            connections that the broker refused since the reading before
    firewall,segment=iot,towards=gateway packets=12i      packets that were dropped since the ruleset was loaded
    refused,device=pump-02,why=limit packets=3i           of these, packets of a device, since it was refused first
    certificate,name=mosquitto days=239.5     days until a certificate is no longer valid
    devices,status=revoked count=1i           devices of the registry
    verified right=47i,wrong=1i,hours=3.200   what the nightly verification found, and how long ago
    disk,folder=/ free=63.2                   percent of a file system that are free
    unit,name=ssh.service failed=0i,restarts=0i           whether a unit has failed, and how often it was started again
    alerts raised=1i,waiting=0i,failing=0i    alerts that last, messages that nobody has taken, ways that take none
    rejected,device=pump-02 messages=3i       messages of a device that the intake refused since its start
    sent,device=pump-02 messages=3i,bytes=96i  all messages of a device since the intake's start
    intake connected=1i,sessions=1i,failures=0i   whether the intake listens; its sessions at the broker, and what the
                                              database did not take, since its start
    connects,client=pump-02,address=10.0.0.9 count=1i     connections of a client to the broker since the reading before
    takeovers,client=pump-02 count=1i         sessions that were taken over by another of the same name since then

The last five are for the gateway's alerts, the database is not told. What is `unknown` among `refused` are hardware
addresses of no device in segments that hold devices, what is `elsewhere` those in others.
Counters begin anew with what they count in: the dashboards show differences, and none that is negative.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any

DAY = 86_400
NOT_STORED = ("rejected,", "sent,", "intake ", "connects,", "takeovers,")
"""How what the database is not told begins."""
MOST_CLIENTS = 1000
MOST_ADDRESSES = 8
"""Clients of the broker's, and addresses of each, that are counted one by one: those that connected last."""
_REJECTED = re.compile(r'^gatehouse_intake_rejected_total\{device="([a-z0-9-]+)"\} ([0-9]+)$', re.MULTILINE)
_SENT = re.compile(r'^gatehouse_intake_device_(messages|bytes)_total\{device="([a-z0-9-]+)"\} ([0-9]+)$', re.MULTILINE)
_LISTENS = re.compile(r"^gatehouse_intake_(connected|connections_total|write_failures_total) ([0-9]+)$", re.MULTILINE)
_CAME = re.compile(r"New client connected from ([0-9a-f.:]+):\d+ as ([a-z0-9-]+) \(")
_TAKEN = re.compile(r"Client ([a-z0-9-]+) already connected, closing old connection")
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


def rejected(metrics: str) -> list[str]:
    """From the same: whose messages these were."""
    return [f"rejected,device={device} messages={number}i" for device, number in _REJECTED.findall(metrics)]


def sent(metrics: str) -> list[str]:
    """From the same: how much each device sent."""
    found: dict[str, dict[str, str]] = {}
    for what, device, number in _SENT.findall(metrics):
        found.setdefault(device, {})[what] = number
    return [
        f"sent,device={name} messages={n['messages']}i,bytes={n['bytes']}i" for name, n in found.items() if len(n) == 2
    ]


def listens(metrics: str) -> list[str]:
    """From the same: whether it listens, and what changes whenever it, the broker or the database was away."""
    found = dict(_LISTENS.findall(metrics))
    if len(found) < 3:
        return []
    sessions, failures = found["connections_total"], found["write_failures_total"]
    return [f"intake connected={found['connected']}i,sessions={sessions}i,failures={failures}i"]


def sessions(lines: Iterable[str]) -> list[str]:
    """From what the broker logged since last time: who connected from where, and whose session was taken over."""
    connects, takeovers = Counter[tuple[str, str]](), Counter[str]()
    for line in lines:
        if match := _CAME.search(line):
            connects[match[2], match[1]] += 1
        elif match := _TAKEN.search(line):
            takeovers[match[1]] += 1
    return [
        *(f"connects,client={name},address={address} count={n}i" for (name, address), n in connects.items()),
        *(f"takeovers,client={name} count={n}i" for name, n in takeovers.items()),
    ]


def known_sessions(points: Iterable[str], before: Mapping[str, Any]) -> dict[str, Any]:
    """The same since the gateway's start, `{CLIENT: {"taken": 2, "from": {ADDRESS: 3}}}`; `before` is last time's.

    Raises `KeyError`, `TypeError` or `AttributeError` where that is none.
    """
    found: dict[str, dict[str, Any]] = {
        name: {"taken": int(each["taken"]), "from": dict(each["from"])} for name, each in before.items()
    }
    for line in points:
        match = re.fullmatch(r"(?:connects|takeovers),client=([^,]+)(?:,address=(\S+))? count=([0-9]+)i", line)
        if match:
            name, address, number = match[1], match[2], int(match[3])
            # At the end: those that connected last stay.
            client = found[name] = found.pop(name, {"taken": 0, "from": {}})
            if address:
                client["from"][address] = client["from"].pop(address, 0) + number
                client["from"] = dict(list(client["from"].items())[-MOST_ADDRESSES:])
            else:
                client["taken"] += number
    return dict(list(found.items())[-MOST_CLIENTS:])


def refused_by_broker(points: Iterable[str], before: Mapping[str, int]) -> dict[str, int]:
    """How many connections the broker refused since the gateway's start, by reason; `before` is that of last time."""
    found = {}
    for line in points:
        if match := re.fullmatch(r"broker,reason=([a-z]+) refused=([0-9]+)i", line):
            found[match[1]] = before.get(match[1], 0) + int(match[2])
    return found or dict(before)


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


def refused(ruleset: str, names: Mapping[str, str], bridges: Collection[str]) -> list[str]:
    """From the same: who was refused, and why. `names` are the devices by hardware address; all others are `unknown` on
    these bridges, and `elsewhere` on others.

    Raises `ValueError` for anything else.
    """
    counted: dict[tuple[str, str], int] = {}
    for entry in json.loads(ruleset)["nftables"]:
        why = _WHY.get(entry.get("set", {}).get("name", ""))
        for element in entry["set"].get("elem", ()) if why else ():
            found = element["elem"]
            address, bridge = found["val"]["concat"]
            # Whoever makes up addresses makes no names in the database.
            key = names.get(address, "unknown" if bridge in bridges else "elsewhere"), str(why)
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


def certificate(name: str, dates: str, now: float) -> str:
    """From `openssl x509 -noout -dates`; the begin may be missing. Raises `ValueError` for anything else."""
    begin, _, end = dates.strip().rpartition("notAfter=")
    left = _moment(end) - now
    life = f",life={(_moment(end) - _moment(begin.strip().removeprefix('notBefore='))) / DAY:.3f}" if begin else ""
    return f"certificate,name={name} days={left / DAY:.3f}{life}"


def _moment(text: str) -> float:
    # openssl pads the day with a blank, and knows GMT only.
    return datetime.strptime(f"{' '.join(text.split())}+0000", f"{_TIME}%z").timestamp()


def disks(usage: Mapping[str, tuple[int, int]]) -> list[str]:
    """From the bytes of file systems by folder, all of them and those that are free."""
    return [f"disk,folder={folder} free={100 * free / total:.1f}" for folder, (total, free) in usage.items() if total]


def units(shown: str) -> list[str]:
    """From `systemctl show -p Id,ActiveState,NRestarts UNIT…`: a paragraph each; only services are started again."""
    found = []
    for paragraph in shown.strip().split("\n\n"):
        state = dict(line.split("=", 1) for line in paragraph.splitlines() if "=" in line)
        if name := state.get("Id"):
            failed, restarts = int(state.get("ActiveState") == "failed"), int(state.get("NRestarts") or 0)
            found.append(f"unit,name={name} failed={failed}i,restarts={restarts}i")
    return found


def alerts(status: str) -> str:
    """From what the alerts' program left. Raises `ValueError`, `KeyError` or `TypeError` for anything else."""
    found = json.loads(status)
    return "alerts " + ",".join(f"{name}={int(found[name])}i" for name in ("raised", "waiting", "failing"))


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
