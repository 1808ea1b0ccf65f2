"""Probes of the link itself: who calls itself a router or an address server, and what happens to who wants too much."""

from __future__ import annotations

import errno
import selectors
import socket
import struct
import time
from contextlib import suppress

from gatehouse.proof.probes.reach import Probe, Result, family_of, outcome_of, patience, patient

ALL_NODES, ALL_ROUTERS = "ff02::1", "ff02::2"
SOLICITATION, ADVERTISEMENT = 133, 134  # RFC 4861 §4.1, §4.2
# What a host that pretends says: a prefix that is nobody's (RFC 3849), and an address of nobody's (RFC 5737).
FALSE_PREFIX, FALSE_ADDRESS = "2001:db8:bad::", "192.0.2.66"


def routers(probe: Probe) -> Result:
    """Asks on `interface` for routers (RFC 4861 §4.1): of the first that answers its prefixes and resolvers."""
    timeout = patience(probe, 4.0)
    try:
        with _icmp6(probe["interface"], 255) as connection:
            end = time.monotonic() + timeout
            for part in (timeout / 2, timeout / 2):
                target = (ALL_ROUTERS, 0, 0, socket.if_nametoindex(probe["interface"]))
                connection.sendto(struct.pack(">BBHI", SOLICITATION, 0, 0, 0), target)
                pause = min(time.monotonic() + part, end)
                while (left := pause - time.monotonic()) > 0:
                    connection.settimeout(left)
                    try:
                        message, sender = connection.recvfrom(2048)
                    except TimeoutError:
                        break
                    if message[:1] == bytes([ADVERTISEMENT]) and len(message) >= 16:
                        return {"outcome": "answered", "server": sender[0].partition("%")[0], **advertised(message)}
    except OSError as error:
        return outcome_of(error)
    return {"outcome": "silent"}


def advertised(message: bytes) -> Result:
    """What a router advertisement says: its life as a router (s), prefixes (RFC 4861 §4.6.2), resolvers (RFC 8106)."""
    found: Result = {"life": int.from_bytes(message[6:8]), "prefixes": [], "resolvers": []}
    at = 16
    while at + 8 <= len(message) and message[at + 1]:
        kind, length = message[at], 8 * message[at + 1]
        option = message[at : at + length]
        if kind == 3 and length == 32:
            found["prefixes"].append(f"{socket.inet_ntop(socket.AF_INET6, option[16:32])}/{option[2]}")
        if kind == 25:
            found["resolvers"] += [socket.inet_ntop(socket.AF_INET6, option[i : i + 16]) for i in range(8, length, 16)]
        at += length
    return found


def pretend(probe: Probe) -> Result:
    """Says on `interface` that it is a router, and the address server: what no host but the gateway may be."""
    interface = probe["interface"]
    prefix = struct.pack(">BBBBIII", 3, 4, 64, 0xC0, 60, 60, 0) + socket.inet_pton(socket.AF_INET6, FALSE_PREFIX)
    advertisement = struct.pack(">BBHBBHII", ADVERTISEMENT, 0, 0, 64, 0, 60, 0, 0) + prefix
    offer = struct.pack(">BBBBIHH", 2, 1, 6, 0, 0x67686F62, 0, 0x8000) + bytes(4)
    offer += socket.inet_aton(FALSE_ADDRESS) * 2 + bytes(4) + bytes(16 + 192) + b"\x63\x82\x53\x63"
    offer += bytes([53, 1, 2, 54, 4]) + socket.inet_aton(FALSE_ADDRESS) + b"\xff"
    try:
        with _icmp6(interface, 255) as six, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as four:
            four.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            four.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            four.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
            four.bind(("0.0.0.0", 67))  # noqa: S104  the port that servers speak from
            for _ in range(probe.get("times", 5)):
                six.sendto(advertisement, (ALL_NODES, 0, 0, socket.if_nametoindex(interface)))
                four.sendto(offer, ("255.255.255.255", 68))
                time.sleep(0.2)
    except OSError as error:
        return outcome_of(error)
    return {"outcome": "sent"}


