"""What may leave a segment: named destinations on the internet and who may use them, and how much a device may do."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from gatehouse.site.declaration import Declaration, Transport

DestinationName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
InternetName = Annotated[
    str, StringConstraints(pattern=r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])$")
]

# DNS, and DNS over TLS or QUIC (RFC 7858, RFC 9250): whoever has to ask the gateway may send neither elsewhere.
RESOLVER_PORTS = (53, 853)
HTTPS_PORT = 443

# Never a sender on the internet: this host, loopback, the link, multicast, the future (RFC 6890 and its registries).
BOGONS = tuple(
    map(
        ip_network,
        ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "192.0.0.0/24", "224.0.0.0/4", "240.0.0.0/4",
         "::1/128", "::ffff:0:0/96", "64:ff9b:1::/48", "100::/64", "fec0::/10", "ff00::/8"),
    )
)  # fmt: skip
# Well-known public resolvers, which answer over HTTPS, too (RFC 8484): Cloudflare, Google, Quad9, OpenDNS, AdGuard.
FOREIGN_RESOLVERS = tuple(
    map(
        ip_network,
        ("1.1.1.0/29", "1.0.0.0/29", "8.8.8.8", "8.8.4.4", "9.9.9.0/28", "149.112.112.0/24", "208.67.220.0/23",
         "94.140.14.0/23", "2606:4700:4700::/48", "2001:4860:4860::/48", "2620:fe::/48", "2620:119::/48",
         "2a10:50c0::/32"),
    )
)  # fmt: skip
# Nor these, unless the uplink is somebody's own network: private, shared, for tests and documents.
PRIVATE = tuple(
    map(
        ip_network,
        ("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "192.0.2.0/24", "198.18.0.0/15",
         "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20", "fc00::/7"),
    )
)  # fmt: skip


class Destination(Declaration):
    """A named internet service that some may use, and nothing else there: addresses or names, the port, and who.

    A name stands for the addresses that the gateway's resolver was told for it, or for a name below it, within the
    last hours. Who may use it is whole segments, devices of a model, or single devices.
    """

    addresses: tuple[IPv4Network | IPv6Network, ...] = ()
    names: tuple[InternetName, ...] = ()
    port: int = Field(ge=1, le=65535)
    transport: Transport = "tcp"
    segments: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _says_what_and_who(self) -> Self:
        if not self.addresses and not self.names:
            raise ValueError("leads nowhere|give it addresses, names or both")
        if not (self.segments or self.models or self.devices):
            raise ValueError("is for nobody|give it segments, models or devices")
        return self

    def covers(self, address: IPv4Address | IPv6Address, port: int, transport: Transport) -> bool:
        """Whether it is this address and port, as far as addresses are listed."""
        return (port, transport) == (self.port, self.transport) and any(
            address in network for network in self.addresses
        )


class Limits(Declaration):
    """What each device of a segment may do, a second; five seconds' worth may come at once.

    `connections` are new ones outwards, of any protocol; `broker` new ones to the message broker; `packets` those of
    connections that exist; `syns` and `pings` are TCP's and ICMP's first packets to anywhere, the gateway included.
    """

    connections: int = Field(default=20, ge=1, le=100_000)
    broker: int = Field(default=20, ge=1, le=100_000)
    packets: int = Field(default=2_000, ge=10, le=10_000_000)
    syns: int = Field(default=50, ge=1, le=100_000)
    pings: int = Field(default=10, ge=1, le=100_000)


class Mud(Declaration):
    """Manufacturers' usage descriptions (RFC 8520): whether they must be signed, and the CA that is good for that."""

    signed: bool = False
    authority: Path | None = None
