"""Which names a device may have.

A device's name is its certificate's common name, and with that its MQTT user name, its client id, a level of its topics
(`devices/NAME/…`) and a label of its DNS name. So it is what all of them can hold: an LDH label (RFC 5890 §2.3.1) in
lower case.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from gatehouse.errors import GatehouseError

LONGEST = 63
"""Bytes in a name: the longest DNS label (RFC 1035 §2.3.4); a common name may have 64 (RFC 5280 appendix A)."""

KIT_PREFIX = "gatehouse-"
"""Names that start so are the kit's own: probes, the intake, the administration."""

RESERVED = frozenset(
    {
        "admin", "administrator", "all", "anonymous", "any", "anyone", "broadcast", "broker", "everyone", "gateway",
        "guest", "localhost", "nobody", "none", "null", "public", "root", "superuser", "system", "unknown",
    }
)  # fmt: skip
"""Names that a broker, a resolver or a reader of a log would take for something else than a device."""

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")


class NameRefused(GatehouseError):
    """A name that no device may have; says why."""


def check_device_name(name: str, services: Iterable[str] = ()) -> str:
    """Return name if a device may have it; `services` are names taken by the site's services.

    Raises `NameRefused`, with what is wrong and what would do.
    """
    check_label(name)
    if name in RESERVED or name in frozenset(services):
        raise NameRefused(f"device name {name!r}: reserved; choose another one, such as 'kitchen-01'")
    if name.startswith(KIT_PREFIX):
        raise NameRefused(f"device name {name!r}: what starts with {KIT_PREFIX!r} is the kit's own; choose another one")
    return name


def check_label(name: str) -> str:
    """Return name if it has the form of a device's name, reserved or not. Raises `NameRefused`."""
    shown = ascii(name if len(name) <= LONGEST else name[:LONGEST] + "…")
    if not name:
        why = "empty"
    elif not name.isprintable():
        why = "has characters that can't be printed"
    elif len(name.encode("utf-8", "replace")) > LONGEST:
        why = f"longer than {LONGEST} bytes"
    elif name in ("+", "#") or name.startswith("$"):
        why = "has a meaning of its own in MQTT topics"
    elif name != name.lower():
        why = "has capitals, which DNS would not tell apart"
    elif not _NAME.fullmatch(name):
        why = "has other characters than a to z, 0 to 9 and '-', or a '-' at an end"
    else:
        return name
    raise NameRefused(f"device name {shown}: {why}; use a to z, 0 to 9 and '-', up to {LONGEST}, such as 'kitchen-01'")
