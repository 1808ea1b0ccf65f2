"""Every sabotage, in the order in which those of one round are made."""

from __future__ import annotations

from dataclasses import replace

from lab.sabotage import (
    broker,
    dashboards,
    database,
    egress,
    identities,
    intake,
    machine,
    network,
    remote,
    services,
    updates,
    web,
)
from lab.sabotage.model import Sabotage, matching

_TUNNEL = "remote.reaches-nothing-else"
_HEARD = "alerts.delivers"


def _through_the_tunnel(sabotage: Sabotage) -> Sabotage:
    """What is let in or through from everywhere is let in from the tunnel, too."""
    if "admit " not in sabotage.breaks or _TUNNEL in sabotage.catches:
        return sabotage
    return replace(sabotage, may={**sabotage.may, _TUNNEL: "it is let in from the tunnel, too"})


_ALL: tuple[Sabotage, ...] = (
    *services.SABOTAGES,
    *broker.SABOTAGES,
    *database.SABOTAGES,
    *intake.SABOTAGES,
    *dashboards.SABOTAGES,
    *web.SABOTAGES,
    *updates.SABOTAGES,
    *machine.SABOTAGES,
    *egress.SABOTAGES,
    *network.SABOTAGES,
    *remote.SABOTAGES,
    # Last: what is changed in the firewall's sets is gone when it is loaded anew.
    *identities.SABOTAGES,
)


def _without_listeners(sabotage: Sabotage) -> Sabotage:
    """Where the broker takes nobody, or hands nothing on, an alert is not heard either."""
    falls = matching((*sabotage.expected, *sabotage.tolerated), ("broker.accepts-devices", "broker.delivers"))
    if not falls or _HEARD in sabotage.catches:
        return sabotage
    return replace(sabotage, may={**sabotage.may, _HEARD: "nobody hears it who listens at the broker"})


SABOTAGES = tuple(_without_listeners(_through_the_tunnel(sabotage)) for sabotage in _ALL)

# Checks that no sabotage can make fail on a lab of containers, each with the reason.
OUT_OF_REACH: dict[str, str] = {
    "host.confines-ssh": "never proven: sshd can't be confined without confining the administrator's shell",
    "host.kernel-of-the-machine": "these settings belong to the machine that the containers run on",
    "time.right": "the clock belongs to the machine that the containers run on, and it is the operator's own",
}
