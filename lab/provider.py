"""The internet host: it routes and masquerades for the lab, answers DNS and NTP, and plays the services out there.

The public CA is one of these (`lab.acme`).
"""

from __future__ import annotations

from collections.abc import Iterable

from lab import acme
from lab.topology import Topology

# On this host `eth0` is Docker's side; the lab's internet is behind this one.
INTERFACE = "public"

START = f"""
set -e
nft -f /etc/lab/provider.nft
pgrep -x dnsmasq >/dev/null || dnsmasq --conf-file=/etc/lab/dnsmasq.conf
mkdir -p /run/chrony && chown _chrony: /run/chrony
pgrep -x chronyd >/dev/null || chronyd -x -f /etc/lab/chrony.conf
{acme.START}"""


def files(topology: Topology) -> dict[str, tuple[bytes, int]]:
    """`etc/lab/{provider.nft,dnsmasq.conf,chrony.conf,acme.json}` as path → (content, mode)."""
    texts = {
        "provider.nft": _firewall(topology),
        "dnsmasq.conf": _names(topology),
        # Serves this machine's clock as it is (-x: never sets it). The lab has no other source of time.
        "acme.json": acme.CONFIGURATION,
        "chrony.conf": "local stratum 2\nallow all\ncmdport 0\npidfile /run/chrony/chronyd.pid\n",
    }
    return {f"etc/lab/{name}": (text.encode(), 0o644) for name, text in texts.items()}


def _firewall(topology: Topology) -> str:
    families = ((4, "ip"), (6, "ip6"))
    unmasked, forward, answer, leave = [], [], [], []
    for version, family in families:
        bogons = _list(n for n in topology.private_networks if n.version == version)
        if bogons:
            unmasked.append(f"ct state new {family} saddr {bogons} drop")
            forward += [f"{family} daddr {bogons} drop", f"{family} saddr {bogons} drop"]
        for service in topology.services:
            if service.version == version:
                to = f"{service.ip}:7" if version == 4 else f"[{service.ip}]:7"
                match = f'iifname "{INTERFACE}" {family} daddr {service.ip} meta l4proto {{ tcp, udp }}'
                answer.append(f"{match} dnat {family} to {to}")
        uplinks = _list({a.network for a in topology.internet.addresses if a.version == version})
        if uplinks:
            leave.append(f'{family} saddr {uplinks} oifname != "{INTERFACE}" masquerade')
    forward.append(f'iifname != "{INTERFACE}" ct state new drop')
    # What is behind the gateways has no address out here: without masquerading it gets no answer, as from any provider,
    # and never a way round the gateway through the operator's machine.
    chains = (
        ("input", "type filter hook input priority filter; policy accept;", unmasked),
        ("forward", "type filter hook forward priority filter; policy accept;", forward),
        ("prerouting", "type nat hook prerouting priority dstnat; policy accept;", answer),
        ("postrouting", "type nat hook postrouting priority srcnat; policy accept;", leave),
    )
    lines = ["table inet provider", "delete table inet provider", "table inet provider {"]
    for name, hook, rules in chains:
        lines += [f"    chain {name} {{", f"        {hook}", *(f"        {rule}" for rule in rules), "    }"]
    return "\n".join([*lines, "}", ""])


def _names(topology: Topology) -> str:
    lines = ["bind-dynamic", "no-hosts", "no-dhcp-interface=*", "user=nobody", "pid-file=/run/lab-dnsmasq.pid"]
    lines += [f"listen-address={address.ip}" for address in topology.internet.addresses]
    seen: dict[int, int] = {4: 0, 6: 0}
    for service in topology.services:
        name = ("service.example", "other.example")[seen[service.version]]
        seen[service.version] += 1
        lines.append(f"address=/{name}/{service.ip}")
    # The pool's names lead to the lab's own clock: real NTP rarely gets out of where labs run.
    lines += [f"address=/pool.ntp.org/{address.ip}" for address in topology.internet.addresses]
    lines += [f"address=/{acme.NAME}/{address.ip}" for address in topology.internet.addresses]
    for gateway in topology.gateways:
        for name in gateway.public_names:
            lines += [f"address=/{name}/{address.ip}" for address in gateway.port(topology.internet.segment).addresses]
    return "\n".join([*lines, ""])


def _list(values: Iterable[object]) -> str:
    texts = sorted(str(value) for value in values)
    return f"{{ {', '.join(texts)} }}" if texts else ""
