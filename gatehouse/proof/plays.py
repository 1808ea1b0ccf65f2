"""What probes play to a broker: who gets in, and what each may do. Plain data for `probes.mqtt`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from gatehouse.identity.renewal import certificate_topic, request_topic
from gatehouse.proof import defaults
from gatehouse.proof.credentials import CUT_OFF, OBSERVER, OTHER_PROBE, PROBE, Shown

Probe = dict[str, Any]
Step = dict[str, Any]
Report = tuple[str, bytes]
"""A topic, and what is published there."""

REFUSED = ("none", "expired", "foreign", "revoked", "server")
NOT_LET_IN = ("wrong-password", "empty-password", "no-password", "no-name", "another-name")
VERSIONS = ("1.0", "1.1", "1.2", "1.3")
SUITES_NOT_WANTED = "ALL:!AESGCM:!CHACHA20:!AESCCM:@SECLEVEL=0"  # what TLS 1.2 has besides authenticated encryption
NOT_AUTHORISED = 135  # MQTT 5.0 §3.4.2.1
QUIET = 1.0  # seconds to wait for a message that must not come, after one that came


def topic(device: str, kind: str) -> str:
    """Where the suite's devices talk: `devices/NAME/telemetry/proof`."""
    return f"devices/{device}/{kind}/proof"


def admission(case: str, server: Mapping[str, Any], identities: Mapping[str, Shown]) -> Probe:
    """One session with the credential of a case (`good`, `last-1`, or one of `REFUSED`)."""
    credentials = {} if case == "none" else {case: asdict(identities[case])}
    name = f"{PROBE}-{case}"
    step = {"do": "connect", "as": case, "with": case if credentials else "", "client_id": name}
    return {"id": f"broker:{case}", "kind": "mqtt", **server, "credentials": credentials, "steps": [step]}


def rights(server: Mapping[str, Any], identities: Mapping[str, Shown]) -> Probe:
    """Two devices and one who may see and command both: what each can do to the others."""
    own, others = topic(PROBE, "telemetry"), topic(OTHER_PROBE, "telemetry")
    steps: list[Step] = [
        {"do": "connect", "as": "observer", "with": "observer", "client_id": OBSERVER},
        {"do": "connect", "as": "device", "with": "good", "client_id": PROBE},
        {"do": "connect", "as": "other", "with": "other", "client_id": OTHER_PROBE},
        *({"do": "subscribe", "as": "observer", "topic": t} for t in (own, others)),
        *({"do": "subscribe", "as": "observer", "topic": request_topic(name)} for name in (PROBE, OTHER_PROBE)),
        {"do": "subscribe", "as": "other", "topic": topic(OTHER_PROBE, "commands")},
        {"do": "subscribe", "as": "other", "topic": certificate_topic(OTHER_PROBE)},
        *({"do": "subscribe", "as": "device", "topic": t} for t in (topic(PROBE, "commands"), "#", "$SYS/#")),
        *({"do": "subscribe", "as": "device", "topic": t} for t in (others, topic(OTHER_PROBE, "commands"))),
        *({"do": "subscribe", "as": "device", "topic": certificate_topic(name)} for name in (PROBE, OTHER_PROBE)),
        {"do": "publish", "as": "device", "topic": own, "payload": "own telemetry"},
        {"do": "await", "as": "observer", "payload": "own telemetry", "seconds": 4},
        {"do": "publish", "as": "other", "topic": others, "payload": "the other's telemetry"},
        {"do": "await", "as": "observer", "payload": "the other's telemetry", "seconds": 4},
        {"do": "publish", "as": "device", "topic": others, "payload": "forged telemetry"},
        {"do": "publish", "as": "device", "topic": topic(PROBE, "commands"), "payload": "own command"},
        {"do": "publish", "as": "device", "topic": topic(OTHER_PROBE, "commands"), "payload": "forged command"},
        {"do": "publish", "as": "device", "topic": "$SYS/broker/proof", "payload": "forged state"},
        {"do": "publish", "as": "device", "topic": request_topic(OTHER_PROBE), "payload": "forged request"},
        {"do": "publish", "as": "device", "topic": certificate_topic(PROBE), "payload": "own certificate"},
        {"do": "publish", "as": "device", "topic": request_topic(PROBE), "payload": "own request"},
        {"do": "await", "as": "observer", "payload": "own request", "seconds": 4},
        {"do": "publish", "as": "observer", "topic": certificate_topic(OTHER_PROBE), "payload": "the other's answer"},
        {"do": "await", "as": "other", "payload": "the other's answer", "seconds": 4},
        {"do": "publish", "as": "observer", "topic": certificate_topic(PROBE), "payload": "answer"},
        {"do": "await", "as": "device", "payload": "answer", "seconds": 4},
        {"do": "publish", "as": "observer", "topic": topic(OTHER_PROBE, "commands"), "payload": "command to the other"},
        {"do": "await", "as": "other", "payload": "command to the other", "seconds": 4},
        {"do": "publish", "as": "observer", "topic": topic(PROBE, "commands"), "payload": "command"},
        {"do": "await", "as": "device", "payload": "command", "seconds": 4},
        # Time for whatever must not come to come.
        {"do": "await", "as": "observer", "payload": "forged telemetry", "seconds": QUIET},
        {"do": "await", "as": "other", "payload": "forged command", "seconds": QUIET / 2},
        {"do": "await", "as": "device", "payload": "own command", "seconds": QUIET / 2},
    ]
    credentials = {name: asdict(identities[name]) for name in ("observer", "good", "other")}
    return {"id": "broker:rights", "kind": "mqtt", **server, "credentials": credentials, "steps": steps}


