"""What is asked of a deployed gateway's database, by the compliance suite and by the lab's tests alike."""

from __future__ import annotations

from typing import Any

from gatehouse.identity import Pki
from gatehouse.proof import stored
from gatehouse.site import Site
from roles import influxdb


def question(site: Site, pki: Pki, secret: str, device: str, field: str, minutes: int) -> dict[str, Any]:
    """A probe on the gateway for a field of a device's messages of the last minutes (`stored.answer` reads it).

    `secret` is what the dashboards log in with: a password (1.x) or a token (2.x).
    """
    server = {
        "address": influxdb.ADDRESS,
        "port": site.listener(influxdb.service.name, "https").port,
        "ca": pki.trust_anchor.decode(),
        "server_name": influxdb.host_name(site.domain),
    }
    return stored.question(site.database.engine, influxdb.NAME, server, secret, device, field, minutes)
