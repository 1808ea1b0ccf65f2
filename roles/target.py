"""What a role is given: the site, the gateway that is being deployed, and the site's identities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from gatehouse.site import Gateway, Policy, Service, Site, derive

if TYPE_CHECKING:
    from gatehouse.identity import Pki


@dataclass(frozen=True)
class Target:
    """One gateway of one site. `pki` opens the vault when it is first asked for."""

    site: Site
    name: str
    open_pki: Callable[[], Pki]

    @property
    def gateway(self) -> Gateway:
        """The gateway's own part of the site."""
        return self.site.gateways[self.name]

    @cached_property
    def policy(self) -> Policy:
        """Who may reach what on this gateway."""
        return derive(self.site, self.name)

    @cached_property
    def pki(self) -> Pki:
        """The site's PKI."""
        return self.open_pki()

    def service(self, name: str) -> Service:
        """A declared service, with the site's settings applied."""
        return self.site.service(name)

    def listens_on(self, service: str, listener: str) -> list[str]:
        """The addresses at which a listener is reachable: those of the segments that may reach it."""
        reach = self.site.listener(service, listener).reachable_from
        networks = self.gateway.networks
        return [str(address) for segment in reach if segment in networks for address in networks[segment].addresses]
