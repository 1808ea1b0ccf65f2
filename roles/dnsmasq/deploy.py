"""Installs, configures and activates dnsmasq."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface, ip_network
from pathlib import Path

from pyinfra.api import deploy

from gatehouse.site import INTERNET
from gatehouse.site.pages import FRONT, hosts
from roles import lifecycle, nftables
from roles.apparmor import profile
from roles.dnsmasq import service
from roles.nftables import ruleset
from roles.target import Target
from roles.undo import guarded, undo_at_once

CHANGE = "names"
UNIT = service.units[0]
CONFIGURATION = "/etc/gatehouse/dnsmasq.conf"
UNIT_FILE = f"/etc/systemd/system/{UNIT}"
LOADS = (CONFIGURATION, UNIT_FILE)
LEASES_AT_MOST = 65_536
# What is no address of the internet: this host, private, shared, loopback, link-local, mapped (RFC 6890, RFC 4193).
NOT_PUBLIC = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "::/127",
    "::ffff:0:0/96",
    "fc00::/7",
    "fe80::/10",
)


@deploy("Addresses and names")
def apply(target: Target) -> None:
    """Install, then configure and activate as one change: where dnsmasq does not run on it, it runs on as before."""
    install()
    configure_and_activate(target)


def install() -> None:
    """The program alone: the unit is the kit's."""
    lifecycle.packages(*service.packages, name="Install dnsmasq")


def configure_and_activate(target: Target) -> None:
    """The segments that the declaration names, and never the uplink.

    A restart: leases are on disk, and names are asked again. Then it must know the gateway's own name.
    """
    stamp = lifecycle.stamped(UNIT, LOADS, reloads=False)
    files = (
        lifecycle.Directory("/etc/gatehouse"),
        configuration(target),
        lifecycle.template(
            "dnsmasq",
            UNIT_FILE,
            configuration=CONFIGURATION,
            user=service.user,
            firewall=nftables.service.units[0],
            profile=profile(service.name),
        ),
        stamp,
    )
    servers = [str(s.ipv4.ip) for s in segments(target) if s.dns and s.ipv4]
    probe = Path(__file__).with_name("probe.py").read_text()
    prove = f"python3 -c {shlex.quote(probe)} {shlex.join([f'gateway.{target.site.domain}', *servers])}"
    guarded(
        CHANGE,
        partial(lifecycle.files._inner, *files, check=f'dnsmasq --test --conf-file="$STAGED"{CONFIGURATION} 2>&1'),
        partial(lifecycle.running._inner, UNIT, loads=LOADS, prove=prove, undo=undo_at_once(CHANGE)),
        saves=[*LOADS, stamp.path],
        restore=f"systemctl daemon-reload; systemctl reset-failed {UNIT} || true; systemctl restart {UNIT} || true",
        name="Configure and run dnsmasq",
    )


@dataclass(frozen=True)
class Served:
    """A segment, what it gets (names, addresses from `pool`, time), and the gateway's addresses there."""

    name: str
    bridge: str
    dns: bool
    ntp: bool
    pool: tuple[IPv4Address, IPv4Address] | None
    ipv4: IPv4Interface | None
    ipv6: IPv6Interface | None
    addresses: tuple[str, ...]


def dynamic(gateway: IPv4Interface) -> tuple[IPv4Address, IPv4Address]:
    """First and last address for whoever comes: the half of the prefix in which the gateway is not."""
    lower, upper = gateway.network.subnets()
    return (lower[1], lower[-1]) if gateway.ip in upper else (upper[0], upper[-2])


def segments(target: Target) -> list[Served]:
    """The segments that may reach the resolver or the address server, in the site's order."""
    reach = {(r.segment, r.service, r.listener.name) for r in target.policy.input}
    served = []
    for name in target.policy.segments:
        network = target.gateway.networks[name]
        ipv4 = network.ipv4 if isinstance(network.ipv4, IPv4Interface) else None
        dns, ntp = (name, service.name, "dns") in reach, (name, "chrony", "ntp") in reach
        pool = dynamic(ipv4) if ipv4 and (name, service.name, "dhcp") in reach else None
        # A router's advertisement is for a prefix of this length alone (RFC 4862 §5.5.3).
        ipv6 = (
            network.ipv6 if isinstance(network.ipv6, IPv6Interface) and network.ipv6.network.prefixlen == 64 else None
        )
        if name != INTERNET and (dns or pool):
            addresses = tuple(str(address) for address in network.addresses)
            advertised = ipv6 if (name, service.name, "dhcp") in reach else None
            served.append(Served(name, target.gateway.bridge(name), dns, ntp, pool, ipv4, advertised, addresses))
    return served


def configuration(target: Target) -> lifecycle.File:
    """What `dnsmasq` reads."""
    served = segments(target)
    devices = target.site.devices_of(target.name)
    room = sum(1 + int(s.pool[1]) - int(s.pool[0]) for s in served if s.pool) + len(devices)
    return lifecycle.template(
        "dnsmasq",
        CONFIGURATION,
        domain=target.site.domain,
        resolvers=target.gateway.resolvers,
        segments=served,
        inside=_inside(target),
        names=_names(target, served),
        wanted=[(name, ruleset.name_set(name, 4), ruleset.name_set(name, 6)) for name in ruleset.names(target)],
        devices=devices,
        leases=min(room, LEASES_AT_MOST),
    )


def _inside(target: Target) -> list[str]:
    """Prefixes that no name of the internet may lead to: those that are not public, and the site's own."""
    known = [ip_network(prefix) for prefix in NOT_PUBLIC]
    networks = target.gateway.networks.items()
    own = [prefix for name, network in networks if name != INTERNET for prefix in network.prefixes]
    public = [p for p in own if not any(p.version == k.version and p.subnet_of(k) for k in known)]
    return [str(prefix) for prefix in (*known, *public)]


def _names(target: Target, served: list[Served]) -> dict[str, list[str]]:
    """The gateway's names and their addresses: `broker` where devices may reach it, web pages where operators may.

    dnsmasq answers with the address in the asker's own segment, but for IPv4 only (`localise-queries`): an IPv6 address
    is given where it can't be of another segment, or there is no other.
    """

    def addresses(within: list[Served]) -> list[str]:
        return [a for s in within for a in (s.addresses if len(within) == 1 else s.addresses[:1])]

    own = [s for s in served if s.dns]
    names = {"gateway": addresses(own), target.name: addresses(own)}
    may = {r.segment for r in target.policy.input if r.service == "mosquitto"}
    if reach := [s for s in own if s.name in may]:
        names["broker"] = addresses(reach)
    for name in ("coap", "updates"):
        may = {r.segment for r in target.policy.input if r.service == name}
        if reach := [s for s in own if s.name in may]:
            names[name] = addresses(reach)
    names = {f"{name}.{target.site.domain}": found for name, found in names.items()}
    may = {r.segment for r in target.policy.input if r.service == FRONT and r.listener.name == "https"}
    if reach := [s for s in own if s.name in may]:
        # Public names, too: who is inside needs no way round by the internet.
        names |= {page.name: addresses(reach) for page in hosts(target.site, target.name) if page.name not in names}
    return names
