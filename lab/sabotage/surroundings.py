"""Where a sabotage finds itself: the gateway's bridges and addresses, and the lab's hosts around it, for the shell."""

from __future__ import annotations

import shlex

import lab
from gatehouse.site import MANAGEMENT, Site
from lab.topology import OPERATOR, neighbour


def preamble(site: Site, gateway: str, name: str) -> str:
    """Shell variables: `br_SEGMENT`, `gw4_…` and `gw6_…`, `host4_…` and `host6_…`, and `operator4`."""
    topology = lab.from_site(site, name)
    here = next(host for host in topology.gateways if host.name == gateway)
    hosts = {host.segment: host for host in topology.hosts if host.gateway == gateway}
    hosts[topology.internet.segment] = topology.internet
    found = {"operator4": str(neighbour(here.port(MANAGEMENT).addresses[0], OPERATOR).ip)}
    for port in here.ports:
        label = port.segment.replace("-", "_")
        found[f"br_{label}"] = site.gateways[gateway].bridge(port.segment)
        for who, addresses in (("gw", port.addresses), ("host", hosts[port.segment].addresses)):
            found |= {f"{who}{address.version}_{label}": str(address.ip) for address in reversed(addresses)}
    return "".join(f"{key}={shlex.quote(value)}\n" for key, value in found.items())
