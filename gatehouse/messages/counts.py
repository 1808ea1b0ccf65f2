"""What became of the messages: numbers for Prometheus, and lines for the journal that no flood can multiply."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from gatehouse.messages.refusal import REASONS, Reason

QUIET = 60.0  # seconds between two lines of one reason
MOST_NAMED = 1000
"""Devices whose messages are counted one by one: those that were the first."""

_HELP = {
    "received": ("counter", "Messages that the broker delivered."),
    "stored": ("counter", "Messages that the database has taken."),
    "redelivered": ("counter", "Messages that came again because their acknowledgement was lost; stored once."),
    "batches": ("counter", "Writes that the database has taken."),
    "write_failures": ("counter", "Writes that have to be repeated: the database is away, or refuses the credential."),
    "connections": ("counter", "Sessions at the broker that were taken up."),
    "reloads": ("counter", "Times that changed keys were read."),
    "connected": ("gauge", "Whether the intake is connected to the broker."),
    "waiting": ("gauge", "Messages that are verified and not stored yet."),
    "devices": ("gauge", "Devices whose messages are taken."),
    "last_stored_seconds": ("gauge", "When the database last took something, seconds since 1970."),
}


class Journal:
    """What is said to the journal: of each subject one line a minute, on standard error unless `say` takes it."""

    def __init__(self, say: Callable[[str], None] | None = None) -> None:
        self._say = say or (lambda line: print(line, file=sys.stderr, flush=True))
        self._told: dict[str, tuple[float, int]] = {}

    def tell(self, subject: str, line: str, count: bool = False) -> None:
        """Says a line, at most one a minute of one subject; `count` adds how many were not said meanwhile."""
        now = time.monotonic()
        when, missed = self._told.get(subject, (-QUIET, 0))
        if now - when < QUIET:
            self._told[subject] = when, missed + 1
            return
        self._told[subject] = now, 0
        self._say(f"{line} (and {missed} more since the last such line)" if count and missed else line)


class Numbers(Journal):
    """Numbers since the start, by name, in a file for Prometheus; what they are called there begins with `prefix`.

    `texts`: of each name whether it is a gauge or a counter, and what it says.
    """

    def __init__(
        self,
        path: Path,
        prefix: str,
        texts: Mapping[str, tuple[str, str]],
        say: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(say)
        self.values: dict[str, float] = dict.fromkeys(texts, 0)
        self._path, self._prefix, self._texts = path, prefix, texts
        self._written = ""

    def lines(self) -> list[str]:
        """The numbers in Prometheus's text format."""
        found = []
        for name, (kind, text) in self._texts.items():
            full = f"{self._prefix}_{name}" + ("_total" if kind == "counter" else "")
            found += [f"# HELP {full} {text}", f"# TYPE {full} {kind}", f"{full} {self.values[name]:.15g}"]
        return found

    def render(self) -> str:
        """The whole file."""
        return "\n".join([*self.lines(), ""])

    def write(self) -> None:
        """Replaces the file with the numbers, if they have changed; that it can't is said, and no more."""
        text = self.render()
        if text == self._written:
            return
        beside = self._path.with_name(f".{self._path.name}.new")
        try:
            beside.write_text(text)
            os.chmod(beside, 0o644)
            beside.rename(self._path)
            self._written = text
        except OSError as error:
            self.tell("metrics", f"{self._path}: not written: {error.strerror}")


class Counts(Numbers):
    """The numbers since the start, by name, and of what was refused by reason."""

    def __init__(self, path: Path, say: Callable[[str], None] | None = None) -> None:
        super().__init__(path, "gatehouse_intake", _HELP, say)
        self.refused: dict[Reason, int] = dict.fromkeys(REASONS, 0)
        self.rejected: dict[str, int] = {}
        self.came: dict[str, list[int]] = {}

    def count(self, device: str, size: int) -> None:
        """Counts a message of so many bytes, good or not. `device` as with `refuse`."""
        if found := self.came.get(device):
            found[0] += 1
            found[1] += size
        elif " " not in device and len(self.came) < MOST_NAMED:
            self.came[device] = [1, size]

    def refuse(self, reason: Reason, device: str) -> None:
        """Counts a message that was refused. `device` is a name as the broker vouches for it, or words for none."""
        self.refused[reason] += 1
        if " " not in device and (device in self.rejected or len(self.rejected) < MOST_NAMED):
            self.rejected[device] = self.rejected.get(device, 0) + 1
        self.tell(f"refused: {reason}", f"refused a message of {device}: {reason}", count=True)

    def lines(self) -> list[str]:
        """The same, and who and why."""
        lines = super().lines()
        full = "gatehouse_intake_refused_total"
        lines += [f"# HELP {full} Messages that were not stored, by reason.", f"# TYPE {full} counter"]
        lines += [f'{full}{{reason="{reason}"}} {count}' for reason, count in self.refused.items()]
        if self.rejected:
            full = "gatehouse_intake_rejected_total"
            lines += [f"# HELP {full} The same, by device.", f"# TYPE {full} counter"]
            lines += [f'{full}{{device="{device}"}} {count}' for device, count in sorted(self.rejected.items())]
        for at, (name, text) in enumerate((("messages", "Messages of a device"), ("bytes", "Bytes of these"))):
            full = f"gatehouse_intake_device_{name}_total"
            if self.came:
                lines += [f"# HELP {full} {text}, stored or not.", f"# TYPE {full} counter"]
            lines += [f'{full}{{device="{device}"}} {numbers[at]}' for device, numbers in sorted(self.came.items())]
        return lines
