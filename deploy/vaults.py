"""Where a site's vault, the key that opens it, and its device registry are."""

from __future__ import annotations

import functools
import getpass
import os
import shutil
import sys
from pathlib import Path

from deploy.inventory import ROOT, reports
from gatehouse.identity import Pki, PkiError, SecretStore, Vault, VaultError, new_identity
from gatehouse.identity.token import Token
from gatehouse.proof.credentials import keep_revoked
from gatehouse.proof.seal import CHAIN
from gatehouse.site import INTERNET, Site


def vault_path(site: Site) -> Path:
    """The age file: committed beside the inventory, except a lab's."""
    return site.state / "vault.age" if site.state else vault_of(site.name)


def vault_of(name: str) -> Path:
    """Where the vault of a site that is no lab is, or will be."""
    return ROOT / "inventories" / "vaults" / f"{name}.age"


def identity_path(site: Site) -> Path:
    """The age identity that opens the vault: never in the checkout, except a lab's. `GATEHOUSE_IDENTITY` overrides."""
    if site.state and not os.environ.get("GATEHOUSE_IDENTITY"):
        return site.state / "identity.age"
    return identity_of(site.name)


def identity_of(name: str) -> Path:
    """Where the identity of a site that is no lab is, or must be put."""
    if named := os.environ.get("GATEHOUSE_IDENTITY"):
        return Path(named)
    return Path(os.environ.get("XDG_CONFIG_HOME", Path.home() / ".config")) / "gatehouse" / f"{name}.age"


def registry_path(site: Site) -> Path:
    """Where the devices of a site are written down."""
    committed = ROOT / "inventories" / "devices" / f"{site.name}.toml"
    if site.state is None:
        return committed
    own = site.state / "devices.toml"
    if not own.exists():
        shutil.copyfile(committed, own)
    return own


def open_vault(site: Site) -> Vault:
    """The site's vault. Raises `VaultError` if it is missing or this identity doesn't open it."""
    if not vault_path(site).exists():
        make = (
            "`./kit lab.up` makes the lab's"
            if site.lab
            else f"restore its backup, or `./kit init {site.name}` makes one"
        )
        raise VaultError(f"{vault_path(site)}: no vault ({make})")
    return Vault.open(vault_path(site), identities=[identity_path(site)])


def open_pki(site: Site, vault: SecretStore | None = None) -> Pki:
    """The site's PKI in its vault (opened unless given), its authorities made if they are not there yet."""
    inside = (net for g in site.gateways.values() for name, net in g.networks.items() if name != INTERNET)
    prefixes = {prefix for network in inside for prefix in network.prefixes}
    services = {service.name for service in site.services}
    vault = open_vault(site) if vault is None else vault
    pki = Pki(vault, site.name, site.domain, prefixes=prefixes, reserved=services, tokens=tokens(site))
    pki.ensure()
    keep_revoked(vault, pki)
    return pki


def tokens(site: Site) -> dict[str, Token]:
    """The hardware tokens that a site names for its authorities' keys, by role; one PIN a run is enough for all."""
    return {
        role: Token(
            place.pkcs11.module, place.pkcs11.token, functools.partial(_pin, place.pkcs11.token), place.pkcs11.label
        )
        for role, place in site.authority.items()
    }


@functools.cache
def _pin(token: str) -> str:
    """From the environment, or from the terminal; never from the command line, where others can see it."""
    if (given := os.environ.get("GATEHOUSE_PKCS11_PIN")) is not None:
        return given
    if not sys.stdin.isatty():
        raise PkiError(f"token '{token}': no PIN (set GATEHOUSE_PKCS11_PIN, or run this in a terminal, which asks)")
    return getpass.getpass(f"PIN of the token '{token}': ")


def prepare_lab(site: Site) -> None:
    """Makes a lab's identity and vault if it has none: a lab generates its own secrets."""
    identity = identity_path(site)
    if not vault_path(site).exists():
        identity.unlink(missing_ok=True)
        recipient = new_identity(identity)
        Vault.create(vault_path(site), [recipient])
        # The reports of a lab that was here before are signed with a key that nobody has any more.
        chain = reports(site) / site.name / CHAIN
        if chain.exists():
            chain.replace(chain.with_name(f"former-{CHAIN}"))
