"""What the suite's own devices do at the CoAP endpoint: who is let in, what is answered, and what is stored of it."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from typing import Any

from gatehouse.identity.pins import coap_host
from gatehouse.messages import sign
from gatehouse.proof import stored
from gatehouse.proof.channel import ProbeError
from gatehouse.proof.credentials import CUT_OFF, OTHER_PROBE, PROBE, foreign_anchor
from gatehouse.proof.expect import GATEWAY
from gatehouse.proof.observation import Observation
from gatehouse.proof.plays import SUITES_NOT_WANTED
from gatehouse.proof.reports import FIELD
from roles import influxdb
from roles.coap import service
from roles.intake.files import probe_key
from roles.target import Target
from tests import database
from tests.compliance.live import Live
from tests.compliance.once import once

KIND = "coap"
REFUSED = ("none", "expired", "foreign", "revoked", "server")
GOOD, TAMPERED = "good", "tampered"
# Requests of a device that are refused, each with the code that says why.
ANSWERS = {"4.03": "others-topic", "4.04": "no-topic", "4.05": "method", "4.13": "too-large", "4.15": "format"}
PLAIN_GET = "40017d34bb2e77656c6c2d6b6e6f776e04636f7265"  # GET /.well-known/core, as RFC 6690 §1.2.1 asks


def topic(device: str) -> str:
    """Where a device of the suite's posts."""
    return f"devices/{device}/telemetry/{KIND}"


def listens(live: Live) -> list[tuple[str, str]]:
    """Where it is reached: `(segment, address)`. Raises `ProbeError` where it is reached from nowhere."""
    found = live.reached_at(live.site.listener(service.name, "coaps"))
    if not found:
        raise ProbeError(f"{live.name}: no position from which the CoAP endpoint is reached")
    return found


def _probe(live: Live, case: str, **more: Any) -> dict[str, Any]:
    _, address = listens(live)[0]
    port = live.site.listener(service.name, "coaps").port
    shown = {} if case == "none" else asdict(live.credentials[case])
    server = live.server(coap_host(live.site), address, port)
    return {"id": f"coap:{case}", "kind": "coap", **server, **shown, **more}


@once
def marks(live: Live) -> dict[str, str]:
    """What stands in the messages, so that they can be found."""
    nonce = os.urandom(6).hex()
    return {GOOD: f"{GOOD} {nonce}", TAMPERED: f"tamperee {nonce}"}


@once
def seen(live: Live) -> dict[str, Observation]:
    """What becomes of everybody, by what they are. One after the other: a name has one session."""
    segment, _ = listens(live)[0]
    target = Target(live.site, live.name, lambda: live.pki)
    # The other device of the suite's: the first one's messages are the intake's own checks'.
    key, now_ms = probe_key(target, OTHER_PROBE), time.time_ns() // 1_000_000

    def signed(mark: str, number: int) -> bytes:
        content = json.dumps({FIELD: mark}).encode()
        return sign(key, topic(OTHER_PROBE), content, number=1, sequence=(now_ms << 12) + number, time_ms=now_ms)

    good, nonce = signed(marks(live)[GOOD], 0), marks(live)[GOOD].partition(" ")[2]
    tampered = signed(f"{TAMPERED} {nonce}", 1).replace(b"tampered", b"tamperee")
    own, sent = topic(OTHER_PROBE), good.hex()
    requests: list[dict[str, Any]] = [
        {"path": topic(PROBE), "payload": sent},
        {"path": f"devices/{OTHER_PROBE}/commands/{KIND}", "payload": sent},
        {"path": own, "method": 1},
        {"path": own, "payload": sent + "00" * 1024},
        {"path": own, "payload": sent, "options": [[12, "32"]]},
        {"path": own, "payload": tampered.hex()},
        {"path": own, "payload": sent},
        {"path": own, "payload": sent},
    ]
    work = [_probe(live, case, requests=[{"path": topic(f"{PROBE}-{case}"), "payload": sent}])
             for case in (*REFUSED, *live.last_revoked)]  # fmt: skip
    work += [_probe(live, "cut-off", requests=[{"path": topic(CUT_OFF), "payload": sent}])]
    old = {"minimum": "1.0", "maximum": "1.0", "ciphers": "ALL:@SECLEVEL=0"}
    work += [{**_probe(live, "good", **old), "id": "coap:DTLS 1.0"}]
    work += [{**_probe(live, "good", ciphers=SUITES_NOT_WANTED), "id": "coap:old suites"}]
    # Last: where the broker has just been started anew, it is there by now.
    work += [_probe(live, "other", requests=requests)]
    anchor = foreign_anchor(live.site.name, live.site.domain)
    work += [{**_probe(live, "good"), "ca": anchor, "id": "coap:foreign anchor"}]
    found = {}
    for probe in work:
        (found[probe["id"].partition(":")[2]],) = live.ask({segment: [probe]})[segment]
    for place, address in listens(live):
        probe = {**_probe(live, "good"), "address": address, "id": f"coap:good@{address}"}
        (found[f"good@{address}"],) = live.ask({place: [probe]})[place]
    return found


@once
def values(live: Live) -> list[str] | None:
    """What the database has of what the device posted; None where it gave no answer."""
    login = live.host.file(influxdb.credential(influxdb.DASHBOARDS))
    secret = login.content_string.strip() if login.exists else ""
    question = database.question(live.site, live.pki, secret, OTHER_PROBE, FIELD, 10)
    until = time.monotonic() + 20
    while True:
        answered = live.ask({GATEWAY: [question]})[GATEWAY][0]
        found = stored.answer(live.site.database.engine, answered.result)
        if (found and marks(live)[GOOD] in found) or time.monotonic() > until:
            return found
        time.sleep(0.5)


@once
def before_a_session(live: Live) -> dict[str, Observation]:
    """What is said to who has no session: a hello without a cookie, and plain CoAP."""
    segment, address = listens(live)[0]
    port = live.site.listener(service.name, "coaps").port
    plain = {"kind": "datagrams", "address": address, "payloads": [PLAIN_GET]}
    probes = [
        {"id": "coap:hello", "kind": "dtls", "address": address, "port": port},
        {"id": "coap:plain", **plain, "port": 5683},
        {"id": "coap:plain on the encrypted port", **plain, "port": port},
    ]
    return {str(o.probe["id"]).partition(":")[2]: o for o in live.ask({segment: probes})[segment]}
