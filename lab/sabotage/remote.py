"""Sabotages of the tunnel for remote management."""

from __future__ import annotations

from gatehouse.site.remote import INTERFACE
from lab.sabotage.model import Sabotage
from lab.sabotage.network import ANSWERS_DATAGRAMS

_NOBODY = "the suite's own peer doesn't come in, either"
# RFC 7748 §6.1: Alice's public key, whose private one is printed beside it.
_PUBLISHED = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="

SABOTAGES = (
    Sabotage(
        name="tunnel-onwards",
        title="Who comes through the tunnel is let into every segment, and not into management alone",
        breaks=f"""admit forward 'iifname "{INTERFACE}" counter accept'""",
        catches=("remote.reaches-nothing-else",),
    ),
    Sabotage(
        name="tunnel-nowhere",
        title="The rules that let peers from the tunnel into management are gone",
        breaks="firewall '/comment \"tunnel(: | to management)/d'",
        catches=("remote.reaches-management",),
        may={"remote.reaches-nothing-else": "nothing at all is reached"},
        apart_from=("forward-all",),
    ),
    Sabotage(
        name="tunnel-for-all",
        title="The tunnel's port is open to every segment",
        breaks="admit input 'fib daddr . iif type local udp dport 51820 counter accept'",
        catches=("gateway.wireguard.tunnel-from-{iot,management,guest,internal}",),
    ),
    # After those that load the firewall.
    Sabotage(
        name="tunnel-stranger",
        title="Somebody has let in a peer by hand, with a key that everybody knows",
        breaks=f"wg set {INTERFACE} peer {_PUBLISHED} allowed-ips 10.10.90.77/32",
        catches=("remote.{refuses-strangers,peers}",),
        apart_from=("tunnel-gone", "tunnel-impostor"),
    ),
    Sabotage(
        name="tunnel-without-shared-key",
        title="The suite's peer needs no key beside its own: the one that it shared with the gateway is gone",
        breaks=f"""
            peer=$(wg show {INTERFACE} allowed-ips | sed -n 's|\t10.10.90.254/32$||p')
            wg set {INTERFACE} peer "$peer" preshared-key /dev/null
        """,
        catches=("remote.needs-shared-key",),
        may={"remote.*": _NOBODY},
    ),
    Sabotage(
        name="tunnel-gone",
        title="The tunnel is down",
        breaks="systemctl stop gatehouse-tunnel.service",
        catches=("host.runs-wireguard", "gateway.wireguard.tunnel-from-internet"),
        may={"remote.*": _NOBODY, "gateway.wireguard.*": "nobody is answered"},
    ),
    Sabotage(
        name="tunnel-impostor",
        title="Something else than WireGuard answers on the tunnel's port, whoever asks",
        breaks=f"""
            systemctl stop gatehouse-tunnel.service
            stray tunnel "{ANSWERS_DATAGRAMS}" 51820
        """,
        catches=("remote.silent",),
        may={
            "remote.*": _NOBODY,
            "host.runs-wireguard": "its unit is not active",
            "scan.udp-from-internet": "it answers a scan",
        },
        ends="gone tunnel",
    ),
)
