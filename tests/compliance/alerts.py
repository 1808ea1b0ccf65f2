"""What the gateway's alerts do by themselves, and with one that the suite asks for."""

from __future__ import annotations

import time
from dataclasses import asdict

from gatehouse.alerts.book import body, test_message
from gatehouse.proof import expect
from gatehouse.proof.channel import ProbeError
from gatehouse.proof.credentials import Shown
from gatehouse.proof.observation import Observation
from gatehouse.site.alerts import SERVICE, topic
from roles.alerts import files
from tests.compliance.live import Live
from tests.compliance.once import once

LISTENER = "gatehouse-probe-alerts"
# Three times: one may come before the listener does, or while the program is at work; on a busy gateway, two.
TRY = (
    'for i in 1 2 4; do sleep $i; printf %s "$1" >{test}; chmod 0644 {test}; systemctl start {unit} || failed=$?; done;'
    " exit ${{failed:-0}}"
)

Seen = tuple[Observation, Observation | None, Observation | None, str]


@once
def seen(live: Live) -> Seen:
    """What the program left by itself; then a test alert that the suite asks it for, as the broker hands it on."""
    if not live.site.gateways_with(SERVICE):
        raise ProbeError(f"{live.site.name}: it has no alerts")
    left = live.run("sh", "-c", f"cat {files.STATUS} && echo && date +%s")
    text = f"compliance {time.time_ns()}"
    wanted = live.site.alerts
    if wanted is None or not wanted.mqtt or not live.broker_at:
        return left, None, None, ""
    (segment, address), *_ = live.broker_at
    awaited = body(test_message(live.site.name, live.name, text)).decode()
    steps = [
        {"do": "connect", "as": "listener", "with": "listener", "client_id": LISTENER},
        {"do": "subscribe", "as": "listener", "topic": topic(live.name)},
        {"do": "await", "as": "listener", "payload": awaited, "seconds": 20},
    ]
    shown = {"listener": asdict(Shown.of(live.pki.ephemeral_client(LISTENER)))}
    play = {"id": "alerts:heard", "kind": "mqtt", **live.broker_server(address), "credentials": shown, "steps": steps}
    sends = TRY.format(test=files.TEST, unit=files.UNIT)
    asks = {"id": "alerts:sent", "kind": "run", "argv": ["sh", "-c", sends, "sh", text], "timeout": 60}
    found = live.ask({segment: [play], expect.GATEWAY: [asks]})
    return left, found[expect.GATEWAY][0], found[segment][0], text
