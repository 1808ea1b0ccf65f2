"""Whom the firewalls of a site refused, by device: asked of the gateways now."""

from __future__ import annotations

import json
from typing import Any

from deploy.remote import connected
from gatehouse.columns import aligned
from gatehouse.site import Site
from roles.nftables.ruleset import COUNTED

_LISTED = "; ".join(f"nft -j list set inet gatehouse {name}; echo" for name in COUNTED)


def rows(site: Site) -> list[dict[str, Any]]:
    """One a hardware address: gateway, device (empty: none of the registry), packets by reason; the most first.

    Raises `RemoteError` for a gateway that does not answer.
    """
    found: list[dict[str, Any]] = []
    for gateway in site.gateways:
        names = {d.hardware_address: d.name for d in site.devices_of(gateway) if d.hardware_address}
        with connected(site, gateway) as remote:
            listed = [json.loads(line) for line in remote.run(f"set -e; {_LISTED}").splitlines() if line]
        counted: dict[str, dict[str, int]] = {}
        for entry in (entry["set"] for document in listed for entry in document["nftables"] if "set" in entry):
            for element in entry.get("elem", ()):
                packets = element["elem"]["counter"]["packets"]
                counted.setdefault(element["elem"]["val"], {})[entry["name"]] = packets
        for address, packets in counted.items():
            first = {"gateway": gateway, "device": names.get(address, ""), "hardware_address": address}
            found.append({**first, **{name: packets.get(name, 0) for name in COUNTED}})
    return sorted(found, key=lambda row: (not row["device"], -sum(row[name] for name in COUNTED)))


def table(found: list[dict[str, Any]]) -> list[str]:
    """For people."""
    if not found:
        return ["nobody was refused within the last day"]
    head = {"gateway": "gateway", "device": "device", "hardware_address": "hardware address", **COUNTED}
    cells = [list(head.values()), *([str(row[key] or "-") for key in head] for row in found)]
    return aligned(cells)
