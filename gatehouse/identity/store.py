"""Named secrets in memory: what the vault keeps on disk, and what a proof uses when nothing may be kept."""

from __future__ import annotations

import contextlib
import datetime
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from gatehouse.errors import GatehouseError

CA_KEY = "ca-key"
"""The kind of secret that `get` never hands out: a certification authority's private key stays with the operator."""

PUBLIC_KINDS = frozenset({"certificate", "crl", "record"})
"""Kinds of entries that are no secret: they are kept beside the keys that they belong to."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)*")


class VaultError(GatehouseError):
    """The vault can't be read or written, or has no such secret. Says which file and which name, never a value."""


@dataclass(frozen=True)
class Entry:
    """One secret: its value (bytes, hidden in the repr), its kind, and when it was made (UTC, ISO 8601)."""

    value: bytes = field(repr=False)
    kind: str
    created: str


class SecretStore:
    """Secrets by name, in memory. Names are lower-case paths such as `mosquitto/influx-token`."""

    where = "memory"

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.where}: {len(self._entries)} secrets>"

    def apart(self) -> SecretStore:
        """Return the same secrets in memory alone: what is made there meanwhile is kept nowhere."""
        store = SecretStore()
        store._entries = dict(self._entries)
        return store

    def names(self, prefix: str = "") -> list[str]:
        """Return the sorted names that start with prefix."""
        return sorted(name for name in self._entries if name.startswith(prefix))

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def about(self, name: str) -> Entry:
        """Return the entry of a name (its repr shows kind and age only). Raises `VaultError`."""
        try:
            return self._entries[name]
        except KeyError:
            raise VaultError(f"{self.where}: no secret named {name!r}; look it up among the names") from None

    def get(self, name: str) -> bytes:
        """Return a secret's value. Raises `VaultError` when there is none, and for any private key of an authority."""
        entry = self.about(name)
        if entry.kind == CA_KEY:
            raise VaultError(f"{self.where}: {name} is an authority's private key; it signs here and goes nowhere")
        return entry.value

    def get_text(self, name: str) -> str:
        """Return a secret's value as text. Raises `VaultError`, also when it is not UTF-8."""
        value = self.get(name)
        with contextlib.suppress(UnicodeDecodeError):
            return value.decode()
        raise VaultError(f"{self.where}: {name} is binary, not text; read it as bytes")

    def get_authority_key(self, name: str) -> bytes:
        """Return the private key of a certification authority, for `gatehouse.identity.pki` alone."""
        entry = self.about(name)
        if entry.kind != CA_KEY:
            raise VaultError(f"{self.where}: {name} is no key of a certification authority")
        return entry.value

    def set(self, name: str, value: bytes | str, kind: str = "secret") -> None:
        """Store a value under a name; an equal value of the same kind keeps its date. Raises `VaultError`."""
        if not _NAME.fullmatch(name) or len(name) > 200:
            raise VaultError(
                f"{self.where}: {name[:200]!r} is no name for a secret; use a to z, 0 to 9, . _ - and /, up to 200"
            )
        data = value.encode() if isinstance(value, str) else bytes(value)
        old = self._entries.get(name)
        if old is None or old.value != data or old.kind != kind:
            self._entries[name] = Entry(data, kind, now_text())

    def delete(self, name: str) -> None:
        """Remove a secret; one that is not there is no error."""
        self._entries.pop(name, None)

    def rename(self, old: str, new: str) -> None:
        """Move an entry to another name, with its date; one that is not there is no error."""
        if old in self._entries:
            self._entries[new] = self._entries.pop(old)

    def obtain(self, name: str, make: Callable[[], bytes | str], kind: str = "secret") -> bytes:
        """Return a secret's value; when there is none, make and save it first, once even with several writers."""
        if name not in self._entries:
            with self.transaction():
                if name not in self._entries:
                    self.set(name, make(), kind)
        return self.get(name)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[SecretStore]:
        """All changes of the block or, when it raises, none."""
        before = dict(self._entries)
        try:
            yield self
        except BaseException:
            self._entries = before
            raise


def now_text() -> str:
    """Return the time, as the vault notes it: UTC, ISO 8601, whole seconds."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
