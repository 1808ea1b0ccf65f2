"""Signs a site's reports with the key in its vault, and verifies what was signed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from deploy import vaults
from deploy.inventory import reports
from gatehouse.identity import Vault
from gatehouse.proof import seal
from gatehouse.proof.seal import SealError, Verified
from gatehouse.site import Site

KEY = "report/key"


def folder(site: Site) -> Path:
    """Where a site's reports are."""
    return reports(site) / site.name


def sign(site: Site) -> Iterator[str]:
    """Signs the runs that are not signed yet, making the key if there is none; a line each.

    Raises `SealError`, `ResultsError`, `VaultError`.
    """
    base = folder(site)
    if not base.is_dir():
        raise SealError(f"{base}: no reports (./kit verify --site {site.name} makes one)")
    yield from _signed(site, prepare(site))


def sign_at_once(site: Site) -> list[str]:
    """After a run: what `sign` does, where the site's vault has the key; without it nothing is signed.

    Raises `SealError`, `ResultsError`, `VaultError`.
    """
    if not folder(site).is_dir():
        return []
    vault = vaults.open_vault(site)
    return list(_signed(site, vault)) if KEY in vault else []


def prepare(site: Site) -> Vault:
    """Makes the key if the site's vault has none; returns the vault. Raises `VaultError`."""
    vault = vaults.open_vault(site)
    vault.obtain(KEY, new_key, "private-key")
    return vault


def _signed(site: Site, vault: Vault) -> Iterator[str]:
    signed = seal.seal(folder(site), site.name, _key(vault))
    if not signed:
        yield f"{site.name}: nothing to sign, every run is"
    for link in signed:
        yield f"{site.name}: signed run {link.run} ({link.number}): {link.digest}"


def verify(site: Site, key: str = "", head: str = "") -> Verified:
    """Verifies the site's reports, by the key in the vault or a public one in a PEM file. Raises `SealError`."""
    public = _read(Path(key)) if key else _key(vaults.open_vault(site)).public_key()
    return seal.verify(folder(site), site.name, public, head)


def public_key(site: Site) -> str:
    """What others verify the site's reports with: PEM. Raises `SealError` where nothing was signed yet."""
    public = _key(vaults.open_vault(site)).public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def new_key() -> bytes:
    """A new key, PEM."""
    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _key(vault: Vault) -> Ed25519PrivateKey:
    if KEY not in vault:
        raise SealError(f"{vault.where}: has no key for reports: none was signed yet (./kit report.sign makes it)")
    key = load_pem_private_key(vault.get(KEY), None)
    if not isinstance(key, Ed25519PrivateKey):
        raise SealError(f"{vault.where}: {KEY} is no Ed25519 key (restore a backup of the vault)")
    return key


def _read(path: Path) -> Ed25519PublicKey:
    try:
        key = load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise SealError(f"{path}: {error.strerror} (--key is a file that ./kit report.key printed)") from None
    except ValueError:
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise SealError(f"{path}: is no public Ed25519 key in PEM (--key is a file that ./kit report.key printed)")
    return key
