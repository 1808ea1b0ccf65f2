"""Devices that can't do X.509: a key of 256 bits that device and broker share (TLS-PSK, RFC 4279, RFC 8446 §2.2).

    devices/NAME/psk    the key in hexadecimal, in the vault; NAME is the identity that the device gives with it
    broker/psk/probe    that of the compliance suite's own device

Such a device has no certificate. The gateway that it is behind knows its key, and no other gateway does.
"""

from __future__ import annotations

from collections.abc import Iterable

from gatehouse.identity.passwords import raw_key
from gatehouse.identity.store import SecretStore
from gatehouse.site import Device

PROBE = "gatehouse-probe-psk"
"""The device that the compliance suite plays; no device can have that name."""

KIND = "pre-shared-key"


def secret_name(device: str) -> str:
    """Return the name in the vault of a device's key."""
    return "broker/psk/probe" if device == PROBE else f"devices/{device}/psk"


def new_key() -> bytes:
    """Return 32 random bytes."""
    return raw_key()


def key_of(vault: SecretStore, device: str) -> bytes:
    """Return a device's key, 32 bytes. Raises `VaultError` when it has none."""
    return bytes.fromhex(vault.get_text(secret_name(device)))


def probe_key(vault: SecretStore) -> bytes:
    """Return the key of the suite's own device; it is made when there is none yet. Raises `VaultError`."""
    return bytes.fromhex(vault.obtain(secret_name(PROBE), lambda: new_key().hex().encode(), KIND).decode())


def key_file(vault: SecretStore, devices: Iterable[Device]) -> bytes:
    """Return the broker's `psk_file`: a line for each device with a key that is not revoked, and for the suite's."""
    keys = {
        device.name: key_of(vault, device.name)
        for device in devices
        if device.authentication == "psk" and device.status != "revoked" and secret_name(device.name) in vault
    }
    keys[PROBE] = probe_key(vault)
    return "".join(f"{name}:{keys[name].hex()}\n" for name in sorted(keys)).encode()
