"""Configures and activates the segments."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

from pyinfra.api import deploy

from roles import lifecycle
from roles.networkd import port, ports, service
from roles.networkd.operations import configured, taken_over
from roles.target import Target
from roles.undo import guarded, undo_at_once

CHANGE = "network"
UNIT = service.units[0]
FOLDER = "/etc/systemd/network"


@deploy("Segments")
def apply(target: Target) -> None:
    """Install, then configure and activate as one change: undone unless networkd takes it and it is confirmed."""
    install()
    configure_and_activate(target)


def install() -> None:
    """networkd is part of systemd."""
    lifecycle.packages(*service.packages, name="Install iproute2")


def configure_and_activate(target: Target) -> None:
    """Bridges, ports and addresses; a new connection must work before the change stays."""
    networks = target.gateway.networks
    files = list(_files(target))
    loads = [file.path for file in files]
    declared = ports(target.site, target.name)
    isolated = frozenset(port(target.site, target.name, s) for s in networks if target.site.segments[s].isolated)
    addresses = {
        target.gateway.bridge(segment): frozenset(
            str(a) for a in (n.ipv4, n.ipv6) if a is not None and not isinstance(a, str)
        )
        for segment, n in networks.items()
    }
    stamp = lifecycle.stamped(UNIT, loads, reloads=False)
    guarded(
        CHANGE,
        partial(lifecycle.files._inner, *files, stamp),
        partial(taken_over, [n.interface or n.trunk or "" for n in networks.values()]),
        partial(configured, UNIT, loads, addresses, declared, isolated, undo_at_once(CHANGE)),
        saves=[FOLDER, "/etc/network", stamp.path],
        restore=_restore(addresses, [name for name in declared if f"{FOLDER}/{_vlan(name)}" in loads]),
        name="Configure segments, confirmed over a new connection",
    )


def _restore(bridges: Iterable[str], vlans: Iterable[str]) -> str:
    """Shell that gives the ports back: bridges, VLANs and ports that the former configuration doesn't know go."""
    made = {**{name: f"20-gatehouse-{name}.netdev" for name in bridges}, **{name: _vlan(name) for name in vlans}}
    gone = "".join(f"[ -e {FOLDER}/{file} ] || ip link delete dev {name} || true; " for name, file in made.items())
    members = " ".join(f"/sys/class/net/{bridge}/brif/*" for bridge in bridges)
    return (
        f"{gone}for p in {members}; do [ ! -e $p ] || [ -e {FOLDER}/24-gatehouse-${{p##*/}}.network ]"
        " || ip link set dev ${p##*/} nomaster || true; done;"
        f" systemctl daemon-reload; systemctl reset-failed {UNIT} || true; systemctl restart {UNIT} || true;"
        " ! systemctl is-enabled -q networking.service || systemctl restart networking.service"
    )


def _vlan(name: str) -> str:
    return f"22-gatehouse-{name}.netdev"


def _files(target: Target) -> Iterator[lifecycle.File]:
    """One .netdev and .network a bridge, one .network a port, and the VLANs of each trunk."""
    trunks: dict[str, list[str]] = {}
    for segment, network in target.gateway.networks.items():
        bridge, member = target.gateway.bridge(segment), port(target.site, target.name, segment)
        yield _unit(f"20-gatehouse-{bridge}.netdev", "bridge.netdev", name=bridge, description=segment)
        yield _unit(f"25-gatehouse-{bridge}.network", "bridge.network", name=bridge, network=network)
        yield _unit(f"24-gatehouse-{member}.network", "port.network", name=member, bridge=bridge,
                    isolated=target.site.segments[segment].isolated)  # fmt: skip
        if network.trunk:
            trunks.setdefault(network.trunk, []).append(member)
            vlan = target.site.segments[segment].vlan
            yield _unit(_vlan(member), "vlan.netdev", name=member, vlan=vlan)
    for trunk, vlans in trunks.items():
        yield _unit(f"23-gatehouse-{trunk}.network", "trunk.network", name=trunk, vlans=vlans)


def _unit(file: str, kind: str, **context: object) -> lifecycle.File:
    return lifecycle.template("networkd", f"{FOLDER}/{kind}", to=f"{FOLDER}/{file}", **context)
