"""age encryption, typed: the one place that knows pyrage (https://age-encryption.org/v1)."""

from __future__ import annotations

from collections.abc import Sequence

from pyrage import decrypt as _decrypt  # type: ignore[import-untyped]
from pyrage import encrypt as _encrypt
from pyrage import x25519 as _x25519

HEADER = b"age-encryption.org/v1\n"
SECRET_KEY_PREFIX = "AGE-SECRET-KEY-1"  # noqa: S105 - the public marker of the format, no secret


class WrongIdentity(Exception):
    """None of the identities is among the recipients of the file."""


class Damaged(Exception):
    """The bytes are no intact age file."""


def generate() -> tuple[str, str]:
    """Return a new X25519 identity: (the secret `AGE-SECRET-KEY-1…`, its recipient `age1…`)."""
    identity = _x25519.Identity.generate()
    return str(identity), str(identity.to_public())


def recipient_of(secret_key: str) -> str | None:
    """Return the recipient `age1…` of a secret key, None when it is no X25519 secret key."""
    try:
        return str(_x25519.Identity.from_str(secret_key).to_public())
    except Exception:  # pyrage.IdentityError; what it says about a secret is of no use to anyone
        return None


def is_recipient(text: str) -> bool:
    """Tell whether text is an X25519 recipient `age1…`."""
    try:
        _x25519.Recipient.from_str(text)
    except Exception:  # pyrage.RecipientError
        return False
    return True


def encrypt(plain: bytes, recipients: Sequence[str]) -> bytes:
    """Encrypt so that each of the recipients (`age1…`) alone can read it."""
    return bytes(_encrypt(plain, [_x25519.Recipient.from_str(text) for text in recipients]))


def decrypt(sealed: bytes, secret_keys: Sequence[str]) -> bytes:
    """Decrypt with whichever of the secret keys fits.

    Raises `WrongIdentity` when none fits and `Damaged` when the bytes are no intact age file.
    """
    if not sealed.startswith(HEADER):
        raise Damaged
    identities = [_x25519.Identity.from_str(text) for text in secret_keys]
    try:
        return bytes(_decrypt(sealed, identities))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a Rust panic arrives as a BaseException of its own
        wrong = "matching keys" in str(error)
    # raised out here so that the cause, which may quote the content, is not carried along
    raise WrongIdentity if wrong else Damaged
