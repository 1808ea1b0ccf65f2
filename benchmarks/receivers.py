"""What `benchmarks.intake` runs as processes of their own: `python -m benchmarks.receivers intake|paho FILE`.

FILE is JSON: what to connect to, and how many `messages` to wait for; with none, the session is made and left. Each
prints JSON: `seconds` from the first message to the last, `processor` seconds of the process, `peak` bytes resident.
"""

from __future__ import annotations

import json
import resource
import sys
import threading
import time
from pathlib import Path
from typing import Any


def _done(began: float, ended: float) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    found = {"seconds": ended - began, "processor": used.ru_utime + used.ru_stime, "peak": used.ru_maxrss * 1024}
    print(json.dumps(found), flush=True)


def intake(given: dict[str, Any]) -> None:
    """The intake itself, until the database has all of them."""
    from gatehouse.messages import settings as reading
    from gatehouse.messages.__main__ import database_of
    from gatehouse.messages.counts import Counts
    from gatehouse.messages.intake import Intake, subscriber_of

    settings = reading.read(Path(given["settings"]))
    counts = Counts(Path(settings.metrics))
    receiver = Intake(settings, subscriber_of(settings), database_of(settings.database), counts)
    times: list[float] = []

    def watch() -> None:
        while not counts.values["received" if given["messages"] else "connections"]:
            time.sleep(0.002)
        times.append(time.perf_counter())
        while counts.values["stored"] < given["messages"]:
            time.sleep(0.005)
        times.append(time.perf_counter())
        receiver.stop()

    threading.Thread(target=watch, daemon=True).start()
    receiver.run()
    _done(*times)


def paho(given: dict[str, Any]) -> None:
    """A subscriber made with paho-mqtt that counts and does nothing else."""
    import ssl

    import paho.mqtt.client as mqtt
    from paho.mqtt.properties import PacketTypes, Properties

    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, given["client"], protocol=mqtt.MQTTv5)
    client.tls_set(given["ca"], given["pem"], tls_version=ssl.PROTOCOL_TLS_CLIENT)
    times: list[float] = []
    left = given["messages"]

    def message(*_: Any) -> None:
        nonlocal left
        if not times:
            times.append(time.perf_counter())
        left -= 1
        if left <= 0:
            times.append(time.perf_counter())
            client.disconnect()

    client.on_connect = lambda *_: client.subscribe("devices/+/telemetry/#", 1)
    client.on_message = message
    if not left:
        client.on_subscribe = lambda *_: client.disconnect()
    properties = Properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = 86_400
    client.connect(given["host"], given["port"], clean_start=False, properties=properties)
    client.loop_forever()
    _done(*(times or [0.0, 0.0]))


if __name__ == "__main__":
    {"intake": intake, "paho": paho}[sys.argv[1]](json.loads(Path(sys.argv[2]).read_text()))
