"""The vault: every secret of a site in one age-encrypted file, safe to commit. What is inside: `document`."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from gatehouse.identity import age
from gatehouse.identity.document import Document, Leaver, Newer, Recipients, decode, encode
from gatehouse.identity.files import locked, stage, sync_directory, write_private
from gatehouse.identity.store import PUBLIC_KINDS, SecretStore, VaultError, now_text

__all__ = ["Vault", "VaultError", "new_identity", "read_identities"]


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
        self._base = Document(0, Recipients(), {})
        self._recipients = Recipients()
        self._mine = threading.RLock()
        self._depth = 0

    @classmethod
    def create(cls, path: str | Path, recipients: Sequence[str], overwrite: bool = False) -> Vault:
        """Write an empty vault for the recipients (`age1…`, at least one) and return it, open.

        With overwrite a vault that is there becomes the previous generation. Raises `VaultError`.
        """
        vault = cls(Path(path), ())
        for text in recipients:
            vault._check_recipient(text)
        if not recipients:
            raise VaultError(f"{path}: a vault needs at least one recipient; make one with an identity of your own")
        vault._recipients = Recipients(tuple(dict.fromkeys(recipients)))
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

    @classmethod
    def restore(cls, path: str | Path, raw: bytes, identities: Sequence[str | Path], overwrite: bool = False) -> Vault:
        """Put a copy of a vault in place, byte for byte, once an identity has opened it; return it, open.

        With overwrite another vault that is there becomes the previous generation. Raises `VaultError`.
        """
        vault = cls(Path(path), read_identities(identities))
        vault._decode(raw)
        try:
            vault._path.parent.mkdir(parents=True, exist_ok=True)
            with locked(vault._path):
                there = vault._path.read_bytes() if vault._path.exists() else raw
                if there != raw:
                    if not overwrite:
                        raise VaultError(
                            f"{path}: there is another vault already; move it away, or agree to replace it"
                        )
                    write_private(vault.previous, there)
                write_private(vault._path, raw)
        except OSError as error:
            raise vault._unwritten(error) from None
        vault._read()
        return vault

    def __repr__(self) -> str:
        return f"<Vault {self.where}: {len(self._entries)} secrets, {len(self.recipients)} recipients>"

    @property
    def recipients(self) -> tuple[str, ...]:
        """Who can open the vault: age public keys."""
        return self._recipients.keys

    @property
    def people(self) -> Recipients:
        """Who can open the vault, with the names they go by, and who could before."""
        return self._recipients

    @property
    def generation(self) -> int:
        """How often the vault was written; of two copies the higher one is the newer."""
        return self._base.generation

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
            before = dict(self._entries), self._recipients
            self._depth += 1
            try:
                yield self
                if self._depth == 1 and (self._entries, self._recipients) != (
                    self._base.entries,
                    self._base.recipients,
                ):
                    try:
                        self._write()
                    except OSError as error:
                        raise self._unwritten(error) from None
            except BaseException:
                self._entries, self._recipients = before
                raise
            finally:
                self._depth -= 1

    # who can open it

    def add_recipient(self, recipient: str, name: str = "") -> None:
        """Let one more identity (`age1…`) open the vault, known by a name; one that can already only gets the name.

        Raises `VaultError`.
        """
        self._check_recipient(recipient)
        if name and (not name.isprintable() or len(name) > 60 or name.startswith("age1")):
            raise VaultError(
                f"{self.where}: {name[:60]!r} is no name for a recipient; use up to 60 printable characters"
            )
        with self.transaction():
            who = self._recipients
            others = {key: known for key, known in who.names.items() if key != recipient}
            if name in others.values():
                raise VaultError(f"{self.where}: {name!r} is another recipient's name; give each its own")
            self._recipients = replace(
                who,
                keys=tuple(dict.fromkeys([*who.keys, recipient])),
                names={**others, recipient: name} if name else who.names,
                left=tuple(leaver for leaver in who.left if leaver.recipient != recipient),
            )

    def remove_recipient(self, which: str) -> str:
        """Shut out a recipient, by `age1…` or name, from this and the previous generation; return its `age1…`.

        What it has read before stays known to it: `exposed` lists that. Raises `VaultError` when there is no such
        recipient, or when it is the one whose identity opened the vault: nobody shuts himself out.
        """
        with self.transaction():
            who = self._recipients
            recipient = next((key for key, name in who.names.items() if name == which), which)
            if recipient not in who.keys:
                raise VaultError(f"{self.where}: {which[:80]!r} is no recipient; name one that `vault.show` lists")
            if recipient in map(age.recipient_of, self._secret_keys) or len(who.keys) == 1:
                raise VaultError(
                    f"{self.where}: {which[:80]!r} is who opened it; have another recipient remove this one"
                )
            self._recipients = Recipients(
                tuple(key for key in who.keys if key != recipient),
                {key: name for key, name in who.names.items() if key != recipient},
                (*who.left, Leaver(recipient, who.names.get(recipient, ""), now_text())),
            )
        return recipient

    def rekey(self) -> None:
        """Encrypt all of it anew, the previous generation too, to the present recipients alone. Raises `VaultError`."""
        try:
            with locked(self._path):
                self._merge()
                self._write(anew=True)
        except OSError as error:
            raise self._unwritten(error) from None

    def exposed(self) -> dict[str, list[Leaver]]:
        """Return the secrets that someone who left has seen and that were not replaced since, and who that was."""
        return {
            name: seen
            for name, entry in sorted(self._entries.items())
            if entry.kind not in PUBLIC_KINDS
            and (seen := [who for who in self._recipients.left if entry.created <= who.when])
        }

    def _check_recipient(self, text: str) -> None:
        if not age.is_recipient(text):
            # not quoted: whoever pastes the wrong line pastes the secret one
            raise VaultError(f"{self.where}: a recipient is no age public key; give the line that starts with 'age1'")

    # the file

    def _merge(self) -> None:
        """Re-read the file and lay the unsaved changes over it."""
        base = self._base.entries
        changed = {name: entry for name, entry in self._entries.items() if base.get(name) != entry}
        gone = base.keys() - self._entries.keys()
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
            self._base = self._decode(raw)
            self._raw = raw
        self._entries, self._recipients = dict(self._base.entries), self._base.recipients

    def _decode(self, raw: bytes) -> Document:
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
        try:
            content = decode(plain)
        except Newer:
            raise VaultError(f"{self.where}: written by a newer version of the kit; update the kit") from None
        if content is None:
            raise VaultError(self._damaged("was decrypted, but holds no vault"))
        return content

    def _damaged(self, how: str) -> str:
        if self.previous.exists():
            return f"{self.where}: {how}; the generation before it is {self.previous.name}, beside it"
        return f"{self.where}: {how}; restore it from its backup"

    def _write(self, anew: bool = False) -> None:
        """Encrypt and swap in. The lock is held. Raises OSError with the file as it was."""
        document = Document(self.generation + 1, self._recipients, dict(self._entries))
        raw = _sealed(document)
        new = stage(self._path, raw)
        try:
            if self._path.exists():
                # after the new one is on the disk: a disk that fills up on the way costs neither generation
                write_private(self.previous, self._kept(anew))
            os.replace(new, self._path)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
        self._raw, self._base = raw, document
        sync_directory(self._path.parent)

    def _kept(self, anew: bool) -> bytes:
        """What becomes the previous generation: the file as it is, for nobody else than the present recipients."""
        if self._raw is None:
            return self._path.read_bytes()
        if self._base.recipients.keys == self._recipients.keys and not anew:
            return self._raw
        return _sealed(replace(self._base, recipients=self._recipients))

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
    # The format's public marker, as everywhere in here: no key.
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


def _sealed(document: Document) -> bytes:
    return age.encrypt(encode(document), document.recipients.keys)
