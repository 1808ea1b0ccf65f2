"""`python3 -m gatehouse.coap SETTINGS`: runs the endpoint until SIGTERM."""

from __future__ import annotations

import signal
import sys
from dataclasses import replace
from pathlib import Path

from gatehouse.coap import settings as reading
from gatehouse.coap.counts import Counts
from gatehouse.coap.dtls import Cookies, Identity
from gatehouse.coap.publisher import Publisher
from gatehouse.coap.server import Server
from gatehouse.coap.settings import Settings
from gatehouse.errors import GatehouseError
from gatehouse.messages.mqtt import tls_of

SETTINGS = "/etc/gatehouse/coap/settings.json"


def check(root: Path) -> int:
    """Exit status: whether the endpoint could begin with its files as they lie below `root`, where they are staged."""
    try:
        found = reading.read(_below(root, SETTINGS))
        certificate, key, trust = (str(_below(root, each)) for each in (found.certificate, found.key, found.trust))
        Identity(certificate, key, trust, Cookies())
        reading.read_devices(_below(root, found.devices))
        broker = replace(
            found.broker, ca=str(_below(root, found.broker.ca)), client=str(_below(root, found.broker.client))
        )
        publisher_of(replace(found, broker=broker))
    except GatehouseError as error:
        print(f"gatehouse-coap: {error}", file=sys.stderr)
        return 1
    return 0


def _below(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def publisher_of(settings: Settings) -> Publisher:
    """The endpoint's session at the broker. Raises `MessageError`."""
    broker = settings.broker
    return Publisher((broker.address, broker.port), tls_of(broker.ca, broker.client), broker.name, broker.user)


def main(arguments: list[str]) -> int:
    """Exit status: 0 after SIGTERM, 1 where the endpoint can't begin."""
    if len(arguments) != 1:
        print("usage: python3 -m gatehouse.coap SETTINGS", file=sys.stderr)
        return 2
    try:
        found = reading.read(Path(arguments[0]))
        server = Server(found, publisher_of(found), Counts(Path(found.metrics)))
    except GatehouseError as error:
        print(f"gatehouse-coap: {error}", file=sys.stderr)
        return 1
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.stop())
    server.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
