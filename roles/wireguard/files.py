"""What the tunnel's role puts on a gateway; `deploy` activates it, `wireguard.remove` brings who is left."""

from __future__ import annotations

from gatehouse.identity import wireguard as keys
from gatehouse.site.remote import INTERFACE, PROBE, Peer, Remote
from roles import rendering
from roles.nftables import service as nftables
from roles.target import Target
from roles.wireguard import service

UNIT = service.units[0]
UNIT_FILE = f"/etc/systemd/system/{UNIT}"
FOLDER = "/etc/gatehouse/wireguard"
PEERS = f"{FOLDER}/{INTERFACE}.conf"
PROGRAM = "/usr/lib/gatehouse/tunnel"
LOADS = (PEERS, PROGRAM, UNIT_FILE)
# Nobody may come any more: what is left of it would let in who had a key.
WITHDRAW = (
    f"systemctl disable --now {UNIT} 2>/dev/null; ip link delete {INTERFACE} 2>/dev/null;"
    f" rm -f {' '.join(LOADS)}; systemctl daemon-reload"
)
# Peers that are gone are cut, those that stay don't notice.
FOLLOW = f"if systemctl is-active --quiet {UNIT}; then systemctl reload {UNIT}; fi"


def remote_of(target: Target) -> Remote:
    """The site's remote management; the role is only deployed where there is one."""
    remote = target.site.remote
    assert remote is not None  # noqa: S101  `only_with`
    return remote


def everyone(target: Target) -> dict[str, Peer]:
    """The peers of a gateway, the compliance suite's among them."""
    remote = remote_of(target)
    return {**remote.peers, PROBE: Peer(number=remote.tunnels[target.name].probe)}


def peers(target: Target) -> rendering.File:
    """The gateway's key, and who may come: wg(8), CONFIGURATION FILE FORMAT. Nobody but root reads it."""
    remote, vault = remote_of(target), target.pki.vault
    tunnel = remote.tunnels[target.name]
    return rendering.template(
        "wireguard",
        PEERS,
        mode=0o600,
        key=keys.gateway_key(vault, target.name),
        port=target.site.listener(service.name, "tunnel").port,
        peers=[
            {
                "name": name,
                "public": keys.peer_public(vault, name, peer),
                "shared": keys.shared_key(vault, target.name, name),
                "address": tunnel.address(peer.number),
            }
            for name, peer in sorted(everyone(target).items())
        ],
    )


def configuration(target: Target) -> list[rendering.File]:
    """The peers, the program that makes the tunnel, its unit."""
    tunnel = remote_of(target).tunnels[target.name]
    return [
        peers(target),
        rendering.template("wireguard", PROGRAM, mode=0o755, interface=INTERFACE, address=tunnel.ipv4, peers=PEERS),
        rendering.template("wireguard", UNIT_FILE, program=PROGRAM, firewall=nftables.units[0]),
    ]
