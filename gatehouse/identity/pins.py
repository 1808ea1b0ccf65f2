"""What a device pins of its broker: the server's certificate, its key, and the key that comes after it.

A renewed certificate keeps its key, so a device that pins keys notices nothing. When the key itself has to go, the
broker moves to the backup key, whose pin every device has had since it was enrolled (RFC 7469 §4.3).

    server/NAME/key, server/NAME/certificate    of `Pki.server`
    server/NAME/backup-key                      in the vault only, until the broker moves to it
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from gatehouse.identity.authority import PkiError, key_to_pem, new_key, read_key
from gatehouse.identity.leaf import Credential, spki
from gatehouse.identity.pki import Pki
from gatehouse.identity.store import SecretStore
from gatehouse.site import Site

BROKER = ("mosquitto", "mqtts")
"""The service and the listener that devices connect to."""


@dataclass(frozen=True)
class Pins:
    """SHA-256 digests in lower-case hex: of the certificate (DER), of its key and of the backup key (DER SPKI)."""

    certificate_sha256: str
    spki_sha256: str
    backup_spki_sha256: str

    def fits(self, certificate: x509.Certificate) -> Literal["certificate", "key", "backup key"] | None:
        """Say by which pin a served certificate is known, the closest first; None when by none."""
        if certificate.fingerprint(hashes.SHA256()).hex() == self.certificate_sha256:
            return "certificate"
        served = sha256(spki(certificate.public_key())).hexdigest()
        if served == self.spki_sha256:
            return "key"
        return "backup key" if served == self.backup_spki_sha256 else None


def broker_host(site: Site) -> str:
    """The name by which devices reach the broker of their gateway: each gateway resolves it to itself."""
    return f"broker.{site.domain}"


def coap_host(site: Site) -> str:
    """The name by which devices reach the CoAP endpoint of their gateway."""
    return f"coap.{site.domain}"


def broker_addresses(site: Site, gateway: str) -> list[str]:
    """The addresses at which the devices of a gateway reach its broker."""
    here = site.gateways[gateway]
    segments = [s for s in site.listener(*BROKER).reachable_from if s in here.networks]
    return [str(address) for segment in segments for address in here.networks[segment].addresses]


def broker_certificate(pki: Pki, site: Site, gateway: str) -> Credential:
    """The certificate of a gateway's broker: for the names and addresses at which devices and programs reach it."""
    names = [broker_host(site), f"{gateway}.{site.domain}"]
    here = site.gateways[gateway].networks
    reached = {s for listener in site.service(BROKER[0]).listeners for s in listener.reachable_from if s in here}
    addresses = [str(address) for segment in sorted(reached) for address in here[segment].addresses]
    return pki.server(f"{BROKER[0]}-{gateway}", names, addresses)


def pins_of(vault: SecretStore, server: Credential) -> Pins:
    """The pins of a server's certificate; its backup key is made when there is none yet. Raises `VaultError`."""
    where = f"server/{server.name}/backup-key"
    backup = read_key(where, vault.obtain(where, lambda: key_to_pem(new_key()), "private-key"))
    return Pins(server.fingerprint_sha256, server.spki_sha256, sha256(spki(backup.public_key())).hexdigest())


def move_to_backup_key(vault: SecretStore, name: str) -> None:
    """Make the backup key the server's key, and a new backup key; `Pki.server` then issues for it.

    Devices enrolled before know the new key already, but not the new backup key: refresh their bundles before the next
    move. Raises `PkiError` when there is no backup key: no device could have its pin.
    """
    backup = f"server/{name}/backup-key"
    with vault.transaction():
        if backup not in vault:
            raise PkiError(f"server {name}: it has no backup key, so no device knows one; enrol devices first")
        vault.set(f"server/{name}/key", vault.get(backup), "private-key")
        vault.set(backup, key_to_pem(new_key()), "private-key")
        vault.delete(f"server/{name}/certificate")
