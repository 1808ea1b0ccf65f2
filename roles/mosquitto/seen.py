#!/usr/bin/python3
"""Runs on the gateway: tells when devices were last there, by the broker's journal and by what others keep of them.

    mosquitto-seen <REQUEST >ANSWER

REQUEST is JSON: {"names": [NAME, …], "own": [ADDRESS, …], "seconds": 3, "kept": [PATH, …]}; whoever comes from an
address of the gateway's own is the kit, in the client's name; each file that is kept holds {NAME: SECONDS, …}. ANSWER
is JSON: {"seen": {NAME: SECONDS, …}, "since": SECONDS}: Unix time, that of now for one that is connected; and how far
back was looked in the journal, in `seconds` at most. It ends when all have been found there.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Collection, Iterable
from pathlib import Path

JOURNAL = ["journalctl", "-q", "--no-pager", "--reverse", "-o", "short-unix", "-u", "mosquitto.service"]
LINE = re.compile(r"(\d+\.\d+) \S+ mosquitto\[\d+\]: (.*)")
CAME = re.compile(r"New client connected from (\S+):\d+ as (\S+) \(")
WENT = re.compile(r"Client (\S+) (?:disconnected|closed|already connected|has exceeded)")
STARTED = re.compile(r"mosquitto version \S+ starting")


def seen(
    lines: Iterable[str], names: Iterable[str], own: Collection[str], now: float, until: float = float("inf")
) -> tuple[dict[str, float], float]:
    """When each was last there, and the oldest moment looked at. `lines` are the journal's, the newest first; reading
    ends when all are found, or at `until` (monotonic seconds)."""
    wanted = set(names)
    found: dict[str, float] = {}
    gone: dict[str, float] = {}
    # Up to when a session lasted whose end is not in the journal: to this day, or until the broker ended.
    lasted, oldest, was_started = now, now, False
    for line in lines:
        parts = LINE.match(line)
        if parts is None:
            continue
        oldest, said = float(parts[1]), parts[2]
        if was_started:
            lasted, was_started = oldest, False
            gone.clear()
        if came := CAME.match(said):
            address, name = came[1], came[2]
            end = gone.pop(name, lasted)
            if name in wanted and address not in own:
                found[name] = end
                wanted.discard(name)
        elif went := WENT.match(said):
            if went[1] in wanted:
                gone[went[1]] = oldest
        elif STARTED.match(said):
            was_started = True
        if not wanted or time.monotonic() > until:
            break
    return found, oldest


def kept(path: Path, names: Collection[str], now: float) -> dict[str, float]:
    """What a file has of these names; nothing where there is none, or it is broken."""
    try:
        found = {str(name): float(moment) for name, moment in json.loads(path.read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
    # A moment that is still to come was taken by a clock that has been set back since.
    return {name: min(moment, now) for name, moment in found.items() if name in names}


def main() -> int:
    """Exit status 0."""
    request = json.load(sys.stdin)
    until = time.monotonic() + min(float(request["seconds"]), 10)
    with subprocess.Popen(JOURNAL, stdout=subprocess.PIPE, text=True, errors="replace") as journal:
        assert journal.stdout is not None  # noqa: S101  a pipe
        found, since = seen(journal.stdout, request["names"], request["own"], time.time(), until)
        journal.kill()
    for path in request.get("kept", ()):
        for name, moment in kept(Path(path), set(request["names"]), time.time()).items():
            found[name] = max(moment, found.get(name, moment))
    json.dump({"seen": found, "since": since}, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
