"""Sends frames on the trunk's bare wire and tells what comes back on it; runs in the field machine, with scapy.

Reads `{"seconds": 8, "frames": [{"name", "tags": [10], "mac", "source", "address"}, …]}`; each frame is an echo request
of a made-up neighbour. Prints `{name: [[tag, …], …]}`: the tags of each answer that came.
"""

import json
import logging
import sys
import time

logging.getLogger("scapy.runtime").setLevel(logging.ERROR)
from scapy import all as sc  # noqa: E402

TRUNK = "trunk"
MAC = "02:00:00:00:66:01"
asked = json.load(sys.stdin)


def tagged(tags, to):
    frame = sc.Ether(src=MAC, dst=to)
    for tag in tags:
        frame /= sc.Dot1Q(vlan=tag)
    return frame


def request(number, wanted):
    source, address = wanted["source"], wanted["address"]
    if ":" in address:
        return sc.IPv6(src=source, dst=address) / sc.ICMPv6EchoRequest(id=0x6600 + number)
    return sc.IP(src=source, dst=address) / sc.ICMP(type=8, id=0x6600 + number)


def answer(frame):
    """Says where the made-up neighbour is when it is asked for: otherwise nobody could answer it."""
    tags = [layer.vlan for layer in layers(frame, sc.Dot1Q)]
    to = tagged(tags, frame.src)
    if sc.ARP in frame and frame[sc.ARP].op == 1 and frame[sc.ARP].pdst in sources:
        asks = frame[sc.ARP]
        told = sc.ARP(op=2, hwsrc=MAC, psrc=asks.pdst, hwdst=asks.hwsrc, pdst=asks.psrc)
        sc.sendp(to / told, iface=TRUNK, verbose=False)
    elif sc.ICMPv6ND_NS in frame and frame[sc.ICMPv6ND_NS].tgt in sources:
        here = frame[sc.ICMPv6ND_NS].tgt
        told = sc.ICMPv6ND_NA(tgt=here, S=1, O=1) / sc.ICMPv6NDOptDstLLAddr(lladdr=MAC)
        sc.sendp(to / sc.IPv6(src=here, dst=frame[sc.IPv6].src) / told, iface=TRUNK, verbose=False)


def layers(frame, kind):
    found = []
    while layer := frame.getlayer(kind, len(found) + 1):
        found.append(layer)
    return found


def keep(frame):
    answer(frame)
    for kind in (sc.ICMP, sc.ICMPv6EchoReply):
        if kind in frame and (kind is sc.ICMPv6EchoReply or frame[sc.ICMP].type == 0):
            number = frame[kind].id - 0x6600
            if 0 <= number < len(asked["frames"]):
                found[asked["frames"][number]["name"]].append([layer.vlan for layer in layers(frame, sc.Dot1Q)])


sources = {wanted["source"] for wanted in asked["frames"]}
found = {wanted["name"]: [] for wanted in asked["frames"]}
sniffer = sc.AsyncSniffer(iface=TRUNK, prn=keep, store=False, filter=f"not ether src {MAC}")
sniffer.start()
time.sleep(2)
for _ in range(2):
    for number, wanted in enumerate(asked["frames"]):
        sc.sendp(tagged(wanted["tags"], wanted["mac"]) / request(number, wanted), iface=TRUNK, verbose=False)
    time.sleep(asked["seconds"])
sniffer.stop()
print(json.dumps(found))
