"""The topics under which devices report: `devices/NAME/telemetry/KIND`."""

from __future__ import annotations

import re
from functools import lru_cache

from gatehouse.messages.refusal import Refused

LONGEST_TOPIC = 8 + 63 + 11 + 32
"""Bytes in such a topic: the name is a DNS label (RFC 1035 §2.3.4), KIND has up to 32 characters."""

_TOPIC = re.compile(r"devices/([a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)/telemetry/([a-z0-9](?:[a-z0-9_-]{0,30}[a-z0-9])?)")


@lru_cache(maxsize=4096)
def parse(topic: str) -> tuple[str, str]:
    """The device's name and the kind of what it reports: `("kitchen-01", "climate")`. Raises `Refused`."""
    found = _TOPIC.fullmatch(topic)
    if found is None:
        raise Refused("wrong-topic", "it is not devices/NAME/telemetry/KIND")
    return found[1], found[2]
