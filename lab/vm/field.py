"""The field machine: every host around the gateway as a network namespace, behind the gateway's own wires.

Of a trunk, each VLAN interface is the uplink of a bridge, and that bridge's ports are the segment's hosts: they send
untagged frames, as behind the access ports of a switch, and the gateway sees them tagged on the trunk.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Iterable, Iterator
from ipaddress import ip_interface
from itertools import groupby

from lab import provider
from lab.containers import FIELD_FILES
from lab.errors import LabError
from lab.plumbing import routes_behind
from lab.topology import INTERNET, MANAGEMENT, OPERATOR, Address, GatewayHost, Interface, Topology, neighbour
from lab.vm import console
from lab.vm.machine import Machine
from lab.wires import hardware_address, short

FIELD = "field"
OPERATORS_NAMESPACE = "operator"
CONTROL = "control"  # the card where the operator's connections come in
OUTSIDE = "outside"  # the card that leads to the real internet
CONTROL_ADDRESS = ip_interface("10.0.3.15/24")
# QEMU's own, `-netdev user`.
_OUTSIDE_ADDRESS, _OUTSIDE_ROUTER, _OUTSIDE_RESOLVER = "10.0.2.15/24", "10.0.2.2", "10.0.2.3"
# Between the machine and the operator's namespace; no address of the lab or of a site.
_NEAR, _FAR = "169.254.77.1", "169.254.77.2"
_READY = "/run/lab-field-ready"
_IP = re.compile(r"(ip (?:-n \S+ )?)[a-z][^;|&]*")


def files(topology: Topology) -> dict[str, tuple[bytes, int]]:
    """What the field machine is given at its first boot."""
    texts = {
        "etc/hostname": f"{FIELD}\n",
        "etc/hosts": f"127.0.0.1 localhost\n127.0.1.1 {FIELD}\n",
        "etc/netns/internet/resolv.conf": f"nameserver {_OUTSIDE_RESOLVER}\n",
    }
    for host in topology.hosts:
        texts[f"etc/netns/{host.name}/resolv.conf"] = f"nameserver {host.resolver}\n"
    return {
        **{path: (text.encode(), 0o644) for path, text in texts.items()},
        **FIELD_FILES,
        **provider.files(topology),
    }


def command(host: str, argv: list[str]) -> list[str]:
    """The command line that runs a program on a host, in the field machine: its network, its name."""
    named = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', host, *argv]
    return ["ip", "netns", "exec", host, *named]


def forwards(gateway: GatewayHost, contact: int) -> dict[int, int]:
    """The operator's ports on loopback and the gateway's that they lead to; `contact` leads to a fresh one's 22."""
    return {port: 22 if port == contact else port for port in gateway.ssh_ports}


def plumb(topology: Topology, machine: Machine, contact: int) -> bool:
    """Make the field machine's wires and hosts, unless it has them; returns whether they had to be made.

    Raises LabError.
    """
    script = "\n".join(_batched(_script(topology, contact)))
    version = hashlib.sha256(script.encode()).hexdigest()
    if console.run(machine, ["cat", _READY]).stdout.strip() == version:
        return False
    done = console.run(machine, ["sh", "-eu"], f"{script}\necho {version} >{_READY}\n", timeout=180)
    if done.returncode:
        raise LabError(f"lab {topology.name}: {FIELD}: {(done.stderr.strip().splitlines() or ['no plumbing'])[-1]}")
    return True


def _batched(lines: Iterable[str]) -> Iterator[str]:
    """The same with successive calls of ip(8) in a namespace made one: each takes its time in an emulated machine."""
    for where, several in groupby(lines, lambda line: found[1] if (found := _IP.fullmatch(line)) else None):
        if where is None:
            yield from several
        else:
            yield "\n".join([f"{where}-batch - <<'BATCH'", *(line.removeprefix(where) for line in several), "BATCH"])


def _script(topology: Topology, contact: int) -> Iterator[str]:
    """Shell that makes everything anew."""
    (gateway,) = topology.gateways
    yield f"rm -f {_READY}; systemctl stop 'lab-host-*' 2>/dev/null || true"
    yield "for n in $(ip netns list | cut -d' ' -f1); do ip netns pids $n | xargs -r kill; ip netns delete $n; done"
    made = " ".join(f"/sys/class/net/{n}" for n in ("seg-*", *(p.link for p in gateway.ports if p.vlan is not None)))
    yield f"sleep 0.5; for b in $(ls -d {made} 2>/dev/null); do ip link delete ${{b##*/}}; done"
    # Nothing of the machine's own speaks on the wires: only its hosts do.
    yield "sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1 net.ipv4.ip_forward=1"
    yield f"ip address replace {CONTROL_ADDRESS} dev {CONTROL}"
    yield f"ip link set {CONTROL} up"
    for port in gateway.ports:
        if port.segment != INTERNET:
            yield f"ip link set {port.interface} up"
            if port.vlan is not None:
                yield f"ip link add link {port.interface} name {port.link} type vlan id {port.vlan}"
            yield f"ip link add {_bridge(port.segment)} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
            yield f"ip link set {port.link} up master {_bridge(port.segment)}"
            yield f"ip link set {_bridge(port.segment)} up"
    for host in topology.hosts:
        yield from _host(topology.name, host.name, host.segment, host.addresses, host.routers)
    yield from _internet(topology, gateway)
    yield from _operator(topology, gateway, contact)


