"""The ruleset of a gateway; `deploy` loads it so that it can undo itself, `invoke revoke` at once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Interface, IPv6Interface, collapse_addresses
from types import MappingProxyType
from typing import Any

from gatehouse.proof.credentials import CUT_OFF_HARDWARE
from gatehouse.site import INTERNET, MANAGEMENT, Device, Network
from gatehouse.site.egress import BOGONS, HTTPS_PORT, PRIVATE, RESOLVER_PORTS
from gatehouse.site.model import IPNetwork
from gatehouse.site.remote import INTERFACE
from roles import rendering
from roles.target import Target

RULESET = "/etc/gatehouse/firewall.nft"
LOADER = "/usr/lib/gatehouse/firewall"
CHECK = f'nft -c -f "$STAGED"{RULESET}'
# Where devices are counted by their hardware addresses and bridges (nft(8), dynamic sets), and what for.
COUNTED = {
    "refused_onwards": "to elsewhere",
    "refused_here": "to the gateway",
    "over_limit": "more than it may",
    "forged": "with a forged sender",
}
BROKER = "mosquitto"
COAP = "coap"
NAME_LIFE = "12h"  # of an address that a name was resolved to


def ruleset(target: Target) -> rendering.File:
    """The ruleset of a gateway, from its policy."""
    networks = target.gateway.networks
    prefixes = {s: n.prefixes for s, n in networks.items() if s != INTERNET}
    bridges = {s: target.gateway.bridge(s) for s in networks}
    site = target.site
    return rendering.template(
        "nftables",
        RULESET,
        policy=target.policy,
        # The others, thousands of them, are in none of its sets.
        devices=[device for device in site.devices_of(target.name) if device.status != "active"],
        prefixes=prefixes,
        bridges=bridges,
        by_interface=partial(by_interface, bridges),
        internet=INTERNET,
        management=MANAGEMENT,
        tunnel=INTERFACE,
        probe=CUT_OFF_HARDWARE,
        destinations=used(target),
        names=names(target),
        name_set=name_set,
        name_life=NAME_LIFE,
        profiles=[p.destinations for p in target.policy.profiles],
        keys=Keys.of(target),
        own_bridges=sorted({target.gateway.bridge(d.segment) for p in target.policy.profiles for d in p.devices}),
        limited={s: limits for s in prefixes if (limits := site.segments[s].limits) is not None},
        broker_ports=sorted({r.listener.port for r in target.policy.input if r.service == BROKER}),
        coap_ports=sorted({r.listener.port for r in target.policy.input if r.service == COAP}),
        counted=COUNTED,
        bogons=bogons(networks.get(INTERNET)),
        resolver_ports=RESOLVER_PORTS,
        https_port=HTTPS_PORT,
        foreign={v: list(_of(target.policy.foreign_resolvers, v)) for v in (4, 6)},
    )


def by_interface(
    bridges: Mapping[str, str], chain: str, segments: Iterable[str], others: Mapping[str, str] = MappingProxyType({})
) -> str:
    """The rule that leads packets to `CHAIN_SEGMENT` by the interface they came by; `others` are chains by interface.

    One look-up, however many there are (nft(8), verdict maps).
    """
    chains = {bridges[segment]: f"{chain}_{segment}" for segment in segments} | dict(others)
    if len(chains) == 1:
        return "".join(f'iifname "{interface}" goto {name}' for interface, name in chains.items())
    entries = (f'"{interface}" : goto {name}' for interface, name in chains.items())
    return f"iifname vmap {{ {', '.join(entries)} }}"


def used(target: Target) -> dict[str, dict[str, Any]]:
    """The destinations that anybody here may use: port, transport, names, and addresses by family."""
    policy = target.policy
    wanted = {r.destination for r in policy.forward} | {name for p in policy.profiles for name in p.destinations}
    return {
        name: {
            "port": d.port,
            "transport": d.transport,
            "names": d.names,
            "addresses": {v: list(_of(d.addresses, v)) for v in (4, 6)},
        }
        for name, d in policy.destinations.items()
        if name in wanted
    }


def names(target: Target) -> list[str]:
    """The names on the internet that anybody here may use, each once."""
    return sorted({name for destination in used(target).values() for name in destination["names"]})


def name_set(name: str, version: int) -> str:
    """The set of the addresses that a name was resolved to. A hash: names may be longer than those of sets."""
    return f"name_{hashlib.sha256(name.encode()).hexdigest()[:12]}_{version}"


@dataclass(frozen=True)
class Keys:
    """How devices with destinations of their own are told: `(key, number of the profile)`.

    By hardware and IPv4 address together where both are known, so that a forged one alone gains nothing; by the one
    that is known otherwise. Over IPv6 devices make their addresses themselves: there it is the hardware address alone.
    """

    both: tuple[tuple[str, int], ...]
    hardware: tuple[tuple[str, int], ...]
    hardware6: tuple[tuple[str, int], ...]
    address: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, target: Target) -> Keys:
        """The keys of every profile's devices."""
        found = [(d, n) for n, profile in enumerate(target.policy.profiles, start=1) for d in profile.devices]

        def keyed(kind: str) -> tuple[tuple[str, int], ...]:
            return tuple((key, number) for device, number in found if (key := cls._key(device, kind)))

        return cls(keyed("both"), keyed("hardware"), keyed("hardware6"), keyed("address"))

    @staticmethod
    def _key(device: Device, kind: str) -> str:
        hardware, address = device.hardware_address, device.address
        if kind == "both":
            return f"{hardware} . {address}" if hardware and address else ""
        if kind == "address":
            return str(address) if address and not hardware else ""
        return str(hardware) if hardware and (kind == "hardware6" or not address) else ""


def bogons(uplink: Network | None) -> dict[int, list[str]]:
    """Senders that the internet can't have, by family: not the uplink's own prefix, whatever that is."""
    if uplink is None:
        return {4: [], 6: []}
    own = [a.network for a in (uplink.ipv4, uplink.ipv6) if isinstance(a, IPv4Interface | IPv6Interface)]
    fixed = isinstance(uplink.ipv4, IPv4Interface) and not any(p.overlaps(uplink.ipv4.network) for p in PRIVATE[:4])
    private = uplink.upstream == "private" or (uplink.upstream is None and not fixed)
    known = [*BOGONS, *(() if private else PRIVATE)]
    apart = [b for b in known if not any(b.version == o.version and b.overlaps(o) for o in own)]
    return {v: [str(n) for n in _of(apart, v)] for v in (4, 6)}


def _of(networks: Any, version: int) -> Iterator[IPNetwork]:
    """Those of a family, none within another: the kernel takes no overlapping intervals."""
    yield from collapse_addresses(n for n in networks if n.version == version)
