"""The keys of servers that clients know by the site's root alone: another one surprises nobody.

Two can't be served at a time, and need not be. The broker's own key is none of these: devices pin it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from deploy.gateways import Gateways, probed
from deploy.movers import Mover
from deploy.remote import Remote
from gatehouse.identity import SecretStore
from gatehouse.identity.authority import key_to_pem, new_key, read_key
from gatehouse.identity.pins import coap_host
from gatehouse.identity.rotation import Phase, RotationError
from gatehouse.site.pages import hosts
from roles import coap, influxdb, nginx, rendering
from roles.coap import files as coap_files
from roles.facts import LOADED
from roles.influxdb import deploy as database
from roles.nginx import files as front
from roles.target import Target


@dataclass(frozen=True)
class Served:
    """What serves a certificate: `name` is the server's in it, `act` makes the unit read its files."""

    unit: str
    files: Callable[[Target], list[rendering.File]]
    act: str
    then: str
    address: str
    port: int
    name: str
    kind: str = "tls"
    """The probe that meets it."""


class ServerKey(Mover):
    """A server's key, and with it its certificate. One that is read at a start alone is only replaced when named."""

    kind = "private-key"
    first: Phase = "move"

    def __init__(self, server: str, gateway: str, served: Served, gateways: Gateways) -> None:
        super().__init__(f"server/{server}/key", gateways, [gateway])
        self._certificate, self._served = f"server/{server}/certificate", served
        self.interrupts = "restart" in served.act

    def make(self, used: bytes) -> bytes:
        """A key; its certificate is issued when it is brought."""
        return key_to_pem(new_key())

    def replaced(self, vault: SecretStore) -> None:
        """The certificate is for the key."""
        vault.delete(self._certificate)

    def bring(self, remote: Remote, target: Target) -> None:
        """Key and certificate, and the server told to read them, unless it has."""
        here, files = self._served, self._served.files(target)
        script, stdin = rendering.swap(files, files)
        runs = f"systemctl is-active --quiet {here.unit} && sha256sum --check --status {LOADED}/{here.unit}"
        remote.run(f"{script}; {{ {runs} || {here.act}; }}; {here.then}", stdin)

    def takes(self, remote: Remote, target: Target, value: bytes) -> bool:
        """Whether it is the key of the certificate that is served."""
        here = self._served
        place = {"address": here.address, "port": here.port, "server_name": here.name}
        found = probed(remote, {"kind": here.kind, **place, "ca": target.pki.trust_anchor.decode()})
        if found.get("outcome") != "agreed":
            raise RotationError(f"{remote.gateway}: no TLS with {here.name}: {json.dumps(found)[:200]}")
        mine = x509.load_pem_x509_certificate(self.vault.get(self._certificate))
        if found["fingerprint"] != mine.fingerprint(hashes.SHA256()).hex():
            return False
        return bool(mine.public_key() == read_key(self.name, value).public_key())


def _databases(gateways: Gateways) -> Iterator[ServerKey]:
    site, service = gateways.site, influxdb.service.name
    for gateway in gateways.running(service):
        served = Served(
            unit=database.UNIT,
            files=database.certificate,
            act=f"systemctl restart {database.UNIT}",
            then=f"python3 -B {database.STEWARD} settle",
            address=influxdb.ADDRESS,
            port=site.listener(service, "https").port,
            name=influxdb.host_name(site.domain),
        )
        yield ServerKey(f"{service}-{gateway}", gateway, served, gateways)


def _fronts(gateways: Gateways) -> Iterator[ServerKey]:
    site, service = gateways.site, nginx.service.name
    for gateway in gateways.running(service):
        address = front.addresses(gateways.target(gateway), "https")[0].strip("[]")
        for page in hosts(site, gateway):
            if not page.public:
                served = Served(
                    unit=front.UNIT,
                    files=front.certificate_files,
                    act=f"systemctl reload {front.UNIT}",
                    then=front.PROVE,
                    address="127.0.0.1" if address in ("*", "::") else address,
                    port=site.listener(service, "https").port,
                    name=page.name,
                )
                yield ServerKey(front.server_name(page, gateway), gateway, served, gateways)


def _coaps(gateways: Gateways) -> Iterator[ServerKey]:
    site, service = gateways.site, coap.service.name
    for gateway in gateways.running(service):
        address, port = coap_files.listens_at(gateways.target(gateway))[0]
        served = Served(
            unit=coap_files.UNIT,
            files=coap_files.certificate,
            act="true",  # it looks for itself
            then=f"sleep {coap_files.LOOKS_WITHIN}",
            address=address,
            port=port,
            name=coap_host(site),
            kind="dtls-certificate",
        )
        yield ServerKey(coap_files.server_name(gateways.target(gateway)), gateway, served, gateways)


def movers(gateways: Gateways) -> dict[str, Mover]:
    """All of the site, by their names in the vault."""
    return {mover.name: mover for family in (_databases, _fronts, _coaps) for mover in family(gateways)}
