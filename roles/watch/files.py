"""What the nightly verification's role puts on a gateway, derived from what the other roles declare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gatehouse.identity.pins import broker_host
from gatehouse.site import INTERNET
from roles import integrity, rendering
from roles.integrity import files as looking
from roles.mosquitto import files as mosquitto
from roles.mosquitto import service as broker
from roles.nftables import service as firewall
from roles.nftables.facts import DIGEST, LOADED
from roles.nftables.ruleset import RULESET
from roles.target import Target
from roles.watch import service

TIMER = service.units[0]
UNIT = TIMER.replace(".timer", ".service")
PROGRAM = "/usr/lib/gatehouse/verify"
SETTINGS = "/etc/gatehouse/verify.json"
AUTHORITY = "/etc/gatehouse/verify-ca.pem"
STATE = "/var/lib/gatehouse-verify"
RESULT = f"{STATE}/result.json"
CHECK = f'python3 -I "$STAGED"{PROGRAM} --check "$STAGED"{SETTINGS}'
FREE = 10
"""Percent of a file system."""
LATE = 2 * 86_400
"""Seconds after which a status of AIDE is no status any more."""


def configuration(target: Target) -> list[rendering.File]:
    """The program, what it shall find, and its units."""
    found = settings(target)
    own = sorted({address for address, _ in found["open"]} | set((found["broker"] or {}).get("addresses", ())))
    units = [
        rendering.template(
            "watch",
            f"/etc/systemd/system/{unit}",
            program=PROGRAM,
            settings=SETTINGS,
            user=service.user,
            folder=Path(STATE).name,
            own=own,
            reads=integrity.service.user if found["integrity"] else "",
            loaded=LOADED if found["firewall"] else "",
            note=found["firewall"] and found["firewall"]["loaded"],
        )
        for unit in (UNIT, TIMER)
    ]
    return [
        rendering.File(PROGRAM, Path(__file__).with_name("verify.py").read_bytes(), mode=0o755),
        rendering.File(SETTINGS, (json.dumps(found, indent=1) + "\n").encode()),
        rendering.File(AUTHORITY, target.pki.trust_anchor),
        *units,
    ]


def settings(target: Target) -> dict[str, Any]:
    """What there shall be; it holds no secret."""
    site = target.site
    runs = site.services_of(target.name)
    names = {each.name for each in runs}
    return {
        # What a maker's package brings may not be deployed yet; the operator's side knows that, the gateway doesn't.
        "units": sorted({unit for each in runs if not (each.from_maker or each.engines) for unit in each.units}),
        "firewall": {"digest": DIGEST.format(file=RULESET), "loaded": f"/run/{Path(STATE).name}/firewall.loaded"}
        if firewall.name in names
        else None,
        "open": sorted(_open(target)) if firewall.name in names else [],
        "broker": {
            "addresses": mosquitto.addresses(target),
            "port": site.listener(broker.name, "mqtts").port,
            "name": broker_host(site),
            "authority": AUTHORITY,
        }
        if broker.name in names
        else None,
        "integrity": {"status": looking.STATUS, "late": LATE} if integrity.service.name in names else None,
        "free": {"percent": FREE, "folders": ["/", "/var", "/boot"]},
        "result": RESULT,
    }


def _open(target: Target) -> set[tuple[str, int]]:
    """`(address, port)` of every TCP listener that a segment inside may reach."""
    networks = target.gateway.networks
    return {
        (str(address), rule.listener.port)
        for rule in target.policy.input
        if rule.listener.transport == "tcp" and rule.segment in networks and rule.segment != INTERNET
        for address in networks[rule.segment].addresses
    }
