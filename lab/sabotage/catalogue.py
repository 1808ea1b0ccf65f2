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
# Where one of the first falls, so does the second, and why; in this order, as one may follow from another.
_FOLLOWS = (
    (("broker.accepts-devices", "broker.delivers"), "alerts.delivers", "nobody hears it who listens at the broker"),
    (("broker.accepts-devices",), "tls.tickets-of-broker", "there are no sessions with the broker to look at"),
    (("scan.udp-from-iot",), "coap.no-plaintext", "plain CoAP is let through, too"),
    (("gateway.coap.coaps-from-iot",), "coap.*", "the endpoint is reached by nobody"),
    (("intake.stores",), "dashboards.live-data", "so nothing new is shown"),
)


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


def _with_what_follows(sabotage: Sabotage) -> Sabotage:
    """What falls with what it fells, unless that is what it is made for."""
    for causes, pattern, why in _FOLLOWS:
        if matching((*sabotage.expected, *sabotage.tolerated), causes) and pattern not in sabotage.catches:
            sabotage = replace(sabotage, may={**sabotage.may, pattern: why})
    return sabotage


def _in_the_kernel(sabotage: Sabotage) -> bool:
    """Whether the kernel's table is changed, which is undone when the ruleset on disk is loaded anew."""
    return "nft " in sabotage.breaks


SABOTAGES = tuple(_with_what_follows(_through_the_tunnel(sabotage)) for sabotage in sorted(_ALL, key=_in_the_kernel))

# Checks that no sabotage can make fail on a lab of containers, each with the reason.
OUT_OF_REACH: dict[str, str] = {
    "host.apparmor": "profiles are of the machine that the containers run on; seen to fail on the lab of machines (tests/vm)",
    "host.audit": "a container has no audit system of its own; seen to fail on the lab of machines (tests/vm)",
    "host.boot-loader": "no gateway of a lab is started by GRUB; seen to fail on Debian's GRUB itself (tests/roles) and on a machine with its menu (vm-grub)",
    "host.confines-ssh": "never proven: sshd can't be confined without confining the administrator's shell",
    "host.kernel-of-the-machine": "these settings belong to the machine that the containers run on",
    "time.right": "the clock belongs to the machine that the containers run on, and it is the operator's own",
}
