"""How the passwords of the gateways' boot loaders are replaced (`deploy.movers`)."""

from __future__ import annotations

from collections.abc import Iterator

from deploy.gateways import Gateways
from deploy.movers import Mover
from deploy.remote import Remote
from gatehouse.identity import SecretStore, bootloader
from gatehouse.identity.rotation import Phase
from roles import rendering
from roles.bootloader import MENU, SUPERUSER, service
from roles.bootloader.files import CHECK, configuration, making
from roles.target import Target


class BootPassword(Mover):
    """A gateway's has one at a time; the operator finds the new one in the vault from then on."""

    first: Phase = "retire"
    asked_for = False

    def __init__(self, gateway: str, gateways: Gateways) -> None:
        super().__init__(bootloader.secret_name(gateway), gateways, [gateway])
        self._gateway = gateway
        self.handover = f"`./kit vault.show --name {self.name}` prints what GRUB takes at {gateway}"

    def replaced(self, vault: SecretStore) -> None:
        """A new salt, and with it another hash."""
        bootloader.forget_salt(vault, self._gateway)
        bootloader.password_hash(vault, self._gateway)

    def bring(self, remote: Remote, target: Target) -> None:
        """The new hash, in the menu that GRUB reads at the next start."""
        files = configuration(target)
        remote.run(*rendering.swap(files, files, CHECK))
        remote.run(*making())

    def takes(self, remote: Remote, target: Target, value: bytes) -> bool:
        """By the hash that GRUB's menu has."""
        found = remote.run(f"sed -n 's/^password_pbkdf2 {SUPERUSER} //p' {MENU}").split()
        return bool(found) and bootloader.opens(value.decode(), found[-1])


def movers(gateways: Gateways) -> Iterator[BootPassword]:
    """Those of the gateways that have one: only where GRUB starts the machine is it made."""
    for gateway in gateways.running(service.name):
        if bootloader.secret_name(gateway) in gateways.pki.vault:
            yield BootPassword(gateway, gateways)
