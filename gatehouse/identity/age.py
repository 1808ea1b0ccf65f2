"""age encryption, typed: the one place that knows pyrage (https://age-encryption.org/v1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from pyrage import decrypt as _decrypt  # type: ignore[import-untyped]
from pyrage import decrypt_io as _decrypt_io
from pyrage import encrypt as _encrypt
from pyrage import encrypt_io as _encrypt_io
from pyrage import x25519 as _x25519

HEADER = b"age-encryption.org/v1\n"
SECRET_KEY_PREFIX = "AGE-SECRET-KEY-1"  # noqa: S105 - the public marker of the format, no secret


class Reader(Protocol):
    """What a stream is read from."""

    def read(self, size: int = -1, /) -> bytes:
        """Some of it, nothing at its end."""


class Writer(Protocol):
    """What a stream is written to."""

    def write(self, data: bytes, /) -> int:
        """Takes all of it."""

    def flush(self) -> None:
        """Hands it on."""


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


class _Watched:
    """A stream whose own failure is kept: pyrage tells it and a damaged file by each other's exceptions."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.failure: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._stream, name)

        def watched(*arguments: Any) -> Any:
            try:
                return method(*arguments)
            except OSError as error:
                self.failure = error
                raise

        return watched


def encrypt_stream(plain: Reader, sealed: Writer, recipients: Sequence[str]) -> None:
    """Encrypt a stream into another, 64 KiB at a time, so that each of the recipients alone can read it.

    Raises OSError where either stream fails.
    """
    source, sink = _Watched(plain), _Watched(sealed)
    try:
        _encrypt_io(source, sink, [_x25519.Recipient.from_str(text) for text in recipients])
    except Exception:
        failure = source.failure or sink.failure
        if failure is None:
            raise
    else:
        return
    raise failure


def decrypt_stream(sealed: Reader, plain: Writer, secret_keys: Sequence[str]) -> None:
    """Decrypt a stream into another. What was written by the time it raises is a true beginning, and no more.

    Raises `WrongIdentity` when no key fits, `Damaged` when the bytes are no intact age file, OSError where either
    stream fails.
    """
    source, sink = _Watched(sealed), _Watched(plain)
    identities = [_x25519.Identity.from_str(text) for text in secret_keys]
    try:
        _decrypt_io(source, sink, identities)
        return
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a Rust panic arrives as a BaseException of its own
        wrong, failure = "matching keys" in str(error), source.failure or sink.failure
    if failure is not None:
        raise failure
    raise WrongIdentity if wrong else Damaged
