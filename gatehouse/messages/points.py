"""What a message tells, as a line of InfluxDB's line protocol.

    telemetry,device=kitchen-01,kind=climate humidity=40.2,seq=7i,temperature=21.5 1700000000000000007

The nanoseconds are the message's time, and below the millisecond the last digits of its sequence number: two messages
of one millisecond stay two points, and the same message written twice stays one.
"""

from __future__ import annotations

import math
import re
from typing import Any

from gatehouse.messages.forms import Message, read_object
from gatehouse.messages.refusal import Refused

MEASUREMENT = "telemetry"
MOST_FIELDS = 64
LONGEST_TEXT = 256
MOST_NAMES = 512
"""Different fields that one device may report, of all kinds together: each costs the database memory for good."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_RESERVED = frozenset({"seq", "time", "device", "kind"})


def point(message: Message) -> tuple[str, list[str]]:
    """The line of a message, and the names of its fields. Raises `Refused`."""
    fields = read_object(message.content)
    if not 1 <= len(fields) <= MOST_FIELDS:
        raise Refused("not-flat", f"1 to {MOST_FIELDS} fields are taken")
    parts = [f"seq={message.sequence}i"]
    for name, value in fields.items():
        if name in _RESERVED or not _NAME.fullmatch(name):
            raise Refused("not-flat", "a field has no usable name")
        parts.append(f"{name}={_value(value)}")
    nanoseconds = message.time_ms * 1_000_000 + message.sequence % 1_000_000
    return f"{MEASUREMENT},device={message.device},kind={message.kind} {','.join(parts)} {nanoseconds}", list(fields)


def _value(value: Any) -> str:
    """A number always as a float, so that 21 after 20.5 is the same type to the database."""
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, float | int):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise Refused("not-flat", "a number beyond a double's range")
        return repr(number)
    if isinstance(value, str) and len(value) <= LONGEST_TEXT and value.isprintable():
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    raise Refused("not-flat", f"a field is no number, truth or printable text of up to {LONGEST_TEXT} characters")
