"""Whether a device takes a manifest: what the C library does, for the signing desk and for the test vectors."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal, get_args

from gatehouse.errors import GatehouseError
from gatehouse.updates.manifest import SIZE, Manifest, ManifestError, is_signed_by, key_identifier, read, signer_of

MOST = 4
"""Manifests in one file."""
LONGEST_STEP = 1024
"""How far a release's counter may be ahead of the device's: a stolen key can't use the counter up with one release."""

Reason = Literal[
    "no-manifest",  # not 512 bytes of the form, or a field out of its range
    "unknown-key",  # by a key that this device does not trust
    "bad-signature",
    "wrong-model",
    "wrong-device",  # for one device, which is another
    "wrong-format",  # of the image
    "wrong-chip",
    "up-to-date",  # what the device has, and still good
    "rolled-back",  # older than what the device has
    "too-far",  # its counter is more than 1024 ahead
    "no-time",  # the device does not know what time it is
    "expired",
    "needs-earlier",  # another release has to be installed before it
    "too-large",  # for a slot
    "wrong-place",  # its URL is not on the device's own update server
    "not-its-turn",  # the device is not in the roll-out's share
]
REASONS: tuple[Reason, ...] = get_args(Reason)


class Refused(GatehouseError):
    """A manifest that a device does not take; `reason` is one of `REASONS`."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason


@dataclass(frozen=True)
class Device:
    """What a device knows when it judges: itself, its trusted keys (X and Y), what it has installed, and the time.

    `now` is in seconds since 1970, 0 when it is not known; `floor` is when its release was issued, so that a clock set
    back counts for no more than that. `slot` is the size of a slot in bytes.
    """

    name: str
    model: str
    keys: tuple[bytes, ...]
    counter: int
    now: int
    slot: int
    image_format: int
    chip: int
    server: str
    floor: int = 0


def judge(data: bytes, device: Device) -> Manifest:
    """The manifest that 512 bytes are, if the device takes it. Raises `Refused`."""
    try:
        manifest = read(data)
    except ManifestError:
        raise Refused("no-manifest") from None
    key = next((key for key in device.keys if key_identifier(key) == signer_of(data)), None)
    if key is None:
        raise Refused("unknown-key")
    if not is_signed_by(data, key):
        raise Refused("bad-signature")
    reason = _reason(manifest, device)
    if reason is not None:
        raise Refused(reason)
    return manifest


def choose(file: bytes, device: Device) -> Manifest:
    """The first manifest of a file that the device takes. Raises `Refused`, for the reason of the first one."""
    if not file or len(file) % SIZE or len(file) > MOST * SIZE:
        raise Refused("no-manifest")
    first: Refused | None = None
    for start in range(0, len(file), SIZE):
        try:
            return judge(file[start : start + SIZE], device)
        except Refused as refused:
            first = first or refused
    assert first is not None  # noqa: S101 - the file has at least one
    raise first


def turn_of(seed: bytes, name: str) -> int:
    """Where a device stands in a roll-out, 0 to 9999: it has the release once the share is higher."""
    return int.from_bytes(hmac.digest(seed, name.encode(), "sha256")[:4], "big") % 10_000


def _reason(manifest: Manifest, device: Device) -> Reason | None:
    now = max(device.now, device.floor)
    rules: Sequence[tuple[Reason, bool]] = (
        ("wrong-model", manifest.model != device.model),
        ("wrong-device", manifest.device not in (bytes(32), sha256(device.name.encode()).digest())),
        ("wrong-format", manifest.image_format != device.image_format),
        ("wrong-chip", manifest.chip != device.chip),
        ("rolled-back", manifest.counter < device.counter),
        ("no-time", device.now == 0),
        ("expired", manifest.expires <= now),
        ("up-to-date", manifest.counter == device.counter),
        ("too-far", manifest.counter > device.counter + LONGEST_STEP),
        ("needs-earlier", manifest.minimum_counter > device.counter),
        ("too-large", manifest.size > device.slot),
        ("wrong-place", not manifest.url.startswith(device.server)),
        ("not-its-turn", turn_of(manifest.seed, device.name) >= manifest.share),
    )
    return next((reason for reason, holds in rules if holds), None)
