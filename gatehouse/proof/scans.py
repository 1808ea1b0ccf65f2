"""Which scans a gateway is put to from every segment: all TCP ports, and of UDP what is declared or often forgotten."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gatehouse.proof import expect
from gatehouse.proof.expect import Place, Work, split
from gatehouse.site import Policy

# Packets a second, of each of the scans that run at the same time.
RATE = 8000
# Of UDP, what is known for services nobody meant to run: TFTP, portmapper, NetBIOS, SNMP, LDAP, IKE, syslog, RIP, SSDP,
# STUN, mDNS, LLMNR, CoAP, memcached, WireGuard's usual one, and more.
COMMON_UDP = frozenset(
    (
        7,
        19,
        53,
        67,
        68,
        69,
        111,
        123,
        137,
        138,
        161,
        389,
        443,
        500,
        514,
        520,
        546,
        547,
        623,
        631,
        1194,
        1701,
        1812,
        1900,
    )
) | frozenset((2049, 3478, 4500, 5060, 5353, 5355, 5683, 5684, 8086, 8125, 10001, 11211, 51820))


def work(policy: Policy, places: Mapping[str, Place], labels: Iterable[str]) -> Work:
    """Of each position: the gateway's addresses in its segment. `labels` are the ports that mean something there."""
    datagrams = COMMON_UDP | {split(label)[0] for label in labels if label.endswith("/udp")}
    found: Work = {}
    for segment, place in places.items():
        own = [address for address in place.gateway if place.family(address)]
        expected = sorted(expect.admitted(policy, segment, "tcp"))
        common = {"kind": "nmap", "transport": "tcp"}
        found[segment] = [
            {"id": f"scan:tcp@{a}", **common, "address": a, "ports": "all", "rate": RATE, "expected": expected}
            for a in own
        ]
        found[segment] += [
            {"id": f"scan:udp@{a}", **common, "transport": "udp", "address": a, "ports": sorted(datagrams)} for a in own
        ]
    return found