def takeover(server: Mapping[str, Any], identities: Mapping[str, Shown]) -> Probe:
    """A thief connects under the client id of another device, with a good certificate of its own."""
    victim, thief = "takeover-victim", "takeover-thief"
    name = f"{PROBE}-victim"
    steps: list[Step] = [
        {"do": "connect", "as": "victim", "with": victim, "client_id": name},
        {"do": "ping", "as": "victim"},
        {"do": "connect", "as": "thief", "with": thief, "client_id": name},
        {"do": "ping", "as": "thief"},
        {"do": "ping", "as": "victim"},
        # The device itself may: its former session ends. That is what a theft would look like.
        {"do": "connect", "as": "again", "with": victim, "client_id": name},
        {"do": "ping", "as": "again"},
        {"do": "ping", "as": "victim"},
    ]
    credentials = {name: asdict(identities[name]) for name in (victim, thief)}
    return {"id": "broker:takeover", "kind": "mqtt", **server, "credentials": credentials, "steps": steps}


def pretence(server: Mapping[str, Any], identities: Mapping[str, Shown]) -> Probe:
    """A device says in CONNECT that it is another one; and a certificate in order for a name that has no rights."""
    liar = f"{PROBE}-liar"
    steps: list[Step] = [
        {"do": "connect", "as": "liar", "with": "liar", "client_id": liar, "username": OTHER_PROBE},
        {"do": "publish", "as": "liar", "topic": topic(liar, "telemetry"), "payload": "as itself"},
        {"do": "publish", "as": "liar", "topic": topic(OTHER_PROBE, "telemetry"), "payload": "as another"},
        {"do": "connect", "as": "stranger", "with": "stranger", "client_id": "admin"},
        {"do": "subscribe", "as": "stranger", "topic": "#"},
        {"do": "publish", "as": "stranger", "topic": topic("admin", "telemetry"), "payload": "as itself"},
        {"do": "publish", "as": "stranger", "topic": topic(OTHER_PROBE, "telemetry"), "payload": "as another"},
        {"do": "publish", "as": "stranger", "topic": topic(OTHER_PROBE, "commands"), "payload": "as a master"},
    ]
    credentials = {name: asdict(identities[name]) for name in ("liar", "stranger")}
    return {"id": "broker:pretence", "kind": "mqtt", **server, "credentials": credentials, "steps": steps}


