"""`message.sign` and `message.verify`: what the one makes the other reads, and bad input is one line."""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from invoke import Context

from commands import common, message
from gatehouse.messages import sign
from tests.unit.enrolling import a_site

TOPIC = "devices/kitchen-01/telemetry/climate"
KEY = bytes(range(32))
CONTENT = b'{"temperature": 21.5}'


class Refusal(Exception):
    """How a command that refused its input ended: its words, and exit status 1."""


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Any:
    """Both commands, with a key in a file and their input on standard input."""
    (tmp_path / "hmac.key").write_text(KEY.hex() + "\n")
    monkeypatch.setattr(common, "site", lambda _: a_site())

    def run(task: Any, given: bytes, **options: Any) -> bytes:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(given)))
        options = {"topic": TOPIC, "key_file": str(tmp_path / "hmac.key"), **options}
        try:
            task(Context(), **options)
        except SystemExit as ended:
            said = capfdbinary.readouterr()
            words = ended.code if isinstance(ended.code, str) else said.err.decode().strip()
            assert ended.code not in (None, 0) and not said.out, "nothing is printed beside an error"
            assert len(words.splitlines()) == 1 and KEY.hex() not in words
            raise Refusal(words) from None
        return capfdbinary.readouterr().out

    return SimpleNamespace(
        sign=lambda given=CONTENT, **options: run(message.sign, given, **options),
        verify=lambda given, **options: run(message.verify, given, **options),
    )


def test_what_was_signed_is_verified(commands: Any) -> None:
    said = commands.verify(commands.sign(sequence=7)).decode().splitlines()
    assert said[:2] == ["device    kitchen-01", "kind      climate"]
    assert "sequence  7" in said and said[-1] == 'content   {"temperature": 21.5}'
    assert commands.verify(commands.sign(sequence=7).hex().encode(), hex=True)


def test_a_message_that_the_intake_would_refuse_is_refused_with_the_reason(commands: Any) -> None:
    now = time.time_ns() // 1_000_000
    good = commands.sign()
    bad: list[tuple[str, bytes, dict[str, Any]]] = [
        ("bad-signature", good[:-1] + bytes([good[-1] ^ 1]), {}),
        ("bad-signature", good, {"topic": f"{TOPIC}-2"}),
        ("unknown-key", good, {"number": 2}),
        ("no-message", b"", {}),
        ("too-large", good + bytes(10_000), {}),
        ("wrong-topic", good, {"topic": "devices/kitchen-01"}),
        ("too-old", sign(KEY, TOPIC, CONTENT, number=1, sequence=1, time_ms=now - 86_400_000), {}),
        ("from-the-future", sign(KEY, TOPIC, CONTENT, number=1, sequence=1, time_ms=now + 86_400_000), {}),
    ]
    for reason, given, options in bad:
        with pytest.raises(Refusal, match=reason):
            commands.verify(given, **options)
    assert commands.verify(good)


def test_what_can_t_be_signed_or_read_is_one_line_that_says_what_to_do(commands: Any, tmp_path: Path) -> None:
    (tmp_path / "short").write_text("00" * 31)
    (tmp_path / "binary").write_bytes(b"\xff" * 32)
    for why, options in (
        ("is not devices/NAME/telemetry/KIND", {"topic": "devices/kitchen-01/telemetry/Climate"}),
        ("send 1 to 4096", {"given": b""}),
        ("send 1 to 4096", {"given": bytes(4097)}),
        ("out of its range", {"number": 65_536}),
        ("out of its range", {"sequence": 2**63}),
        ("64 hexadecimal digits", {"key_file": str(tmp_path / "short")}),
        ("64 hexadecimal digits", {"key_file": str(tmp_path / "binary")}),
        ("name a bundle's hmac.key", {"key_file": str(tmp_path / "missing")}),
        ("can't be read", {"file": str(tmp_path / "missing")}),
        ("has no key .*enroll --name kitchen-01", {"key_file": ""}),
    ):
        with pytest.raises(Refusal, match=why):
            commands.sign(**options)
    with pytest.raises(Refusal, match="no hexadecimal"):
        commands.verify(b"xyz", hex=True)
    assert commands.sign()
