"""When devices were last heard of, asked of their gateways all at once; what does not answer soon is left out."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime

from deploy.remote import connected
from gatehouse.errors import GatehouseError
from gatehouse.site import Site
from roles.mosquitto import files as mosquitto

PATIENCE = 6.0
"""Seconds for all gateways together: a table is worth no more than that."""
_LOOKING = 3.0
"""Of these, seconds that a gateway may spend on its journal."""


def last_seen(site: Site) -> tuple[dict[str, datetime], list[str]]:
    """The moments by device, and a line for each gateway of which something is not known, and why."""
    moments: dict[str, datetime] = {}
    notes: dict[str, str] = {}
    gateways = dict.fromkeys(device.gateway for device in site.devices)

    def ask(gateway: str) -> None:
        try:
            found, note = _of(site, gateway)
        except GatehouseError as error:
            found, note = {}, f"{error}: when its devices were last seen is unknown"
        moments.update(found)
        notes[gateway] = note

    # Not waited for beyond that: one that hangs in a connection ends with this program.
    threads = [threading.Thread(target=ask, args=[gateway], daemon=True) for gateway in gateways]
    end = datetime.now(UTC).timestamp() + PATIENCE
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0, end - datetime.now(UTC).timestamp()))
    silent = f"no answer within {PATIENCE:.0f} s: when its devices were last seen is unknown"
    lines = [notes.get(gateway, f"{gateway}: {silent}") for gateway in gateways]
    return dict(moments), [line for line in lines if line]


def _of(site: Site, gateway: str) -> tuple[dict[str, datetime], str]:
    names = [device.name for device in site.devices_of(gateway)]
    networks = site.gateways[gateway].networks.values()
    own = [str(address) for network in networks for address in network.addresses]
    with connected(site, gateway) as remote:
        request = json.dumps({"names": names, "own": own, "seconds": _LOOKING})
        answer = json.loads(remote.run(mosquitto.SEEN, request))
    found = {name: datetime.fromtimestamp(moment, UTC) for name, moment in answer["seen"].items() if name in names}
    since = datetime.fromtimestamp(answer["since"], UTC)
    if missing := len(names) - len(found):
        return found, f"{gateway}: {missing} not seen since {since:%Y-%m-%d %H:%M} UTC; what was before is unknown"
    return found, ""
