"""The tokens of 2.x that consumers have: which generation of the vault's each is of, and the one before it.

Beside a consumer's credential lies `.CONSUMER.tokens`, root's own: `GENERATION TOKEN` a line, the one in use first. It
is written before the credential, so a token that a consumer has is never one that nobody knows.
"""

from __future__ import annotations

import os
import secrets

import common


class Shelf:
    """What root remembers of the consumers' tokens."""

    def __init__(self, settings: common.Settings) -> None:
        self._settings = settings

    def token(self, consumer: str, generation: str) -> str | None:
        """The token of a generation, None where there is none."""
        return dict(self._lines(consumer)).get(generation)

    def put(self, consumer: str, generation: str, token: str) -> None:
        """Notes a new token, then hands it to its consumer."""
        others = [line for line in self._lines(consumer) if line[0] != generation][:1]
        path = common.FOLDER / f".{consumer}.tokens"
        beside = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
        file = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(file, "".join(f"{name} {value}\n" for name, value in [(generation, token), *others]).encode())
            os.fsync(file)
            os.rename(beside, path)
        except OSError:
            beside.unlink(missing_ok=True)
            raise
        finally:
            os.close(file)
        common.keep(self._settings, consumer, token)

    def _lines(self, consumer: str) -> list[tuple[str, str]]:
        try:
            text = (common.FOLDER / f".{consumer}.tokens").read_text()
        except OSError:
            return []
        found = [line.split() for line in text.splitlines()]
        return [(words[0], words[1]) for words in found if len(words) == 2]
