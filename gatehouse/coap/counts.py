"""What became of sessions and requests: numbers for Prometheus, and lines for the journal."""

from __future__ import annotations

from pathlib import Path

from gatehouse.coap.codec import code_text
from gatehouse.messages.counts import Numbers

_HELP = {
    "connected": ("gauge", "Whether the endpoint is connected to the broker."),
    "sessions": ("gauge", "DTLS sessions that are open."),
    "handshakes": ("counter", "Handshakes that were ended with a client that is known."),
    "refused_handshakes": ("counter", "Handshakes that were begun with a cookie and not ended."),
    "repeated": ("counter", "Requests that came again, and were handed on once."),
    "reloads": ("counter", "Times that changed certificates, revocation lists or devices were read."),
}


class Counts(Numbers):
    """The numbers since the start, by name, and of the answers by code."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "gatehouse_coap", _HELP)
        self.answers: dict[int, int] = {}

    def answer(self, code: int) -> None:
        """Counts an answer."""
        self.answers[code] = self.answers.get(code, 0) + 1

    def lines(self) -> list[str]:
        """The same, and the answers."""
        lines = super().lines()
        full = "gatehouse_coap_answers_total"
        lines += [f"# HELP {full} Answers, by their code.", f"# TYPE {full} counter"]
        lines += [f'{full}{{code="{code_text(code)}"}} {count}' for code, count in sorted(self.answers.items())]
        return lines
