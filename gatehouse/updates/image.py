"""What a firmware image says of itself: the header that ESP-IDF's applications begin with.

`esp_image_header_t` (24 bytes), the first segment's header (8), `esp_app_desc_t` (256): ESP-IDF's programming guide,
"App Image Format". Little-endian.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from gatehouse.errors import GatehouseError

ESP_IMAGE = 1
RAW = 2
"""Formats of an image, as a manifest has them."""
HEAD = 288
"""Bytes of an ESP-IDF image up to the end of its description."""

Chip = int
CHIPS: dict[str, Chip] = {
    "esp32": 0, "esp32s2": 2, "esp32c3": 5, "esp32s3": 9, "esp32c2": 12, "esp32c6": 13, "esp32h2": 16, "esp32p4": 18,
    "esp32c5": 23, "esp32c61": 20,
}  # fmt: skip
"""ESP-IDF's `esp_chip_id_t`."""

_MAGIC = 0xE9
_DESCRIPTION = 0xABCD5432


class ImageError(GatehouseError):
    """A file that is no firmware image."""


@dataclass(frozen=True)
class ImageHead:
    """The chip that an image is for, and the version and project that it names; empty where it names none."""

    chip: Chip
    version: str
    project: str


def read_image(data: bytes) -> ImageHead | None:
    """What an ESP-IDF image says of itself; None when it is none. Raises `ImageError` when it is a broken one."""
    if not data or data[0] != _MAGIC:
        return None
    if len(data) < HEAD:
        raise ImageError(f"begins like an ESP-IDF image, but ends after {len(data)} bytes; build it again")
    segments, chip = data[1], struct.unpack_from("<H", data, 12)[0]
    if not 1 <= segments <= 16 or struct.unpack_from("<I", data, 32)[0] != _DESCRIPTION:
        raise ImageError("begins like an ESP-IDF image, but has no description (esp_app_desc_t); is it a bootloader?")
    return ImageHead(chip, _text(data[48:80]), _text(data[80:112]))


def chip_name(chip: Chip) -> str:
    """A chip as ESP-IDF's targets are called."""
    return next((name for name, number in CHIPS.items() if number == chip), f"chip {chip}")


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("ascii", "replace")
