"""Installs, configures and activates the firewall."""

from __future__ import annotations

from functools import partial

from pyinfra.api import deploy

from gatehouse.site import INTERNET
from roles import lifecycle
from roles.nftables import service
from roles.nftables.facts import DIGEST, LOADED
from roles.nftables.operations import loaded
from roles.target import Target
from roles.undo import guarded

UNIT = service.units[0]
RULESET = "/etc/gatehouse/firewall.nft"
LOADER = "/usr/lib/gatehouse/firewall"
CHECK = f'nft -c -f "$STAGED"{RULESET}'
UNIT_FILE = f"/etc/systemd/system/{UNIT}"


@deploy("Firewall")
def apply(target: Target) -> None:
    """Install, then configure and activate as one change that undoes itself unless it is confirmed."""
    install()
    configure_and_activate(target)


def install() -> None:
    """nft; Debian's nftables.service stays off, since its configuration flushes what others own."""
    lifecycle.packages(*service.packages, name="Install nftables")


def configure_and_activate(target: Target) -> None:
    """The ruleset, derived; a new connection must work before it stays."""
    files = (
        lifecycle.Directory("/etc/gatehouse"),
        ruleset(target),
        lifecycle.template(
            "nftables", LOADER, mode=0o755, ruleset=RULESET, loaded=LOADED, digest=DIGEST.format(file=RULESET)
        ),
        lifecycle.template("nftables", UNIT_FILE, loader=LOADER),
    )
    guarded(
        "firewall",
        partial(lifecycle.files._inner, *files, check=CHECK),
        partial(loaded, UNIT, RULESET),
        saves=[RULESET, LOADER, UNIT_FILE],
        restore=(
            f"systemctl daemon-reload; if [ -e {RULESET} ]; then {LOADER};"
            f" else systemctl stop {UNIT}; nft delete table inet gatehouse 2>/dev/null || true; fi"
        ),
        name="Load the firewall, confirmed over a new connection",
    )


def ruleset(target: Target) -> lifecycle.File:
    """The ruleset of a gateway, from its policy."""
    networks = target.gateway.networks
    prefixes = {s: n.prefixes for s, n in networks.items() if s != INTERNET}
    return lifecycle.template(
        "nftables",
        RULESET,
        policy=target.policy,
        devices=target.site.devices_of(target.name),
        prefixes=prefixes,
        bridges={s: target.gateway.bridge(s) for s in networks},
        internet=INTERNET,
    )
