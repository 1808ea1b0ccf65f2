"""What became of sessions and requests: numbers for Prometheus, and lines for the journal."""

from __future__ import annotations

import os
from pathlib import Path

from gatehouse.coap.codec import code_text
from gatehouse.messages.counts import Journal

_HELP = {
    "connected": ("gauge", "Whether the endpoint is connected to the broker."),
    "sessions": ("gauge", "DTLS sessions that are open."),
    "handshakes": ("counter", "Handshakes that were ended with a client that is known."),
    "refused_handshakes": ("counter", "Handshakes that were begun with a cookie and not ended."),
    "repeated": ("counter", "Requests that came again, and were handed on once."),
    "reloads": ("counter", "Times that changed certificates, revocation lists or devices were read."),
}


class Counts(Journal):
    """The numbers since the start, by name, and of the answers by code."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.values: dict[str, float] = dict.fromkeys(_HELP, 0)
        self.answers: dict[int, int] = {}
        self._path = path
        self._written = ""

    def answer(self, code: int) -> None:
        """Counts an answer."""
        self.answers[code] = self.answers.get(code, 0) + 1

    def render(self) -> str:
        """The numbers in Prometheus's text format."""
        lines = []
        for name, (kind, text) in _HELP.items():
            full = f"gatehouse_coap_{name}" + ("_total" if kind == "counter" else "")
            lines += [f"# HELP {full} {text}", f"# TYPE {full} {kind}", f"{full} {self.values[name]:.15g}"]
        full = "gatehouse_coap_answers_total"
        lines += [f"# HELP {full} Answers, by their code.", f"# TYPE {full} counter"]
        lines += [f'{full}{{code="{code_text(code)}"}} {count}' for code, count in sorted(self.answers.items())]
        return "\n".join([*lines, ""])

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
