"""The model of a site: its segments, gateways, services and devices, typed and validated before anything connects."""

from __future__ import annotations

import ipaddress
import re
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from gatehouse.site.alerts import Alerts
from gatehouse.site.coap import Coap, table
from gatehouse.site.declaration import Listener, Service
from gatehouse.site.egress import FOREIGN_RESOLVERS, Destination, DestinationName, Limits, Mud
from gatehouse.site.firmware import Firmware
from gatehouse.site.remote import Remote
from gatehouse.site.waivers import Waiver
from gatehouse.site.web import Acme, PublicName, Web

INTERNET = "internet"
MANAGEMENT = "management"
USUAL_SEGMENTS = ("iot", MANAGEMENT, "guest", "internal", INTERNET)

# A bridge is named br-SEGMENT and Linux allows 15 characters (IFNAMSIZ): 12 are left for the segment.
SegmentName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]{0,11}$")]
HostName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
DomainName = Annotated[str, StringConstraints(pattern=r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9-]{2,63}$")]
InterfaceName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$")]
UserName = Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_-]{0,31}$")]
ProgramName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,30}$")]
HardwareAddress = Annotated[str, StringConstraints(pattern=r"^[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}$", to_lower=True)]
Serial = Annotated[str, StringConstraints(pattern=r"^[1-9a-f][0-9a-f]{0,39}$")]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
IPAddress = IPv4Address | IPv6Address

_PUBLIC_KEY = re.compile(
    r"^(ssh-ed25519|sk-ssh-ed25519@openssh\.com|ecdsa-sha2-nistp256|ssh-rsa) [A-Za-z0-9+/=]{60,}( .*)?$"
)
_HOST_LABEL = re.compile(r"^[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\Z")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_host_name(text: str) -> bool:
    """RFC 1123 §2.1; what looks like an IPv4 address is meant as one, and a name never ends in a number."""
    labels = text.removesuffix(".").split(".")
    return len(text) <= 253 and not labels[-1].isdigit() and all(map(_HOST_LABEL.match, labels))


# Levels of letters that an ACL takes as they are; `+` is one whole level, `#` the whole rest, `$` is the broker's own.
_FILTER = re.compile(r"(?!\$)([A-Za-z0-9._$-]+|\+)(/([A-Za-z0-9._$-]+|\+))*(/#)?")


class Model(BaseModel):
    """Base of the site's parts: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Segment(Model):
    """A network of the site: its VLAN id (None for an untagged port only) and the segments it may connect to.

    `isolated`: its hosts don't reach each other through the gateway. `own_resolver`: names are asked of the gateway,
    and of no other. `limits` are for each device in it.
    """

    vlan: int | None = Field(default=None, ge=1, le=4094)
    reaches: tuple[str, ...] = ()
    isolated: bool = False
    own_resolver: bool = False
    limits: Limits | None = None
    description: str = ""


class Network(Model):
    """A segment as one gateway carries it: on an untagged port (`interface`) or tagged on a `trunk`, and its addresses.

    `ipv4` and `ipv6` are the gateway's address with the prefix length (`10.10.10.1/24`). On `internet`, `ipv4="dhcp"`
    leaves the address to the provider and `router4`/`router6` name the default routers otherwise. `upstream` says
    whether private senders may be out there: behind another router they may, which is assumed where the gateway's
    address is private or the provider's to give.
    """

    interface: InterfaceName | None = None
    trunk: InterfaceName | None = None
    ipv4: IPv4Interface | Literal["dhcp"] | None = None
    ipv6: IPv6Interface | Literal["ra"] | None = None
    router4: IPv4Address | None = None
    router6: IPv6Address | None = None
    upstream: Literal["public", "private"] | None = None

    @field_validator("ipv4", "ipv6", mode="before")
    @classmethod
    def _has_a_prefix(cls, value: Any) -> Any:
        if isinstance(value, str) and value not in ("dhcp", "ra"):
            address, slash, length = value.partition("/")
            family, longest, example = (
                ("IPv6", 128, "from 48 to 64") if ":" in address else ("IPv4", 32, "from 8 to 30")
            )
            usable = range(48, 65) if family == "IPv6" else range(8, 31)
            if not slash or not length.isdigit() or int(length) > longest or int(length) not in usable:
                raise ValueError(f"{value} is no {family} prefix|use a length {example}")
        return value

    @model_validator(mode="after")
    def _one_kind_of_port(self) -> Self:
        if (self.interface is None) == (self.trunk is None):
            raise ValueError(
                "needs either interface or trunk|name the untagged port, or the trunk that carries its VLAN"
            )
        return self

    @property
    def addresses(self) -> tuple[IPAddress, ...]:
        """The gateway's fixed addresses in this network, IPv4 first."""
        found = (self.ipv4, self.ipv6)
        return tuple(a.ip for a in found if isinstance(a, IPv4Interface | IPv6Interface))

    @property
    def prefixes(self) -> tuple[IPNetwork, ...]:
        """The fixed prefixes of this network, IPv4 first."""
        found = (self.ipv4, self.ipv6)
        return tuple(a.network for a in found if isinstance(a, IPv4Interface | IPv6Interface))