def _host(
    lab: str, name: str, segment: str, addresses: tuple[Interface, ...], routers: tuple[Address, ...]
) -> Iterator[str]:
    yield from _namespace(name)
    at_switch = short("sw-", name)
    hardware = hardware_address(f"{lab}:{name}/eth0")
    yield f"ip link add {at_switch} type veth peer name eth0 address {hardware} netns {name}"
    yield f"ip link set {at_switch} master {_bridge(segment)} up"
    yield from _addressed(name, "eth0", addresses, routers)


def _namespace(name: str, forwarding: int = 0) -> Iterator[str]:
    yield f"ip netns add {name}"
    yield f"ip -n {name} link set lo up"
    yield (
        f"ip netns exec {name} sysctl -qw net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.default.disable_ipv6=0"
        f" net.ipv6.conf.default.accept_ra=0 net.ipv4.ip_forward={forwarding} net.ipv6.conf.all.forwarding={forwarding}"
    )
    if name != OPERATORS_NAMESPACE:
        answering = shlex.join(command(name, ["python3", "/usr/local/sbin/lab-field"]))
        yield f"systemd-run --quiet --collect --unit=lab-host-{name} -p Restart=always {answering}"


def _addressed(
    name: str, device: str, addresses: tuple[Interface, ...], routers: tuple[Address, ...] = ()
) -> Iterator[str]:
    yield f"ip -n {name} link set {device} up"
    for address in addresses:
        yield f"ip -n {name} address replace {address} dev {device}{' nodad' if address.version == 6 else ''}"
    for router in routers:
        yield f"ip -n {name} route replace default via {router} dev {device}"


def _internet(topology: Topology, gateway: GatewayHost) -> Iterator[str]:
    """The provider: at the other end of the uplink, and with a card of its own to the real internet."""
    name, uplink = INTERNET, gateway.port(INTERNET).interface
    yield from _namespace(name, forwarding=1)
    for card, inside in ((uplink, provider.INTERFACE), (OUTSIDE, "eth0")):
        # A deleted namespace gives its cards back under the names that they had in there.
        yield f"[ -e /sys/class/net/{card} ] || ip link set {inside} name {card}"
        yield f"ip link set {card} down"
        yield f"ip link set {card} netns {name} name {inside}"
    yield from _addressed(name, "eth0", (ip_interface(_OUTSIDE_ADDRESS),))
    yield f"ip -n {name} route replace default via {_OUTSIDE_ROUTER}"
    yield from _addressed(name, provider.INTERFACE, (*topology.internet.addresses, *topology.services))
    yield from (f"ip -n {name} {route}" for route in routes_behind(gateway))
    yield shlex.join(command(name, ["sh", "-c", provider.START]))


def _operator(topology: Topology, gateway: GatewayHost, contact: int) -> Iterator[str]:
    """The operator's place in management: what comes in by the control card goes out there, by an address of there."""
    name, management = OPERATORS_NAMESPACE, gateway.port(MANAGEMENT)
    there = tuple(neighbour(address, OPERATOR) for address in management.addresses)
    yield from _host(topology.name, name, MANAGEMENT, there, ())
    yield f"ip link add lab-near type veth peer name lab-far netns {name}"
    yield f"ip address replace {_NEAR}/30 dev lab-near"
    yield "ip link set lab-near up"
    yield f"ip -n {name} address replace {_FAR}/30 dev lab-far"
    yield f"ip -n {name} link set lab-far up"
    yield f"ip netns exec {name} sysctl -qw net.ipv4.ip_forward=1"
    yield f"ip -n {name} route replace {CONTROL_ADDRESS.network} via {_NEAR}"
    yield f"ip route replace {gateway.management} via {_FAR}"
    leads = "\n".join(
        f"    iifname {CONTROL} tcp dport {port} dnat ip to {gateway.management}:{to}"
        for port, to in forwards(gateway, contact).items()
    )
    yield _nft(f"ip netns exec {name}", "leaving", "postrouting", "srcnat", '    oifname "eth0" masquerade')
    yield _nft("", "arriving", "prerouting", "dstnat", leads)


def _nft(where: str, table: str, hook: str, priority: str, rules: str) -> str:
    text = f"table inet {table}\ndelete table inet {table}\ntable inet {table} {{\n chain c {{\n"
    text += f"    type nat hook {hook} priority {priority};\n{rules}\n }}\n}}"
    return f"{where} nft -f - <<'RULES'\n{text}\nRULES"


def _bridge(segment: str) -> str:
    return f"seg-{segment}"[:15]
