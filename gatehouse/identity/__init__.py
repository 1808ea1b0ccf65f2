"""Identity: the site's vault, its certification authorities, and what devices and services prove themselves with."""

from gatehouse.identity.leaf import Credential
from gatehouse.identity.names import NameRefused, check_device_name
from gatehouse.identity.pki import Pki, PkiError
from gatehouse.identity.store import SecretStore, VaultError
from gatehouse.identity.vault import Vault, new_identity, read_identities

__all__ = [
    "Credential",
    "NameRefused",
    "Pki",
    "PkiError",
    "SecretStore",
    "Vault",
    "VaultError",
    "check_device_name",
    "new_identity",
    "read_identities",
]
