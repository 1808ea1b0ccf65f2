"""The messages that the documents explain are ones that the kit says, word for word."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from tests.unit.machine import ROOT

SOURCES = ("commands", "config.py", "deploy", "gatehouse", "kit", "lab", "roles", "templates")
# Said by other programs, in these words.
FOREIGN = {
    "Weak password: not enough different characters": "pam_passwdqc",
    "timed out waiting for input: auto-logout": "bash",
    "Could not connect": "pyinfra",
    "SSH host key error": "pyinfra",
    "Authentication error": "pyinfra",
    "No host key for": "pyinfra",
}
# The end of a literal and the beginning of the one that follows it, in Python and in C.
_SEAM = re.compile(r"""["']\s*\n\s*f?["']""")
_VARIABLE = re.compile(r"\{[^{}\n]*(?:\{[^{}\n]*\}[^{}\n]*)*\}")


@cache
def said() -> str:
    """All that the sources could say: literals are joined, and what is filled in is a `…`."""
    files = [
        file for name in SOURCES for file in ((ROOT / name).rglob("*") if (ROOT / name).is_dir() else [ROOT / name])
    ]
    texts = (file.read_text() for file in files if file.suffix in (".py", ".j2", ".sh", "") and file.is_file())
    return "\n".join(_filled_in(_SEAM.sub("", text)) for text in texts)


def _filled_in(text: str) -> str:
    """With braces that are meant as such."""
    kept = text.replace("{{", "\1").replace("}}", "\2")
    return _VARIABLE.sub("…", kept).replace("\1", "{").replace("\2", "}")


def explained(document: Path) -> list[str]:
    """The messages in the first column of the tables of what is said."""
    tables = re.findall(r"^\| [^|]*says \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", document.read_text(), re.MULTILINE)
    return [message for table in tables for row in table.splitlines() for message in _messages(row)]


def _messages(row: str) -> list[str]:
    return re.findall(r"`([^`]+)`", row.split(" | ")[0])


def parts(message: str) -> list[str]:
    """What of a message is always the same."""
    return [part for piece in re.split(r"…|answers \d+", message) if len(part := piece.strip(" :,;()'")) > 3]


DOCUMENTS = {path.name: path for path in sorted((ROOT / "docs").glob("*.md")) if explained(path)}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_message_that_is_explained_is_one_that_is_said(name: str) -> None:
    unsaid = [m for m in explained(DOCUMENTS[name]) if not all(part in FOREIGN or part in said() for part in parts(m))]
    assert unsaid == []


def test_a_message_that_nobody_says_is_noticed_and_each_has_words_to_be_found_by() -> None:
    assert parts("change '…' could not be confirmed over a new connection")[1] not in said()
    assert [message for path in DOCUMENTS.values() for message in explained(path) if not parts(message)] == []
    assert len(explained(DOCUMENTS["errors.md"])) > 60
