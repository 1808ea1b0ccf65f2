"""What stands in the gateway's log: whether a word there is one of those that are looked for, by their digests."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Iterable, Iterator

from gatehouse.proof.probes.facts import PRIVATE_KEY
from gatehouse.proof.probes.reach import Probe, Result, patience

ENTRIES = 50_000  # of the journal, the newest
LARGEST = 5_000_000  # bytes of a file
FOLDER = "/var/log"
SHORTEST = 12
"""Characters: what is shorter is a word that stands in any log."""
WORD = re.compile(rf"[A-Za-z0-9+/_-]{{{SHORTEST},}}")
_PRIVATE_KEY = re.compile(PRIVATE_KEY.pattern.decode())


def words(probe: Probe) -> Result:
    """Reads the journal and the files below `folder`: `read`, with the number of `words` and `places`, and `found`.

    `found` names the places where a word has one of `digests` (SHA-256, hex), or where a private key begins.
    """
    wanted = set(probe["digests"])
    known: dict[str, bool] = {}
    found, number = [], 0
    for place, text in _places(probe.get("folder", FOLDER), patience(probe, 60)):
        number += 1
        secret = bool(_PRIVATE_KEY.search(text))
        for word in set(parts(WORD.findall(text))):
            if word not in known:
                known[word] = hashlib.sha256(word.encode()).hexdigest() in wanted
            secret = secret or known[word]
        if secret:
            found.append(place)
    return {"outcome": "read", "words": len(known), "places": number, "found": found}


def parts(several: Iterable[str]) -> Iterator[str]:
    """Each word, and the runs of letters and digits that it consists of."""
    for word in several:
        yield word
        yield from runs(word)


def runs(word: str) -> list[str]:
    """The runs of letters and digits of a word that are long enough."""
    return [run for run in re.split(r"[+/_-]", word) if len(run) >= SHORTEST]


def _places(folder: str, timeout: float) -> Iterator[tuple[str, str]]:
    """The journal, with all its namespaces, and each file of text."""
    command = ["journalctl", "-q", "--no-pager", "--namespace=*", "-o", "cat", "-n", str(ENTRIES)]
    done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=timeout, check=True)
    yield "the journal", done.stdout.decode("utf-8", "replace")
    for above, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != "journal"]
        for name in sorted(names):
            path = os.path.join(above, name)
            try:
                if os.path.islink(path) or not os.path.isfile(path):
                    continue
                with open(path, "rb") as file:
                    content = file.read(LARGEST)
            except OSError:
                continue
            if b"\0" not in content[:1000]:
                yield path, content.decode("utf-8", "replace")
