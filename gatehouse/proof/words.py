"""The words by which a secret is known where it must not stand, as digests: no secret leaves the vault for this."""

from __future__ import annotations

import hashlib

from gatehouse.identity.store import PUBLIC_KINDS, SecretStore
from gatehouse.proof.probes.log import WORD, runs


def of(secret: bytes) -> list[str]:
    """The words of a secret: of a text its runs of letters and digits that are long enough, else its digits (hex).

    Of base64 the runs between `/` and `+`: what stands in a path or behind a hyphen is found, too.
    """
    try:
        text = secret.decode()
    except UnicodeDecodeError:
        return [secret.hex()]
    found = []
    for word in (word for word in WORD.findall(text) if "-----" not in word):
        found += runs(word) or [word]
    return found


def digests(vault: SecretStore) -> set[str]:
    """The SHA-256, hex, of each word of each secret of a vault; what it keeps beside them and is public is left out."""
    entries = [vault.about(name) for name in vault.names()]
    private = [e.value for e in entries if e.kind not in PUBLIC_KINDS and b"CERTIFICATE" not in e.value]
    return {hashlib.sha256(word.encode()).hexdigest() for value in private for word in of(value)}