def overhear(probe: Probe) -> Result:
    """Notes for `seconds` what comes in on `interface` of what `pretend` says: `heard` has `router`, `server`, both."""
    heard: set[str] = set()
    marks = {"router": socket.inet_pton(socket.AF_INET6, FALSE_PREFIX), "server": socket.inet_aton(FALSE_ADDRESS)}
    try:
        with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3)) as wire:
            wire.bind((probe["interface"], 3))
            end = time.monotonic() + patient(probe["seconds"])
            while (left := end - time.monotonic()) > 0 and len(heard) < len(marks):
                wire.settimeout(left)
                with suppress(TimeoutError):
                    packet = wire.recv(2048)
                    heard |= {what for what, mark in marks.items() if mark in packet}
    except OSError as error:
        return outcome_of(error)
    return {"outcome": "answered", "heard": sorted(heard)}


def leaving(probe: Probe) -> Result:
    """Notes for `seconds` which of `wanted` leave by `interface`: new TCP connections over IPv6 from a /64 to a port.

    `wanted` are `[PREFIX, ADDRESS, PORT]`; `left` has the places in that list. It needs no answer from out there.
    """
    left: set[int] = set()
    known = [
        (socket.inet_pton(socket.AF_INET6, prefix)[:8], socket.inet_pton(socket.AF_INET6, address), port.to_bytes(2))
        for prefix, address, port in probe["wanted"]
    ]
    try:
        with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3)) as wire:
            wire.bind((probe["interface"], 3))
            end = time.monotonic() + patient(probe["seconds"])
            while (rest := end - time.monotonic()) > 0 and len(left) < len(known):
                wire.settimeout(rest)
                with suppress(TimeoutError):
                    packet = wire.recv(2048)
                    seen = packet[8:16], packet[24:40], packet[42:44]
                    # The first packet of a connection: what ends one may come late, and was let out before.
                    begins = packet[53:54] and packet[53] & 0x12 == 0x02  # SYN without ACK, RFC 9293 §3.1
                    if begins and packet[0] >> 4 == 6 and packet[6] == socket.IPPROTO_TCP and seen in known:
                        left.add(known.index(seen))
    except OSError as error:
        return outcome_of(error)
    return {"outcome": "answered", "left": sorted(left)}


def flood(probe: Probe) -> Result:
    """Opens `number` TCP connections to `address`:`port` at once and waits `seconds`: how many came about.

    The kernel asks again for those that are dropped after one second (RFC 6298 §2.1).
    """
    opened = set()
    waiting: dict[socket.socket, None] = {}
    selector = selectors.DefaultSelector()
    try:
        for _ in range(probe["number"]):
            connection = socket.socket(family_of(probe["address"]), socket.SOCK_STREAM)
            waiting[connection] = None
            connection.setblocking(False)
            if connection.connect_ex((probe["address"], probe["port"])) == errno.EINPROGRESS:
                selector.register(connection, selectors.EVENT_WRITE)
        end = time.monotonic() + probe["seconds"]
        while (left := end - time.monotonic()) > 0 and selector.get_map():
            for key, _ in selector.select(left):
                connection = key.fileobj  # type: ignore[assignment]
                selector.unregister(connection)
                if connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                    opened.add(connection)
    except OSError as error:
        return outcome_of(error)
    finally:
        for connection in waiting:
            connection.close()
        selector.close()
    return {"outcome": "answered", "opened": len(opened)}


def _icmp6(interface: str, hops: int) -> socket.socket:
    """A raw ICMPv6 socket whose packets go out on `interface`; the kernel fills in checksums (RFC 3542 §3.1)."""
    connection = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
    connection.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, hops)
    connection.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, socket.if_nametoindex(interface))
    return connection