def excess(server: Mapping[str, Any], identities: Mapping[str, Shown], largest: int) -> Probe:
    """A message as large as a packet may be, with what belongs to it, and then one beyond."""
    name = f"{PROBE}-excess"
    where = topic(name, "telemetry")
    steps: list[Step] = [
        {"do": "connect", "as": "device", "with": "excess", "client_id": name},
        {"do": "publish", "as": "device", "topic": where, "size": max(1, largest - len(where) - 64)},
        {"do": "publish", "as": "device", "topic": where, "size": largest + 1},
    ]
    return {
        "id": "broker:excess",
        "kind": "mqtt",
        **server,
        "credentials": {"excess": asdict(identities["excess"])},
        "steps": steps,
    }


def quarantine(server: Mapping[str, Any], identities: Mapping[str, Shown]) -> Probe:
    """A device in quarantine, and one who may see and command it: what it can still say and hear."""
    own, report = topic(CUT_OFF, "telemetry"), f"quarantine/{CUT_OFF}/proof"
    steps: list[Step] = [
        {"do": "connect", "as": "observer", "with": "observer", "client_id": OBSERVER},
        {"do": "connect", "as": "device", "with": "cut-off", "client_id": CUT_OFF},
        {"do": "subscribe", "as": "observer", "topic": f"quarantine/{CUT_OFF}/#"},
        *({"do": "subscribe", "as": "device", "topic": t} for t in (topic(CUT_OFF, "commands"), report)),
        {"do": "publish", "as": "device", "topic": own, "payload": "telemetry"},
        {"do": "publish", "as": "device", "topic": topic(OTHER_PROBE, "telemetry"), "payload": "forged telemetry"},
        {"do": "publish", "as": "device", "topic": f"quarantine/{OTHER_PROBE}/proof", "payload": "forged report"},
        {"do": "publish", "as": "observer", "topic": topic(CUT_OFF, "commands"), "payload": "command"},
        {"do": "publish", "as": "device", "topic": report, "payload": "report"},
        {"do": "await", "as": "observer", "payload": "report", "seconds": 4},
        {"do": "await", "as": "device", "payload": "report", "seconds": 4},
        {"do": "await", "as": "device", "payload": "command", "seconds": QUIET},
    ]
    credentials = {name: asdict(identities[name]) for name in ("observer", "cut-off")}
    return {"id": "broker:quarantine", "kind": "mqtt", **server, "credentials": credentials, "steps": steps}


def presence(server: Mapping[str, Any], identities: Mapping[str, Shown], seconds: float) -> Probe:
    """A session that is open for some time, for whoever looks at the broker's sessions meanwhile."""
    steps: list[Step] = [
        {"do": "connect", "as": "device", "with": "good", "client_id": PROBE},
        {"do": "await", "as": "device", "payload": "nothing", "seconds": seconds},
    ]
    credentials = {"good": asdict(identities["good"])}
    return {"id": "broker:presence", "kind": "mqtt", **server, "credentials": credentials, "steps": steps}


def programs(server: Mapping[str, Any], name: str, password: str, own: str) -> list[Probe]:
    """Sessions of a program that says its name with a password: with the right one, and with none that is good."""
    given = {
        "right": {"username": name, "password": password},
        "wrong-password": {"username": name, "password": "x" * len(password)},
        "empty-password": {"username": name, "password": ""},
        "no-password": {"username": name},
        "no-name": {},
        "another-name": {"username": "program.gatehouse", "password": password},
    }
    probes = []
    for case, credentials in given.items():
        steps: list[Step] = [{"do": "connect", "as": "program", "with": "given", "client_id": ""}]
        if case == "right":
            steps += [
                {"do": "subscribe", "as": "program", "topic": "#"},
                {"do": "publish", "as": "program", "topic": f"{own}/proof", "payload": "own"},
                {"do": "await", "as": "program", "payload": "own", "seconds": 4},
                *(
                    {"do": "publish", "as": "program", "topic": t, "payload": "forged"}
                    for t in (topic(PROBE, "telemetry"), topic(PROBE, "commands"), topic(name, "telemetry"))
                ),
            ]
        asked = {"id": f"programs:{case}", "kind": "mqtt", **server, "credentials": {"given": credentials}}
        probes.append({**asked, "steps": steps})
    # One after the other, each once.
    guesses = {f"guess {number}": dict(zip(("username", "password"), login, strict=True))
               for number, login in enumerate(defaults.of("broker"))}  # fmt: skip
    steps = [{"do": "connect", "as": name, "with": name, "client_id": ""} for name in guesses]
    probes.append({"id": "programs:default", "kind": "mqtt", **server, "credentials": guesses, "steps": steps})
    return probes


