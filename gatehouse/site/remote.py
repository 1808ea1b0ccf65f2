"""Remote management: a WireGuard tunnel a gateway, and the peers that may come through it."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, StringConstraints, ValidationError, field_validator

from gatehouse.site.declaration import Declaration
from gatehouse.site.destinations import read
from gatehouse.site.problems import Problem

INTERFACE = "wg-management"
SERVICE = "wireguard"
PEER_NAME = r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$"
KEY_BYTES = 32  # of X25519 (RFC 7748)
FIRST_NUMBER, LAST_NUMBER = 2, 65_534
PROBE = "gatehouse-probe"
"""The peer that the compliance suite plays, at every gateway; no other can have that name, or its number."""
PeerName = Annotated[str, StringConstraints(pattern=PEER_NAME)]
_ENDPOINT = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?\Z")


def is_key(text: str) -> bool:
    """Whether it is a key as `wg` writes them: 32 bytes in base64."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return False
    return len(raw) == KEY_BYTES and base64.b64encode(raw).decode() == text


class Tunnel(Declaration):
    """The tunnel of one gateway: its own address in it with the prefix length, and where it is met from outside.

    `endpoint` is a name or an IPv4 address, without a port: that is the listener's.
    """

    ipv4: IPv4Interface
    endpoint: str

    @field_validator("ipv4")
    @classmethod
    def _has_room(cls, given: IPv4Interface) -> IPv4Interface:
        net = given.network
        if net.prefixlen not in range(16, 30):
            raise ValueError(f"{given} has no room for peers|use a length from 16 to 29, such as 10.10.90.1/24")
        if given.ip in (net.network_address, net.broadcast_address):
            raise ValueError(f"{given.ip} is no host's address in {net}|use {net.network_address + 1}")
        return given

    @field_validator("endpoint")
    @classmethod
    def _can_be_sent_to(cls, given: str) -> str:
        if not _ENDPOINT.match(given):
            raise ValueError(
                f"{given[:80]!r} is no host name and no IPv4 address|give one without a port: home.example"
            )
        return given

    @property
    def probe(self) -> int:
        """The number of the compliance suite's peer: the last one, or the one before where the gateway has that."""
        last = self.ipv4.network.num_addresses - 2
        return last - 1 if self.address(last) == self.ipv4.ip else last

    def address(self, number: int) -> IPv4Address:
        """The address of a peer in this tunnel."""
        return self.ipv4.network.network_address + number


class Peer(Declaration):
    """A machine of the operator's: its number in every tunnel (the host part of its address).

    Without a `public_key` of its own the kit makes its key, which is then in the vault.
    """

    number: int = Field(ge=FIRST_NUMBER, le=LAST_NUMBER)
    public_key: str = ""

    @field_validator("public_key")
    @classmethod
    def _is_a_key(cls, given: str) -> str:
        # Not quoted: whoever pastes the wrong one pastes the secret one.
        if given and not is_key(given):
            raise ValueError("is no WireGuard public key|give what `wg pubkey` prints: 44 characters")
        return given


def read_peers(path: Path) -> dict[str, Any]:
    """The peers that are data (`inventories/peers/SITE.toml`), not yet validated. Raises `SiteError`."""
    return read(path, "peers")


class Remote(Declaration):
    """Remote management of a site: a tunnel for each gateway, by its name, and the peers, which are in all of them."""

    tunnels: dict[str, Tunnel] = Field(min_length=1)
    peers: dict[PeerName, Peer] = {}


def has_peers(given: Any) -> bool:
    """Whether anybody may come: without peers there is no tunnel, and its port is closed."""
    if isinstance(given, Mapping):
        return bool(given.get("peers"))
    return bool(isinstance(given, Remote) and given.peers)


def remote_problems(sound: Mapping[str, Any]) -> Iterator[Problem]:
    """What is wrong with a site's remote management, once it is sound on its own."""
    given = sound["given"].get("remote")
    if not given:
        return
    try:
        remote = Remote.model_validate(given)
    except ValidationError:
        return
    gateways = sound["gateways"]
    for name, tunnel in remote.tunnels.items():
        place = f"remote tunnels '{name}'"
        if name not in sound["known_gateways"]:
            yield Problem(place, "no such gateway", f"use {', '.join(sorted(sound['known_gateways']))}")
            continue
        networks = gateways[name].networks if name in gateways else {}
        for segment, network in networks.items():
            for prefix in network.prefixes:
                if prefix.version == 4 and prefix.overlaps(tunnel.ipv4.network):
                    what = f"{tunnel.ipv4.network} overlaps {prefix} of '{segment}'"
                    yield Problem(place, what, "use a prefix of its own")
        for peer, entry in remote.peers.items():
            inside = entry.number < tunnel.ipv4.network.num_addresses - 1
            if not inside or tunnel.address(entry.number) == tunnel.ipv4.ip:
                what = "is the gateway's own" if inside else f"is outside {tunnel.ipv4.network}"
                yield Problem(f"remote peers '{peer}'", f"number {entry.number} {what}", "use another number")
            elif entry.number == tunnel.probe:
                what = f"number {entry.number} is that of the compliance suite"
                yield Problem(f"remote peers '{peer}'", what, "use another number")
    for peer in remote.peers:
        if peer.startswith("gatehouse-"):
            yield Problem(f"remote peers '{peer}'", "what starts with gatehouse- is the kit's own", "use another name")
    for name, gateway in gateways.items():
        if SERVICE not in gateway.without and name not in remote.tunnels:
            yield Problem(f"gateway '{name}'", "has no tunnel", f"give it one in remote, or without=['{SERVICE}']")
    yield from _shared(remote)


def _shared(remote: Remote) -> Iterator[Problem]:
    """Two peers with one number, or one key: WireGuard would hand the address to the last."""
    seen: dict[tuple[str, object], str] = {}
    for name, peer in remote.peers.items():
        for what, value in (("number", peer.number), ("public key", peer.public_key)):
            if value and (other := seen.setdefault((what, value), name)) != name:
                yield Problem(f"remote peers '{name}'", f"its {what} is that of '{other}' too", "each has its own")
