"""Keys of the tunnels for remote management (WireGuard): X25519 (RFC 7748), as `wg` writes them, in base64.

    wireguard/gateways/GATEWAY         a gateway's private key
    wireguard/peers/PEER               a peer's, where the kit makes it
    wireguard/shared/GATEWAY/PEER      the key that the two share besides: a layer that outlives X25519

`remote.PROBE` is the peer that the compliance suite plays.

A peer with a public key of its own has its private key nowhere here.
"""

from __future__ import annotations

import base64

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from gatehouse.identity.passwords import raw_key
from gatehouse.identity.store import SecretStore
from gatehouse.site.remote import Peer

KIND = "wireguard-key"


def new_key() -> str:
    """Return a new private key."""
    raw = X25519PrivateKey.generate().private_bytes(
        serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption()
    )
    return base64.b64encode(raw).decode()


def public_of(private: str) -> str:
    """Return the public key of a private one."""
    key = X25519PrivateKey.from_private_bytes(base64.b64decode(private)).public_key()
    return base64.b64encode(key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)).decode()


def gateway_name(gateway: str) -> str:
    """Return the name in the vault of a gateway's key."""
    return f"wireguard/gateways/{gateway}"


def peer_name(peer: str) -> str:
    """Return the name in the vault of a peer's key."""
    return f"wireguard/peers/{peer}"


def shared_name(gateway: str, peer: str) -> str:
    """Return the name in the vault of what a gateway and a peer share."""
    return f"wireguard/shared/{gateway}/{peer}"


def gateway_key(vault: SecretStore, gateway: str) -> str:
    """Return a gateway's private key; it is made when there is none yet. Raises `VaultError`."""
    return vault.obtain(gateway_name(gateway), new_key, KIND).decode()


def peer_key(vault: SecretStore, name: str) -> str:
    """Return the private key of a peer that the kit makes it for; it is made when there is none yet."""
    return vault.obtain(peer_name(name), new_key, KIND).decode()


def peer_public(vault: SecretStore, name: str, peer: Peer) -> str:
    """Return a peer's public key, its own or that of the one in the vault. Raises `VaultError`."""
    return peer.public_key or public_of(peer_key(vault, name))


def shared_key(vault: SecretStore, gateway: str, peer: str) -> str:
    """Return the preshared key of a gateway and a peer; it is made when there is none yet. Raises `VaultError`."""
    made = vault.obtain(shared_name(gateway, peer), lambda: base64.b64encode(raw_key()), KIND)
    return made.decode()


def names_of(vault: SecretStore, peer: str) -> list[str]:
    """Return the names of all keys of a peer: its own, where it is here, and those that it shares."""
    shared = (name for name in vault.names("wireguard/shared/") if name.endswith(f"/{peer}"))
    return [*(name for name in vault.names("wireguard/peers/") if name == peer_name(peer)), *shared]


def forget(vault: SecretStore, peer: str) -> None:
    """Delete all keys of a peer, so that one of the same name gets new ones. Raises `VaultError`."""
    with vault.transaction():
        for name in names_of(vault, peer):
            vault.delete(name)
