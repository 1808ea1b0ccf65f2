"""When each device was last heard by CoAP: in memory, and once a minute on the disk, where it outlives a restart."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection
from pathlib import Path

from gatehouse.messages.counts import Journal

EVERY = 60.0  # seconds between two writes


class LastSeen:
    """The moments by device, in whole seconds since 1970. `path` holds them as JSON; a broken file is begun anew."""

    def __init__(self, path: Path, journal: Journal) -> None:
        self._path, self._journal = path, journal
        self._moments, self._written = _read(path), time.monotonic()
        self._changed = False

    def heard(self, device: str) -> None:
        """Notes that a device is there now."""
        self._moments[device] = int(time.time())
        self._changed = True

    def write(self, devices: Collection[str], at_once: bool = False) -> None:
        """Writes it down if it is time to, and forgets all but these devices. That it can't is said, and no more."""
        now = time.monotonic()
        if not self._changed or (now < self._written + EVERY and not at_once):
            return
        self._written, self._changed = now, False
        self._moments = {name: moment for name, moment in self._moments.items() if name in devices}
        beside = self._path.with_name(f".{self._path.name}.new")
        try:
            beside.write_text(json.dumps(self._moments))
            os.replace(beside, self._path)
        except OSError as error:
            self._journal.tell("last seen", f"{self._path}: not written: {error.strerror}")


def _read(path: Path) -> dict[str, int]:
    try:
        return {str(name): int(moment) for name, moment in json.loads(path.read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