class Contact(Model):
    """How a gateway is reached before it is hardened: afterwards it is the site's `ssh` that counts.

    `address` is a host name or an address; it counts afterwards, too.
    """

    address: str | None = None
    port: int = Field(default=22, ge=1, le=65535)
    user: UserName = "root"
    key: str | None = None

    @field_validator("address")
    @classmethod
    def _can_be_connected_to(cls, address: str | None) -> str | None:
        if address is not None and not (_is_address(address) or _is_host_name(address)):
            raise ValueError(
                f"{address!r} is no address and no host name|give one without port or user, such as 192.0.2.1"
            )
        return address


class Gateway(Model):
    """One host of the site. What differs between gateways stands here, the rest comes from the site.

    `public_names` are the names of its web pages that a public CA vouches for: `{"dashboards": "home.example.org"}`.
    `usb_storage`: whether its kernel takes disks and sticks that are plugged in.
    """

    networks: dict[str, Network] = Field(min_length=1)
    contact: Contact = Contact()
    without: tuple[str, ...] = ()
    resolvers: tuple[IPAddress, ...] = ()
    public_names: dict[str, PublicName] = {}
    usb_storage: bool = True

    @property
    def address(self) -> str:
        """Where SSH goes: the contact's address if one is named, the management address otherwise."""
        if self.contact.address:
            return self.contact.address
        return str(self.networks[MANAGEMENT].addresses[0])

    def bridge(self, segment: str) -> str:
        """The bridge that carries a segment: `br-iot`."""
        return f"br-{segment}"


class Ssh(Model):
    """SSH for administration: one non-root user, keys only. `former_ports` are tried when the port has just changed."""

    port: int = Field(default=22, ge=1, le=65535)
    former_ports: tuple[int, ...] = (22,)
    user: UserName = "gatekeeper"
    keys: tuple[str, ...] = Field(min_length=1)

    @field_validator("keys")
    @classmethod
    def _are_public_keys(cls, keys: tuple[str, ...]) -> tuple[str, ...]:
        for key in keys:
            if "PRIVATE KEY" in key:
                raise ValueError(
                    "holds a private key|give the line of the .pub file, and replace that key: it has been in a file"
                )
            if not _PUBLIC_KEY.match(key.strip()):
                raise ValueError(
                    f"{key[:24]!r}… is no SSH public key|give the one line of a .pub file, best ssh-ed25519"
                )
        return keys

    @field_validator("user")
    @classmethod
    def _is_not_root(cls, user: str) -> str:
        if user == "root":
            raise ValueError("root is no administrator's name|name a user; the kit creates it with sudo")
        return user


class Broker(Model):
    """Limits and TLS of the MQTT broker. Sizes in bytes, times in seconds.

    What is queued is what a client may be away for: of the intake, it is what is kept while the database is away.
    """

    tls: Literal["1.3", "1.2"] = "1.3"
    max_packet_bytes: int = Field(default=65_536, ge=256, le=268_435_455)
    max_connections: int = Field(default=20_000, ge=1)
    max_queued_messages: int = Field(default=200_000, ge=1)
    max_queued_bytes: int = Field(default=67_108_864, ge=65_536)
    max_inflight_messages: int = Field(default=20, ge=1, le=65_535)
    max_keepalive_seconds: int = Field(default=300, ge=10, le=65_535)
    session_expiry: str = Field(default="14d", pattern=r"^[1-9][0-9]*[hdwm]$")


