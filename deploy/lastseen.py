"""When devices were last heard of, asked of their gateways all at once; what does not answer soon is left out."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from deploy.asking import at_once
from deploy.remote import connected
from gatehouse.site import Site
from roles.coap import files as coap
from roles.coap import service as coap_service
from roles.mosquitto import files as mosquitto

PATIENCE = 6.0
"""Seconds for all gateways together: a table is worth no more than that."""
_LOOKING = 3.0
"""Of these, seconds that a gateway may spend on its journal."""


def last_seen(site: Site) -> tuple[dict[str, datetime], list[str]]:
    """The moments by device, and a line for each gateway of which something is not known, and why."""
    gateways = dict.fromkeys(device.gateway for device in site.devices)
    found, reasons = at_once(gateways, lambda gateway: _of(site, gateway), PATIENCE)
    moments = {name: moment for known, _ in found.values() for name, moment in known.items()}
    notes = [
        f"{reasons[gateway]}: when its devices were last seen is unknown" if gateway in reasons else found[gateway][1]
        for gateway in gateways
    ]
    return moments, [note for note in notes if note]


def _of(site: Site, gateway: str) -> tuple[dict[str, datetime], str]:
    names = [device.name for device in site.devices_of(gateway)]
    networks = site.gateways[gateway].networks.values()
    own = [str(address) for network in networks for address in network.addresses]
    kept = [coap.SEEN] if gateway in site.gateways_with(coap_service.name) else []
    with connected(site, gateway) as remote:
        request = json.dumps({"names": names, "own": own, "seconds": _LOOKING, "kept": kept})
        answer = json.loads(remote.run(mosquitto.SEEN, request))
    found = {name: datetime.fromtimestamp(moment, UTC) for name, moment in answer["seen"].items() if name in names}
    since = datetime.fromtimestamp(answer["since"], UTC)
    if missing := len(names) - len(found):
        return found, f"{gateway}: {missing} not seen since {since:%Y-%m-%d %H:%M} UTC; what was before is unknown"
    return found, ""
