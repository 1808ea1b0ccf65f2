"""The ruleset of a gateway; `deploy` loads it so that it can undo itself, `invoke revoke` at once."""

from __future__ import annotations

from gatehouse.proof.credentials import CUT_OFF_HARDWARE
from gatehouse.site import INTERNET
from roles import rendering
from roles.target import Target

RULESET = "/etc/gatehouse/firewall.nft"
LOADER = "/usr/lib/gatehouse/firewall"
CHECK = f'nft -c -f "$STAGED"{RULESET}'


def ruleset(target: Target) -> rendering.File:
    """The ruleset of a gateway, from its policy."""
    networks = target.gateway.networks
    prefixes = {s: n.prefixes for s, n in networks.items() if s != INTERNET}
    return rendering.template(
        "nftables",
        RULESET,
        policy=target.policy,
        # The others, thousands of them, are in none of its sets.
        devices=[device for device in target.site.devices_of(target.name) if device.status != "active"],
        prefixes=prefixes,
        bridges={s: target.gateway.bridge(s) for s in networks},
        internet=INTERNET,
        probe=CUT_OFF_HARDWARE,
    )