class Program(Model):
    """A program that says its name to the broker with a password, and the topics that it may read and write there.

    Topics are filters (MQTT 5 §4.7): `devices/+/telemetry/#`.
    """

    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()

    @field_validator("reads", "writes")
    @classmethod
    def _are_filters(cls, filters: tuple[str, ...]) -> tuple[str, ...]:
        for given in filters:
            if not _FILTER.fullmatch(given):
                raise ValueError(f"{given!r} is no topic filter|use one such as devices/+/telemetry/#")
        return filters


class Messages(Model):
    """Which of the devices' messages are taken; `json_form` allows the form without a binary header. Times in seconds.

    `max_age` is for the way from the device to the gateway: what waits at the gateway itself doesn't grow too old.
    """

    json_form: bool = False
    max_age_seconds: int = Field(default=3_600, ge=1, le=30 * 86_400)
    max_ahead_seconds: int = Field(default=300, ge=1, le=86_400)


class Pkcs11(Model):
    """A hardware token: its PKCS #11 module (a shared library), the token's label, how its keys' labels begin."""

    module: str = Field(pattern=r"^/.+")
    token: str = Field(min_length=1, max_length=32)
    label: str = Field(default="", pattern=r"^[A-Za-z0-9._-]{0,40}$")


class KeyPlace(Model):
    """Where the key of a certification authority, or of firmware, is made and stays; without one, in the vault."""

    pkcs11: Pkcs11


class Time(Model):
    """Where the gateway takes its time from (names or addresses); it serves the segments itself."""

    servers: tuple[str, ...] = ("0.debian.pool.ntp.org", "1.debian.pool.ntp.org", "2.debian.pool.ntp.org")
    pools: bool = True


class Summaries(Model):
    """Means of every number a device reports, over `every` (`10m`, `1h`), kept for `retention` (`52w`)."""

    every: str = Field(default="1h", pattern=r"^[1-9][0-9]{0,3}[mh]$")
    retention: str = Field(default="26w", pattern=r"^[1-9][0-9]{0,3}[dw]$")


class LocalFile(Model):
    """A file in the folder that `GATEHOUSE_PACKAGES` names, and its SHA-256 in lower-case hex."""

    file: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+~_-]*$")
    sha256: Digest


class LocalPackage(LocalFile):
    """A Debian package there."""

    file: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+~_-]*\.deb$")


class Repository(Model):
    """A maker's package repository, and its signing key: a file beside the packages, pinned by its SHA-256."""

    url: str = Field(pattern=r"^https?://[A-Za-z0-9.:_-]+(/[A-Za-z0-9._-]+)*$")
    suite: str = Field(default="stable", pattern=r"^[a-z0-9.-]+$")
    component: str = Field(default="main", pattern=r"^[a-z0-9.-]+$")
    key: LocalFile


class Dashboards(Model):
    """Where Grafana comes from: a package of the operator's, or its maker's repository. From neither, there is none."""

    package: LocalPackage | None = None
    repository: Repository | None = None


class Database(Model):
    """Where messages are stored, and for how long (`12h`, `30d`, `8w`). `package` is for an engine Debian hasn't got.

    `summaries` outlive the messages they were made of; without, nothing does. `backup_days`: how old the last backup
    may be.
    """

    engine: Literal["influxdb1", "influxdb2"] = "influxdb1"
    retention: str = Field(default="30d", pattern=r"^[1-9][0-9]{0,3}[hdw]$")
    summaries: Summaries | None = None
    backup_days: int = Field(default=31, ge=1, le=3650)
    package: LocalPackage | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.package and self.engine == "influxdb1":
            raise ValueError("has a package, but influxdb1 is Debian's own|remove it, or name another engine")
        if self.summaries and seconds(self.summaries.retention) <= seconds(self.retention):
            raise ValueError("summaries go before the messages do|keep them longer than `retention`, or do without")
        return self


def seconds(duration: str) -> int:
    """How long `90m`, `12h`, `30d` or `8w` is."""
    return int(duration[:-1]) * {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}[duration[-1]]


class Setting(Model):
    """What a site changes about a declared service: ports and who may reach, each by the listener's name."""

    ports: dict[str, int] = {}
    reachable_from: dict[str, tuple[str, ...]] = {}


