"""Who may reach what beyond the site's own rules: `mud.*`, `wireguard.*`."""

from __future__ import annotations

import sys

from invoke import Context, task

from commands import common
from commands.common import SITE, told


@task(
    name="import",
    positional=["file"],
    help={
        **SITE,
        "file": "the manufacturer's MUD file (RFC 8520); its signature is FILE.p7s",
        "model": "the registry's name for such devices (default: the file's model-name)",
        "ca": "the CA that signs the manufacturer's files (default: the site's)",
        "signature": "where its signature is, if not in FILE.p7s",
        "yes": "do not ask",
    },
)
@told
def mud_import(
    _: Context, file: str, site: str = "lab", model: str = "", ca: str = "", signature: str = "", yes: bool = False
) -> None:
    """Let devices of a model reach what their manufacturer lists: shows it, asks, writes it into the site's data."""
    from deploy import mud

    made = mud.plan(common.site(site), file, model, ca, signature)
    print("\n".join(made.table()), flush=True)
    if made.empty:
        print("nothing to change")
        return
    if not yes:
        common.ask(f"Allow this to devices of model {made.model}?")
    print(f"wrote {mud.apply(made)}; next: ./kit harden --site {site}")


PEER = {"name": "the peer: a laptop, a phone"}
THERE = {"gateway": "at which gateway (not needed where there is one)"}


@task(
    name="peer",
    help={
        **SITE,
        **PEER,
        **THERE,
        "public-key": "its own public key (without, the kit makes its key)",
        "out": "the file to write, 0600 (default: NAME.conf)",
        "qr": "draw it on the terminal instead, for a phone",
    },
)
@told
def wireguard_peer(
    _: Context, name: str, site: str = "lab", gateway: str = "", public_key: str = "", out: str = "", qr: bool = False
) -> None:
    """Add a peer to the tunnel for remote management, and hand its configuration over: a file, or a QR code."""
    from deploy import wireguard

    if not qr:
        written = wireguard.hand_over(common.site(site), name, public_key, gateway, out)
        print(f"wrote {written}: move it to {name}, and delete it here; next: ./kit harden --site {site}")
    elif public_key or out:
        sys.exit("wireguard.peer: --qr hands over a key of the kit's (leave --public-key and --out away)")
    elif not sys.stdout.isatty():
        sys.exit("wireguard.peer: --qr draws secrets, on a terminal only (without it, it is a file)")
    else:
        print("\n".join(wireguard.code(common.site(site), name, gateway)))


@task(name="remove", help={**SITE, **PEER})
@told
def wireguard_remove(_: Context, name: str, site: str = "lab") -> None:
    """Remove a peer of the tunnel: it is cut off at once, at every gateway, and its keys are forgotten."""
    from deploy import wireguard

    wireguard.remove(common.site(site), name, print)
