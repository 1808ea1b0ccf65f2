"""Every sabotage, in the order in which those of one round are made."""

from __future__ import annotations

from dataclasses import replace

from lab.sabotage import (
    broker,
    coap,
    dashboards,
    database,
    egress,
    identities,
    intake,
    machine,
    network,
    remote,
    services,
    system,
    updates,
    web,
)
from lab.sabotage.model import Sabotage, matching

_TUNNEL = "remote.reaches-nothing-else"
_HEARD = "alerts.delivers"
_SHOWN = "dashboards.live-data"
_TICKETS = "tls.tickets-of-broker"


def _through_the_tunnel(sabotage: Sabotage) -> Sabotage:
    """What is let in or through from everywhere is let in from the tunnel, too."""
    if "admit " not in sabotage.breaks or _TUNNEL in sabotage.catches:
        return sabotage
    return replace(sabotage, may={**sabotage.may, _TUNNEL: "it is let in from the tunnel, too"})


def _with_posts(sabotage: Sabotage, posts: str) -> Sabotage:
    """What is posted by CoAP goes the way of all messages, from the broker on."""
    if not matching((*sabotage.expected, *sabotage.tolerated), ("intake.stores", "intake.refuses-tampered")):
        return sabotage
    return replace(sabotage, may={**sabotage.may, posts: "what is posted by CoAP goes the same way"})


def _with_what_is_shown(sabotage: Sabotage) -> Sabotage:
    """What is not stored is not shown."""
    stored = matching((*sabotage.expected, *sabotage.tolerated), ("intake.stores",))
    if not stored or matching(sabotage.catches, (_SHOWN,)):
        return sabotage
    return replace(sabotage, may={**sabotage.may, _SHOWN: "so nothing new is shown"})


_ALL: tuple[Sabotage, ...] = (
    *services.SABOTAGES,
    *(_with_posts(each, "coap.*") for each in broker.SABOTAGES),
    *(_with_posts(each, "coap.stores") for each in (*database.SABOTAGES, *intake.SABOTAGES)),
    *coap.SABOTAGES,
    *dashboards.SABOTAGES,
    *web.SABOTAGES,
    *updates.SABOTAGES,
    *machine.SABOTAGES,
    *system.SABOTAGES,
    *egress.SABOTAGES,
    *network.SABOTAGES,
    *remote.SABOTAGES,
    # Last: what is undone when the broker starts again.
    *identities.SABOTAGES,
)


def _without_listeners(sabotage: Sabotage) -> Sabotage:
    """Where the broker takes nobody, or hands nothing on, an alert is not heard either."""
    falls = matching((*sabotage.expected, *sabotage.tolerated), ("broker.accepts-devices", "broker.delivers"))
    if not falls or _HEARD in sabotage.catches:
        return sabotage
    return replace(sabotage, may={**sabotage.may, _HEARD: "nobody hears it who listens at the broker"})


def _without_sessions(sabotage: Sabotage) -> Sabotage:
    """Where the broker takes nobody, or another is in its place, its sessions say nothing of tickets, or others' do."""
    falls = matching((*sabotage.expected, *sabotage.tolerated), ("broker.accepts-devices",))
    if not falls:
        return sabotage
    return replace(sabotage, may={**sabotage.may, _TICKETS: "there are no sessions with the broker to look at"})


def _of_datagrams(sabotage: Sabotage) -> Sabotage:
    """Where devices' datagrams get through that should not, or none do, so do those of CoAP."""
    told = {
        "scan.udp-from-iot": ("coap.no-plaintext", "plain CoAP is let through, too"),
        "gateway.coap.coaps-from-iot": ("coap.*", "the endpoint is reached by nobody"),
    }
    for identity, (pattern, why) in told.items():
        if matching((*sabotage.expected, *sabotage.tolerated), (identity,)) and pattern not in sabotage.catches:
            sabotage = replace(sabotage, may={**sabotage.may, pattern: why})
    return sabotage


def _in_the_kernel(sabotage: Sabotage) -> bool:
    """Whether the kernel's table is changed, which is undone when the ruleset on disk is loaded anew."""
    return "nft " in sabotage.breaks


SABOTAGES = tuple(
    _with_what_is_shown(_of_datagrams(_without_sessions(_without_listeners(_through_the_tunnel(sabotage)))))
    for sabotage in sorted(_ALL, key=_in_the_kernel)
)

# Checks that no sabotage can make fail on a lab of containers, each with the reason.
OUT_OF_REACH: dict[str, str] = {
    "host.apparmor": "profiles are of the machine that the containers run on; seen to fail on the lab of machines (tests/vm)",
    "host.confines-ssh": "never proven: sshd can't be confined without confining the administrator's shell",
    "host.kernel-of-the-machine": "these settings belong to the machine that the containers run on",
    "time.right": "the clock belongs to the machine that the containers run on, and it is the operator's own",
}
