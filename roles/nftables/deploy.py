"""Installs, configures and activates the firewall."""

from __future__ import annotations

from functools import partial

from pyinfra.api import deploy

from roles import lifecycle
from roles.nftables import service
from roles.nftables.facts import DIGEST, LOADED
from roles.nftables.operations import loaded
from roles.nftables.ruleset import CHECK, LOADER, RULESET, ruleset
from roles.target import Target
from roles.undo import guarded

UNIT = service.units[0]
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
