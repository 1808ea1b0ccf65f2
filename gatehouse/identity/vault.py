"""The vault: every secret of a site in one age-encrypted file, safe to commit.

The file is plain age (https://age-encryption.org/v1) around a JSON object, so that `age --decrypt` alone can rescue it:

    {"format": 1, "generation": 7, "recipients": ["age1…"],
     "secrets": {"mosquitto/influx-token": {"text": "…", "kind": "secret", "created": "2025-01-31T12:00:00Z"}}}

A value that is not UTF-8 stands under `base64` in place of `text`. The recipients are inside, so that each save
encrypts to all of them and an outsider does not learn who they are.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import json
import os
import stat
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gatehouse.identity import age
from gatehouse.identity.files import locked, stage, sync_directory, write_private
from gatehouse.identity.store import Entry, SecretStore, VaultError

__all__ = ["Vault", "VaultError", "new_identity", "read_identities"]

_FORMAT = 1


class Vault(SecretStore):
    """A site's vault, open. Reads take no lock; `save`, `obtain` and the end of a `transaction` write the changes.

    Several processes may have it open: a write first re-reads the file under the lock, and what others changed stays.
    """

    def __init__(self, path: Path, secret_keys: Sequence[str]) -> None:
        super().__init__()
        self.where = str(path)
        self._path = Path(os.path.realpath(path))
        self._secret_keys = tuple(secret_keys)
        self._raw: bytes | None = None
        self._base: dict[str, Entry] = {}
        self._recipients: tuple[str, ...] = ()
        self._generation = 0
        self._mine = threading.RLock()
        self._depth = 0

    @classmethod
    def create(cls, path: str | Path, recipients: Sequence[str], overwrite: bool = False) -> Vault:
        """Write an empty vault for the recipients (`age1…`, at least one) and return it, open.

        With overwrite a vault that is there becomes the previous generation. Raises `VaultError`.
        """
        vault = cls(Path(path), ())
        for text in recipients:
            if not age.is_recipient(text):
                # not quoted: whoever pastes the wrong line pastes the secret one
                raise VaultError(f"{path}: a recipient is no age public key; give the line that starts with 'age1'")
        if not recipients:
            raise VaultError(f"{path}: a vault needs at least one recipient; make one with an identity of your own")
        vault._recipients = tuple(dict.fromkeys(recipients))
        try:
            vault._path.parent.mkdir(parents=True, exist_ok=True)
            with locked(vault._path):
                if vault._path.exists() and not overwrite:
                    raise VaultError(f"{path}: there is a vault already, and its devices need it; move it away first")
                vault._write()
        except OSError as error:
            raise vault._unwritten(error) from None
        return vault

    @classmethod
    def open(cls, path: str | Path, identities: Sequence[str | Path]) -> Vault:
        """Open a vault with identities: paths of identity files, or `AGE-SECRET-KEY-1…`. Raises `VaultError`."""
        vault = cls(Path(path), read_identities(identities))
        vault._read()
        return vault

    def __repr__(self) -> str:
        return f"<Vault {self.where}: {len(self._entries)} secrets, {len(self._recipients)} recipients>"

    @property
    def recipients(self) -> tuple[str, ...]:
        """Who can open the vault: age public keys."""
        return self._recipients

    @property
    def generation(self) -> int:
        """How often the vault was written; of two copies the higher one is the newer."""
        return self._generation

    @property
    def previous(self) -> Path:
        """Where the generation before this one is kept."""
        return self._path.with_name(self._path.name + ".previous")

    def save(self) -> None:
        """Write what was changed since the vault was opened, over what others wrote meanwhile. Raises `VaultError`."""
        with self.transaction():
            pass

    @contextlib.contextmanager
    def transaction(self) -> Iterator[SecretStore]:
        """Hold the lock, re-read the file, run the block, write once; when block or write fails nothing is changed.

        Blocks may nest; the outermost writes. Raises `VaultError`, or `files.Busy` when another process keeps the lock.
        """
        with self._mine, contextlib.ExitStack() as stack:
            if self._depth == 0:
                try:
                    stack.enter_context(locked(self._path))
                except OSError as error:
                    raise self._unwritten(error) from None
                self._merge()
            before = dict(self._entries)
            self._depth += 1
            try:
                yield self
                if self._depth == 1 and self._entries != self._base:
                    try:
                        self._write()
                    except OSError as error:
                        raise self._unwritten(error) from None
            except BaseException:
                self._entries = before
                raise
            finally:
                self._depth -= 1

    def _merge(self) -> None:
        """Re-read the file and lay the unsaved changes over it."""
        changed = {name: entry for name, entry in self._entries.items() if self._base.get(name) != entry}
        gone = self._base.keys() - self._entries.keys()
        self._read()
        self._entries = {name: entry for name, entry in self._entries.items() if name not in gone} | changed

    def _read(self) -> None:
        try:
            raw = self._path.read_bytes()
        except FileNotFoundError:
            site = self._path.stem
            mend = f"`./kit init {site}` makes one, or restore its backup here"
            raise VaultError(f"{self.where}: no vault; {mend}") from None
        except OSError as error:
            raise VaultError(f"{self.where}: can't be read ({error.strerror}); mend its owner and mode") from None
        if raw != self._raw:
            self._recipients, self._generation, self._base = self._decode(raw)
            self._raw = raw
        self._entries = dict(self._base)

    def _decode(self, raw: bytes) -> tuple[tuple[str, ...], int, dict[str, Entry]]:
        if not self._secret_keys:
            raise VaultError(f"{self.where}: another process changed it; open it with an identity to go on")
        try:
            plain = age.decrypt(raw, self._secret_keys)
        except age.WrongIdentity:
            mine = ", ".join(str(age.recipient_of(key)) for key in self._secret_keys)
            raise VaultError(
                f"{self.where}: this identity is not among its recipients ({mine}); use the identity it was made with,"
                " or have a recipient add yours"
            ) from None
        except age.Damaged:
            raise VaultError(self._damaged("is damaged or no age file")) from None
        document = _parse(plain)
        if document is not None and document.get("format") != _FORMAT:
            raise VaultError(f"{self.where}: written by a newer version of the kit; update the kit")
        content = None if document is None else _content(document)
        if content is None:
            raise VaultError(self._damaged("was decrypted, but holds no vault"))
        return content

    def _damaged(self, how: str) -> str:
        if self.previous.exists():
            return f"{self.where}: {how}; the generation before it is {self.previous.name}, beside it"
        return f"{self.where}: {how}; restore it from its backup"

    def _write(self) -> None:
        """Encrypt and swap in. The lock is held. Raises OSError with the file as it was."""
        document = {
            "format": _FORMAT,
            "generation": self._generation + 1,
            "recipients": list(self._recipients),
            "secrets": {name: _to_json(entry) for name, entry in sorted(self._entries.items())},
        }
        raw = age.encrypt(json.dumps(document, ensure_ascii=False, indent=1).encode(), self._recipients)
        new = stage(self._path, raw)
        try:
            if self._path.exists():
                # after the new one is on the disk: a disk that fills up on the way costs neither generation
                write_private(self.previous, self._path.read_bytes())
            os.replace(new, self._path)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
        self._raw, self._base, self._generation = raw, dict(self._entries), self._generation + 1
        sync_directory(self._path.parent)

    def _unwritten(self, error: OSError) -> VaultError:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        mend = "free some space" if full else "mend the owner and mode of its directory"
        return VaultError(
            f"{self.where}: not written ({error.strerror}), the vault is as it was; {mend}, then run this again"
        )


def new_identity(path: str | Path) -> str:
    """Write a new age identity file (0600) and return its recipient `age1…`; it replaces none. Raises `VaultError`."""
    path = Path(path)
    secret_key, recipient = age.generate()
    text = f"# public key: {recipient}\n{secret_key}\n"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        staged = stage(path, text.encode())
        try:
            os.link(staged, path)  # unlike a rename it never replaces one that a vault depends on
        finally:
            staged.unlink()
        sync_directory(path.parent)
    except FileExistsError:
        raise VaultError(f"{path}: there is an identity already, and vaults may need it; choose another file") from None
    except OSError as error:
        raise VaultError(f"{path}: not written ({error.strerror}); choose a place you can write to") from None
    return recipient


def read_identities(sources: Sequence[str | Path]) -> list[str]:
    """Return the secret keys that the sources hold: identity files by path, or `AGE-SECRET-KEY-1…` strings.

    Raises `VaultError` for a file that is missing, holds no identity, or is open to others than its owner.
    """
    if not sources:
        raise VaultError("no age identity given; name your identity file (`age-keygen` or `./kit init` makes one)")
    return [key for source in sources for key in _identity(source)]


def _identity(source: str | Path) -> list[str]:
    if isinstance(source, str) and source.strip().upper().startswith("AGE-SECRET-KEY-"):
        where, text = "the age identity given", source
    else:
        where, text = str(source), _identity_file(Path(source))
    keys = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if not keys or not all(key.startswith(age.SECRET_KEY_PREFIX) and age.recipient_of(key) for key in keys):
        raise VaultError(f"{where}: no age identity (a line {age.SECRET_KEY_PREFIX}…); check that it is whole")
    return keys


def _identity_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o077:
                raise VaultError(f"{path}: others can read this identity (mode {mode:04o}); chmod 600 {path}")
            return file.read(65536).decode("utf-8", "replace")
    except FileNotFoundError:
        raise VaultError(f"{path}: no such identity file; put it back, or name the one that you have") from None
    except OSError as error:
        raise VaultError(f"{path}: can't be read ({error.strerror}); mend its owner and mode") from None


def _to_json(entry: Entry) -> dict[str, str]:
    about = {"kind": entry.kind, "created": entry.created}
    try:
        return {"text": entry.value.decode(), **about}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(entry.value).decode(), **about}


def _parse(plain: bytes) -> dict[str, Any] | None:
    # an error of the parser carries the whole document: it ends here
    try:
        document = json.loads(plain)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _content(document: dict[str, Any]) -> tuple[tuple[str, ...], int, dict[str, Entry]] | None:
    try:
        recipients = tuple(str(text) for text in document["recipients"])
        entries = {
            str(name): Entry(
                base64.b64decode(fields["base64"], validate=True) if "base64" in fields else fields["text"].encode(),
                str(fields["kind"]),
                str(fields["created"]),
            )
            for name, fields in document["secrets"].items()
        }
        generation = int(document["generation"])
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError):
        return None
    return (recipients, generation, entries) if recipients and all(map(age.is_recipient, recipients)) else None
