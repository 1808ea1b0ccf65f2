"""A position's place in a segment: a veth in its bridge, free addresses, and the gateway as its router."""

from __future__ import annotations

import ipaddress
import json
import secrets
import select
import socket
import struct
import subprocess
import time
from typing import Any, Protocol

from gatehouse.proof.probes.reach import patient

INTERFACE = "probe0"  # of the position's own end
OUTER = "pr-"  # and a segment's name, 12 characters at most: of the end in the bridge


class Process(Protocol):
    """What is needed of a position: its process, and a way to talk to it."""

    pid: int

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Sends one message and waits for its answer."""


def place(name: str, wanted: dict[str, Any], position: Process) -> dict[str, Any]:
    """Connects a position to `wanted["bridge"]`: `{"addresses": […], "gateway": […], "outer": …}`, or `{"error": …}`.

    `wanted["avoid"]` are addresses that are somebody's, even if nobody answers there now; `wanted["hardware"]` is the
    hardware address to have, if a certain one. `wanted["as"]` are devices (`name`, `hardware`, `address` or None): it
    takes the place of the first that is not there itself, and says its name `"as"`. Where the segment is `isolated`,
    so is the port.
    """
    bridge = wanted["bridge"]
    device: dict[str, Any] = {}
    # Before it answers it may still be in the gateway's own network, and its end of the pair would go there.
    if error := position.ask({"probes": []}).get("error"):
        return {"error": f"{bridge}: {error}"}
    try:
        if "as" in wanted:
            device = _absent(bridge, wanted["as"])
        chosen = device.get("hardware") or wanted.get("hardware")
        hardware = ["address", chosen] if chosen else []
        own = gateway_addresses(bridge)
        outer = f"{OUTER}{name}"
        _ip("link", "delete", outer, check=False)
        _ip("link", "add", outer, "type", "veth", "peer", "name", INTERFACE, *hardware, "netns", str(position.pid))
        _ip("link", "set", outer, "master", bridge, "up")
    except OSError as error:
        return {"error": f"{bridge}: {error}"}
    entering = {"gateway": own, "avoid": wanted.get("avoid", []), "address": device.get("address")}
    answer = position.ask({"enter": entering})
    if wanted.get("isolated"):
        # Not before it has its address: those who have it could not say so.
        _ip("link", "set", outer, "type", "bridge_slave", "isolated", "on")
    return {"outer": outer, "gateway": own, **({"as": device["name"]} if device else {}), **answer}


def _absent(bridge: str, devices: list[dict[str, Any]]) -> dict[str, Any]:
    """The first of the devices that the bridge has not heard of lately. Raises OSError where each is there."""
    done = subprocess.run(["bridge", "-j", "fdb", "show", "br", bridge], capture_output=True, text=True, check=False)
    heard = {entry.get("mac") for entry in json.loads(done.stdout or "[]")}
    for device in devices:
        if device["hardware"] not in heard:
            return device
    raise OSError(f"{', '.join(device['name'] for device in devices[:3])}: there themselves")


def leave(places: dict[str, Any]) -> None:
    """Removes the veths; the namespaces end with their processes."""
    for made in places.values():
        if "outer" in made:
            _ip("link", "delete", made["outer"], check=False)


def gateway_addresses(bridge: str) -> list[str]:
    """The gateway's addresses with prefix lengths on a bridge, without link-local ones, IPv4 first. Raises OSError."""
    described = json.loads(_ip("-j", "address", "show", "dev", bridge))
    found = [
        f"{entry['local']}/{entry['prefixlen']}"
        for entry in described[0].get("addr_info", [])
        if entry.get("scope") == "global" and "local" in entry
    ]
    return sorted(found, key=lambda address: ":" in address)


def enter(wanted: dict[str, Any]) -> dict[str, Any]:
    """Inside the namespace: takes a free address of each family. `{"addresses": […]}`, or `{"error": …}`."""
    try:
        _ip("link", "set", "lo", "up")
        _ip("link", "set", INTERFACE, "up")
        _carrier()
        addresses = []
        avoid = {*wanted["avoid"], *(own.partition("/")[0] for own in wanted["gateway"])}
        for own in wanted["gateway"]:
            interface = ipaddress.ip_interface(own)
            free = _free4(interface, avoid, wanted.get("address")) if interface.version == 4 else _free6(interface)
            if free is None:
                return {"error": f"no free address in {interface.network} for a probe"}
            family = f"-{interface.version}"
            nodad = ["nodad"] if interface.version == 6 else []
            _ip(family, "address", "add", f"{free}/{interface.network.prefixlen}", "dev", INTERFACE, *nodad)
            _ip(family, "route", "replace", "default", "via", str(interface.ip), "dev", INTERFACE)
            addresses.append(str(free))
    except OSError as error:
        return {"error": str(error)}
    return {"addresses": addresses}


def _carrier() -> None:
    """Waits until the pair is up at both ends."""
    for _ in range(100):
        if '"LOWER_UP"' in _ip("-j", "link", "show", INTERFACE):
            return
        time.sleep(0.02)


def _free6(interface: ipaddress.IPv6Interface) -> ipaddress.IPv6Address:
    """A random one of 2^64 or so: nobody has it."""
    spare = 128 - interface.network.prefixlen
    return ipaddress.IPv6Address(int(interface.network.network_address) + (secrets.randbits(min(spare, 63)) | 1 << 16))


def _free4(
    interface: ipaddress.IPv4Interface, avoid: set[str], wanted: str | None = None
) -> ipaddress.IPv4Address | None:
    """The first, from the end of the prefix, that isn't somebody's and that nobody answers for (RFC 5227 §2.1.1).

    With `wanted` it is that one, or none.
    """
    if wanted is not None:
        only = ipaddress.IPv4Address(wanted)
        return None if _answering([only]) else only
    last, first = int(interface.network.broadcast_address), int(interface.network.network_address)
    candidates = []
    for number in range(last - 1, max(first, last - 1000), -1):
        if str(ipaddress.IPv4Address(number)) not in avoid:
            candidates.append(ipaddress.IPv4Address(number))
        if len(candidates) == 8:
            break
    taken = _answering(candidates)
    return next((candidate for candidate in candidates if candidate not in taken), None)


def _answering(candidates: list[ipaddress.IPv4Address]) -> set[ipaddress.IPv4Address]:
    """Who answers an ARP probe (sender address 0.0.0.0, so that nobody learns from it) within a third of a second.

    A slow machine's third lasts longer.
    """
    found: set[ipaddress.IPv4Address] = set()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806)) as wire:
        wire.bind((INTERFACE, 0x0806))
        own = wire.getsockname()[4]
        end = time.monotonic() + patient(0.3)
        for part in (patient(0.15), patient(0.15)):
            for candidate in candidates:
                arp = struct.pack(">HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 1, own, bytes(4), bytes(6), candidate.packed)
                wire.send(b"\xff" * 6 + own + b"\x08\x06" + arp)
            pause = min(time.monotonic() + part, end)
            while (left := pause - time.monotonic()) > 0 and select.select([wire], [], [], left)[0]:
                frame = wire.recv(100)
                sender = frame[28:32]
                if len(frame) >= 42 and frame[20:22] == b"\0\2" and len(sender) == 4:
                    found.add(ipaddress.IPv4Address(sender))
    return found


def _ip(*arguments: str, check: bool = True) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=20, check=False)
    if check and done.returncode != 0:
        raise OSError(f"ip {' '.join(arguments)}: {(done.stderr.strip() or 'failed').splitlines()[-1]}")
    return done.stdout
