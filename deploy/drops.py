"""Whom the firewalls of a site refused, by device: asked of the gateways now."""

from __future__ import annotations

import json
from typing import Any

from deploy.asking import each
from deploy.remote import connected
from gatehouse.columns import aligned
from gatehouse.site import Site
from roles.nftables.ruleset import COUNTED

_LISTED = "; ".join(f"nft -j list set inet gatehouse {name}; echo" for name in COUNTED)


def rows(site: Site) -> list[dict[str, Any]]:
    """One a hardware address and segment: gateway, device (empty: none of the registry), packets by reason; the most
    first.

    Raises `RemoteError` for a gateway that does not answer, `Unanswered` for several.
    """
    found = [row for rows in each(site.gateways, lambda gateway: _of(site, gateway)) for row in rows]
    return sorted(found, key=lambda row: (not row["device"], -sum(row[name] for name in COUNTED)))


def _of(site: Site, gateway: str) -> list[dict[str, Any]]:
    names = {d.hardware_address: d.name for d in site.devices_of(gateway) if d.hardware_address}
    segments = {site.gateways[gateway].bridge(segment): segment for segment in site.gateways[gateway].networks}
    with connected(site, gateway) as remote:
        listed = [json.loads(line) for line in remote.run(f"set -e; {_LISTED}").splitlines() if line]
    counted: dict[tuple[str, str], dict[str, int]] = {}
    for entry in (entry["set"] for document in listed for entry in document["nftables"] if "set" in entry):
        for element in (e["elem"] for e in entry.get("elem", ())):
            address, bridge = element["val"]["concat"]
            counted.setdefault((address, bridge), {})[entry["name"]] = element["counter"]["packets"]
    return [
        {"gateway": gateway, "device": names.get(address, ""), "hardware_address": address}
        | {"segment": segments.get(bridge, bridge), **{name: packets.get(name, 0) for name in COUNTED}}
        for (address, bridge), packets in counted.items()
    ]


def table(found: list[dict[str, Any]]) -> list[str]:
    """For people."""
    if not found:
        return ["nobody was refused within the last day"]
    head = {"gateway": "gateway", "device": "device", "hardware_address": "hardware address", "segment": "segment"}
    head |= COUNTED
    cells = [list(head.values()), *([str(row[key] or "-") for key in head] for row in found)]
    return aligned(cells)
