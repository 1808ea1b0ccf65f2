"""What is inside a vault's age file: a JSON object, so that `age --decrypt` alone can rescue the secrets.

    {"format": 1, "generation": 7, "recipients": ["age1…"], "names": {"age1…": "anna"},
     "left": [{"recipient": "age1…", "name": "bert", "when": "2025-02-28T09:00:00Z"}],
     "secrets": {"mosquitto/influx-token": {"text": "…", "kind": "secret", "created": "2025-01-31T12:00:00Z"}}}

A value that is not UTF-8 stands under `base64` in place of `text`. The recipients are inside, so that each save
encrypts to all of them and an outsider does not learn who they are. Who left stays on record: what they have seen is
no secret until it is replaced.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gatehouse.identity import age
from gatehouse.identity.store import Entry

_FORMAT = 1
_ENCODER = json.JSONEncoder(ensure_ascii=False)


class Newer(Exception):
    """Written in a later format."""


@dataclass(frozen=True)
class Leaver:
    """Someone who could open the vault until a moment (UTC, ISO 8601)."""

    recipient: str
    name: str
    when: str


@dataclass(frozen=True)
class Recipients:
    """Who can open the vault, with the names they go by, and who could before."""

    keys: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    left: tuple[Leaver, ...] = ()

    def shown(self, key: str) -> str:
        """Return a recipient as the operator knows it."""
        return f"{self.names[key]} ({key})" if key in self.names else key


@dataclass(frozen=True)
class Document:
    """A vault's content at one generation."""

    generation: int
    recipients: Recipients
    entries: Mapping[str, Entry]


def encode(document: Document) -> bytes:
    """Return a document as JSON."""
    who = document.recipients
    head = {
        "format": _FORMAT,
        "generation": document.generation,
        "recipients": list(who.keys),
        "names": dict(who.names),
        "left": [vars(leaver) for leaver in who.left],
    }
    # One secret a line. With ten thousand devices the library's own indentation takes ten times as long.
    text = _ENCODER.encode
    secrets = [f"  {text(name)}: {text(_to_json(entry))}" for name, entry in sorted(document.entries.items())]
    lines = [f" {text(name)}: {text(value)}" for name, value in head.items()]
    return ("{\n" + ",\n".join([*lines, ' "secrets": {\n' + ",\n".join(secrets) + "\n }"]) + "\n}").encode()


def decode(plain: bytes) -> Document | None:
    """Return the document that `encode` wrote, None when it did not. Raises `Newer`."""
    # an error of the parser carries the whole document: it ends here
    try:
        content = json.loads(plain)
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict):
        return None
    if content.get("format") != _FORMAT:
        raise Newer
    try:
        recipients = Recipients(
            tuple(str(text) for text in content["recipients"]),
            {str(key): str(name) for key, name in content.get("names", {}).items()},
            tuple(Leaver(**{str(k): str(v) for k, v in fields.items()}) for fields in content.get("left", [])),
        )
        entries = {str(name): _from_json(fields) for name, fields in content["secrets"].items()}
        generation = int(content["generation"])
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError):
        return None
    sound = recipients.keys and all(map(age.is_recipient, recipients.keys))
    return Document(generation, recipients, entries) if sound else None


def _to_json(entry: Entry) -> dict[str, str]:
    about = {"kind": entry.kind, "created": entry.created}
    try:
        return {"text": entry.value.decode(), **about}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(entry.value).decode(), **about}


def _from_json(fields: Any) -> Entry:
    value = base64.b64decode(fields["base64"], validate=True) if "base64" in fields else fields["text"].encode()
    return Entry(value, str(fields["kind"]), str(fields["created"]))