def reports(server: Mapping[str, Any], identities: Mapping[str, Shown], messages: Mapping[str, Report]) -> Probe:
    """One device that reports: for each case a topic and what is published there, in that order."""
    steps: list[Step] = [{"do": "connect", "as": "device", "with": "good", "client_id": PROBE}]
    for case, (where, payload) in messages.items():
        steps.append({"do": "publish", "as": "device", "topic": where, "hex": payload.hex(), "case": case})
    credentials = {"good": asdict(identities["good"])}
    return {"id": "broker:reports", "kind": "mqtt", **server, "credentials": credentials, "steps": steps}


def keyed(server: Mapping[str, Any], mqtts: Mapping[str, Any], name: str, key: str) -> list[Probe]:
    """Sessions of a device that shows a pre-shared key (hex): a good one, and some that are not.

    `older` knows no TLS 1.3; `elsewhere` goes where certificates are asked for, `mqtts`.
    """
    good = {"identity": name, "psk": key}
    given: dict[str, tuple[Mapping[str, Any], dict[str, str]]] = {
        "right": (server, good),
        "older": (server, {**good, "maximum": "1.2"}),
        "wrong-key": (server, {**good, "psk": "5a" * 32}),
        "unknown-name": (server, {**good, "identity": f"{name}-nobody"}),
        "elsewhere": (mqtts, good),
    }
    probes = []
    for case, (where, credentials) in given.items():
        steps: list[Step] = [{"do": "connect", "as": "device", "with": "given", "client_id": PROBE}]
        if case == "right":
            topics = (topic(name, "telemetry"), topic(PROBE, "telemetry"), topic(name, "commands"), "$SYS/broker/proof")
            steps += [{"do": "publish", "as": "device", "topic": t, "payload": "proof"} for t in topics]
        asked = {"id": f"psk:{case}", "kind": "mqtt", **where, "credentials": {"given": credentials}}
        probes.append({**asked, "steps": steps})
    return probes


def handshakes(server: Mapping[str, Any], identities: Mapping[str, Shown], foreign_root: str) -> list[Probe]:
    """TLS with each version alone, with suites nobody should use any more, and with another site's trust anchor.

    `server` has `ca` (PEM) and `server_name`. Whether the position can speak a version at all it tries with itself.
    """
    client = asdict(identities["good"])
    probes: list[Probe] = []
    for version in VERSIONS:
        only = {"minimum": version, "maximum": version}
        probes.append({"id": f"broker:tls {version}", "kind": "tls", **server, **client, **only})
        probes.append({"id": f"able:tls {version}", "kind": "tls-capable", **only, **asdict(identities["loopback"])})
    old = {"minimum": "1.2", "maximum": "1.2", "ciphers": SUITES_NOT_WANTED}
    probes.append({"id": "broker:old suites", "kind": "tls", **server, **client, **old})
    probes.append({"id": "able:old suites", "kind": "tls-capable", **old, **asdict(identities["loopback"])})
    probes.append({"id": "broker:foreign anchor", "kind": "tls", **server, **client, "ca": foreign_root})
    return probes


def steps_of(result: Mapping[str, Any], do: str, who: str, **wanted: Any) -> list[Mapping[str, Any]]:
    """The steps of a play that were of that kind, of that session, with those values."""
    asked = {"do": do, "as": who, **wanted}
    steps: Iterable[Mapping[str, Any]] = result.get("steps", ())
    return [step for step in steps if all(step.get(key) == value for key, value in asked.items())]
