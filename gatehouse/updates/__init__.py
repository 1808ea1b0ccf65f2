"""Firmware: what a manifest says and who signed it (`manifest`), and whether a device takes it (`judgement`)."""

from gatehouse.updates.image import ESP_IMAGE, RAW, Chip, ImageError, read_image
from gatehouse.updates.judgement import REASONS, Device, Reason, Refused, choose, judge, turn_of
from gatehouse.updates.manifest import SIZE, Manifest, ManifestError, key_identifier, raw_key, read, signed

__all__ = [
    "ESP_IMAGE", "RAW", "REASONS", "SIZE", "Chip", "Device", "ImageError", "Manifest", "ManifestError", "Reason",
    "Refused", "choose", "judge", "key_identifier", "raw_key", "read", "read_image", "signed", "turn_of",
]  # fmt: skip
