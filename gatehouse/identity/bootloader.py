"""The password of a gateway's boot loader (GRUB): who knows it may change how the machine starts.

    bootloader/GATEWAY/password    generated, in the vault
    bootloader/GATEWAY/salt        of its hash, so that the same password is the same line at each deploy

GRUB is given the hash alone, in the form of grub-mkpasswd-pbkdf2(1).
"""

from __future__ import annotations

import hashlib
import hmac

from gatehouse.identity.passwords import password, raw_key
from gatehouse.identity.store import SecretStore

PATTERN = "bootloader/*/password"

ITERATIONS = 10_000
"""As grub-mkpasswd-pbkdf2 makes it: GRUB counts on slow firmware, and 128 random bits need no slower hash."""

_FORM = "grub.pbkdf2.sha512"


def secret_name(gateway: str) -> str:
    """Return the name in the vault of a gateway's password."""
    return PATTERN.replace("*", gateway)


def password_of(vault: SecretStore, gateway: str) -> str:
    """Return a gateway's password; it is made when there is none yet. Raises `VaultError`."""
    return vault.obtain(secret_name(gateway), password).decode()


def forget_salt(vault: SecretStore, gateway: str) -> None:
    """With a new password comes a new salt, and with it another hash."""
    vault.delete(_salt_name(gateway))


def password_hash(vault: SecretStore, gateway: str) -> str:
    """Return what GRUB's `password_pbkdf2` takes: `grub.pbkdf2.sha512.ITERATIONS.SALT.HASH`. Raises `VaultError`."""
    salt = vault.obtain(_salt_name(gateway), lambda: raw_key(512))
    made = _derived(password_of(vault, gateway), salt, ITERATIONS)
    return ".".join([_FORM, str(ITERATIONS), salt.hex().upper(), made.hex().upper()])


def opens(given: str, hashed: str) -> bool:
    """Whether GRUB lets in who types `given`, by the hash that it has; False for what is no such hash."""
    form, iterations, salt, made = ([*hashed.rsplit(".", 3), "", "", ""])[:4]
    if form != _FORM or not iterations.isdecimal():
        return False
    try:
        return hmac.compare_digest(_derived(given, bytes.fromhex(salt), int(iterations)), bytes.fromhex(made))
    except ValueError:
        return False


def _salt_name(gateway: str) -> str:
    return f"bootloader/{gateway}/salt"


def _derived(given: str, salt: bytes, iterations: int) -> bytes:
    return hashlib.pbkdf2_hmac("sha512", given.encode(), salt, iterations)
