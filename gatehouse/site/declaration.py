"""What a role declares about its service; firewall, audit, threat model and checks are derived from it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Transport = Literal["tcp", "udp"]
Encryption = Literal["tls", "dtls", "ssh", "wireguard", "none"]
Port = int


class Declaration(BaseModel):
    """Base of what is declared: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Listener(Declaration):
    """A port that a service opens, and who may reach it: this is the firewall rule.

    `reachable_from` names segments; an empty tuple means loopback only. `broadcast` is for protocols whose clients
    have no address yet (DHCP, RFC 2131 §4.1): the input rule then can't name the gateway's address. A listener with
    `only_with` is off, and its port closed, unless the site has something in that field (`programs`, `psk`).
    `accounts` are the only users of the gateway itself that may connect over loopback; an empty tuple means any. With
    `engine` only that one of the service's engines opens it.
    """

    name: str
    port: Port = Field(ge=1, le=65535)
    transport: Transport = "tcp"
    encryption: Encryption
    authentication: str
    reachable_from: tuple[str, ...] = ()
    data: str
    compromise: str
    broadcast: bool = False
    only_with: str = ""
    accounts: tuple[str, ...] = ()
    engine: str = ""

    @property
    def label(self) -> str:
        """`8883/tcp`."""
        return f"{self.port}/{self.transport}"


class Flow(Declaration):
    """Data on its way: from where to where, protected how, and what a compromise means. Listeners imply their own.

    `integrity` is what keeps the data from being changed on the way, where that is not the encryption. A flow with
    `only_with` is none unless the site has something in that field (`alerts.webhook`).
    """

    source: str
    destination: str
    data: str
    encryption: str
    authentication: str
    compromise: str
    integrity: str = ""
    only_with: str = ""


class Secret(Declaration):
    """A credential of a service: how often it is renewed (days) and who must follow when it is.

    `kept` is its name in the vault, `*` for any number of characters; without it that is `name`. `replaced_by` is the
    command that does it: `harden` by itself, when two thirds of a certificate's life are over; the others when told to.
    """

    name: str
    kind: Literal["certificate", "key", "password", "token"]
    rotation_days: int = Field(ge=1)
    consumers: tuple[str, ...] = ()
    kept: str = ""
    replaced_by: Literal["harden", "rotate", "ca.move-to-backup-key", "token.rotate"] = "rotate"


class ClosedPort(Declaration):
    """A port that must stay closed on every address, and why."""

    port: Port = Field(ge=1, le=65535)
    transport: Transport = "tcp"
    reason: str


class Page(Declaration):
    """What the HTTPS front passes on to a listener of the service on loopback, and to nobody without TLS.

    It is served as `https://NAME.DOMAIN` from `path` on, unless the site gives the name a public one; without a `name`
    as the gateway's own. The request arrives as the client made it, with the client's address in `X-Forwarded-For`
    and `X-Real-IP`, and `X-Forwarded-Proto: https`. Requests to `logins`, paths that take a password, are limited.
    """

    listener: str
    name: str = Field(default="gateway", pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
    path: str = Field(default="/", pattern=r"^/([A-Za-z0-9._~-]+/?)*$")
    logins: tuple[str, ...] = ()


class Service(Declaration):
    """A service of the gateway, as its role declares it.

    `unconfined` is the reason why a unit that faces a network can't be confined; it is then reported as not proven.
    `engines` are the programs that can do the service's work, each with its packages; a site chooses one of them.
    A service with `only_with` is no part of a site that has nothing in that field (`acme`).
    Where the program comes `from_maker`, and not from Debian, it may be missing: it is then reported as not deployed.
    """

    name: str
    title: str
    packages: tuple[str, ...] = ()
    engines: dict[str, tuple[str, ...]] = {}
    from_maker: bool = False
    units: tuple[str, ...] = ()
    user: str = "root"
    listeners: tuple[Listener, ...] = ()
    flows: tuple[Flow, ...] = ()
    secrets: tuple[Secret, ...] = ()
    closed: tuple[ClosedPort, ...] = ()
    pages: tuple[Page, ...] = ()
    only_with: str = ""
    network_facing: bool = False
    unconfined: str = ""

    def listener(self, name: str) -> Listener:
        """The listener of that name; KeyError if the service has none."""
        for listener in self.listeners:
            if listener.name == name:
                return listener
        raise KeyError(f"{self.name} has no listener {name!r}")
