"""Why a message is not stored: one word a reason, which is also its label among the metrics."""

from __future__ import annotations

from typing import Literal, get_args

from gatehouse.errors import GatehouseError

Reason = Literal[
    "wrong-topic",  # no topic under which a device reports
    "too-large",  # more bytes than a message may have
    "no-message",  # neither of the two forms
    "form-not-allowed",  # the JSON form, on a site that takes only the binary one
    "unknown-device",  # no active device of this gateway has that name
    "unknown-key",  # the device has no key of that number
    "bad-signature",
    "too-old",
    "from-the-future",
    "replay",
    "not-json",  # signed, but the content is no JSON object
    "not-flat",  # signed, but something in it is neither number, text nor truth, or has no usable name
    "too-many-names",  # more different fields than one device may have
    "not-storable",  # the database refuses it, such as text where there were numbers before
]
REASONS: tuple[Reason, ...] = get_args(Reason)


class Refused(GatehouseError):
    """A message that must not be stored. `reason` is one of `REASONS`; the text never holds what was sent."""

    def __init__(self, reason: Reason, why: str = "") -> None:
        super().__init__(f"{reason}: {why}" if why else reason)
        self.reason: Reason = reason


class MessageError(GatehouseError):
    """A message that can't be made, or a key, setting or file of the intake that can't be used."""
