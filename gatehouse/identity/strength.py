"""How hard a secret is to guess for somebody who knows nothing but what it is made of."""

from __future__ import annotations

import math
import re

LEAST = 112
"""Bits (NIST SP 800-131A): generated passwords have 128, and a few less where no character is of one of the kinds."""
_KINDS = ((r"[0-9]", 10), (r"[a-f]", 6), (r"[g-z]", 20), (r"[A-Z]", 26), (r"[^0-9A-Za-z]", 4))
_LINES = re.compile(r"-----[^-]+-----|\s")


def bits(secret: bytes) -> float:
    """The length times the bits of a character, of the kinds that occur; at most what different characters can tell.

    Of a PEM file its content counts; of what is no text, its bytes.
    """
    try:
        text = _LINES.sub("", secret.decode())
    except UnicodeDecodeError:
        return 8.0 * len(secret)
    kinds = sum(size for pattern, size in _KINDS if re.search(pattern, text))
    told = len(set(text)) * 16  # one character over and over is no secret, however long
    return min(len(text) * math.log2(kinds), float(told)) if kinds > 1 else 0.0
