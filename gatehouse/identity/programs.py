"""Programs that know no certificates: their names and passwords at the broker.

    broker/programs/NAME/password    generated, in the vault; NAME is as the site's `programs` call it
    broker/programs/NAME/salt        of its hash, so that the same password is the same line at each deploy

The broker is given hashes alone, in the form of mosquitto_passwd(1).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable

from gatehouse.identity.passwords import password, raw_key
from gatehouse.identity.store import SecretStore

PREFIX = "program."
"""What their user names begin with: the full stop keeps them apart from the names of devices."""

PROBE = "gatehouse_probe"
"""The program that the compliance suite plays, so that it ends no other's session; no site can name one so."""

ITERATIONS = 101
"""As mosquitto_passwd makes it: a generated password of 128 bits needs no slower hash."""

_SALT = 12  # bytes: mosquitto 2.0 takes no other length


def user_name(program: str) -> str:
    """Return the name that a program says to the broker."""
    return PREFIX + program


def secret_name(program: str) -> str:
    """Return the name in the vault of a program's password."""
    return f"broker/programs/{program}/password"


def password_of(vault: SecretStore, program: str) -> str:
    """Return a program's password; it is made when there is none yet. Raises `VaultError`."""
    return vault.obtain(secret_name(program), password).decode()


def forget_salt(vault: SecretStore, program: str) -> None:
    """With a new password comes a new salt, and with it another hash."""
    vault.delete(_salt_name(program))


def password_file(vault: SecretStore, programs: Iterable[str]) -> bytes:
    """Return the broker's `password_file`: a line for each program, and one for the suite's; empty without programs."""
    names = sorted(programs)
    lines = [_line(vault, name) for name in ([*names, PROBE] if names else [])]
    return "".join(lines).encode()


def _salt_name(program: str) -> str:
    return f"broker/programs/{program}/salt"


def _line(vault: SecretStore, program: str) -> str:
    salt = vault.obtain(_salt_name(program), lambda: raw_key(128)[:_SALT])
    made = hashlib.pbkdf2_hmac("sha512", password_of(vault, program).encode(), salt, ITERATIONS)
    shown = "$".join(["", "7", str(ITERATIONS), *(base64.b64encode(part).decode() for part in (salt, made))])
    return f"{user_name(program)}:{shown}\n"