class Device(Model):
    """A device of the registry: public facts only.

    `serials` are the serial numbers of its certificates in hexadecimal, newest first. Of the newest are `not_before`,
    `not_after` (UTC) and `spki_sha256`, the SHA-256 of its public key (DER SubjectPublicKeyInfo, lower-case hex).
    `hmac_key` is the number of the key that signs its messages. `backup_pin` is the SHA-256 of the broker's backup key
    that its bundle was last given (DER SubjectPublicKeyInfo, lower-case hex). One whose `authentication` is `psk`
    shares a key with the broker instead of having a certificate.
    """

    name: HostName
    model: str
    gateway: str
    segment: str = "iot"
    hardware_address: HardwareAddress | None = None
    address: IPv4Address | None = None
    status: Literal["active", "quarantined", "revoked"] = "active"
    authentication: Literal["certificate", "psk"] = "certificate"
    serials: tuple[Serial, ...] = ()
    not_before: AwareDatetime | None = None
    not_after: AwareDatetime | None = None
    spki_sha256: Digest | None = None
    hmac_key: int | None = Field(default=None, ge=1)
    backup_pin: Digest | None = None

    @property
    def enrolled(self) -> bool:
        """Whether it has an identity: a certificate, or a key that it shares with the broker."""
        return bool(self.serials) or (self.authentication == "psk" and self.hmac_key is not None)


class Site(Model):
    """What one inventory names: one PKI, one vault, one policy, one registry, and one gateway or forty.

    `foreign_resolvers` answer names over HTTPS, which segments with a resolver of their own may not use.
    `waivers` are for checks that may fail for a while, by their ids.
    `psk` opens the broker's listener for devices with a pre-shared key, `coap` (True, or a table) the endpoint for
    devices that speak CoAP over DTLS, `api` the device API behind the HTTPS front,
    `updates` the update server for devices' firmware, `remote` a WireGuard tunnel into management, `alerts` who is told
    what is wrong with a gateway.
    A `lab` is made of containers, or of virtual `machines`.
    `state` is where a lab keeps its key, known hosts and vault; other sites have theirs beside the inventory.
    Raises `gatehouse.site.SiteError` with every problem at once.
    """

    name: HostName
    domain: DomainName
    lab: bool | Literal["machines"] = False
    segments: dict[SegmentName, Segment]
    gateways: dict[HostName, Gateway] = Field(min_length=1)
    ssh: Ssh
    services: tuple[Service, ...]
    settings: dict[str, Setting] = {}
    destinations: dict[DestinationName, Destination] = {}
    foreign_resolvers: tuple[IPNetwork, ...] = FOREIGN_RESOLVERS
    mud: Mud = Mud()
    broker: Broker = Broker()
    programs: dict[ProgramName, Program] = {}
    psk: bool = False
    coap: Annotated[Coap | None, BeforeValidator(table)] = None
    api: bool = False
    updates: bool = False
    firmware: Firmware = Firmware()
    remote: Remote | None = None
    alerts: Alerts | None = None
    messages: Messages = Messages()
    time: Time = Time()
    database: Database = Database()
    web: Web = Web()
    acme: Acme | None = None
    dashboards: Dashboards = Dashboards()
    authority: dict[Literal["root", "services", "devices", "firmware"], KeyPlace] = {}
    automatic_reboot: str | None = Field(default="03:30", pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")
    devices: tuple[Device, ...] = ()
    waivers: dict[str, Waiver] = {}
    state: Path | None = None

    def __init__(self, **data: Any) -> None:
        from gatehouse.site.validation import settle

        super().__init__(**settle(data))

    def service(self, name: str) -> Service:
        """The declared service of that name, with this site's settings applied; KeyError if there is none."""
        for service in self.services:
            if service.name == name:
                return service
        raise KeyError(name)

    def services_of(self, gateway: str) -> tuple[Service, ...]:
        """The services that run on a gateway."""
        return tuple(s for s in self.services if s.name not in self.gateways[gateway].without)

    def gateways_with(self, service: str) -> list[str]:
        """The names of the gateways that a service runs on."""
        return [name for name in self.gateways if any(each.name == service for each in self.services_of(name))]

    def listener(self, service: str, name: str) -> Listener:
        """A service's listener with this site's settings applied."""
        return self.service(service).listener(name)

    def devices_of(self, gateway: str) -> tuple[Device, ...]:
        """The devices behind a gateway."""
        return tuple(d for d in self.devices if d.gateway == gateway)
