"""The manifest of a firmware image: 512 bytes, each field at its own place, signed with ECDSA on P-256.

All numbers are big-endian, texts are ASCII and filled up with zero bytes (at least one):

    offset  bytes   what
    0       4       `GHFW`
    4       1       1, the form
    5       1       1, the algorithm: ECDSA on P-256 with SHA-256 (FIPS 186-5)
    6       1       format of the image: 1 ESP-IDF application image, 2 as it is
    7       1       0
    8       4       counter, 1 to 2^32 - 1: higher than that of every release before it
    12      4       minimum counter, below the counter: what a device must have installed already
    16      4       size of the image in bytes, 1 to 2^24
    20      2       chip (ESP-IDF's `chip_id`), 65535 where the image is taken as it is
    22      2       roll-out share in 1/10000, 0 to 10000
    24      8       issued, seconds since 1970-01-01 UTC, below 2^40
    32      8       expires, likewise, later than issued
    40      16      seed of the roll-out
    56      32      SHA-256 of the one device's name that it is for, zero bytes: every device of the model
    88      32      SHA-256 of the image
    120     32      model
    152     32      version
    184     64      first key that the device trusts from this release on, X and Y
    248     64      second key, likewise; not the first
    312     8       which key signed: the first bytes of the SHA-256 of its X and Y
    320     128     URL of the image
    448     64      signature, r and s, over `gatehouse firmware 1`, a zero byte, and the 448 bytes before

A device with several kilobytes of memory reads it where it lies.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

from gatehouse.errors import GatehouseError
from gatehouse.identity.authority import Signer

SIZE = 512
SIGNED = 448
"""Bytes that the signature covers, after the label."""
LABEL = b"gatehouse firmware 1\0"
LARGEST_IMAGE = 2**24
"""Bytes; no ESP32 has a slot this large."""
WHOLE_SHARE = 10_000
HIGHEST_COUNTER = 2**32 - 1
ANY_CHIP = 0xFFFF

_BODY = struct.Struct(">4sBBBBIIIHHQQ16s32s32s32s32s64s64s8s128s")
_LATEST = 2**40
_TEXTS = {
    "model": re.compile(r"[a-z0-9][a-z0-9._-]{0,30}"),
    "version": re.compile(r"[0-9A-Za-z][0-9A-Za-z.+_-]{0,30}"),
    "url": re.compile(r"https://[a-z0-9.-]{1,100}(:[0-9]{1,5})?/[A-Za-z0-9/._+-]*"),
}


class ManifestError(GatehouseError):
    """A manifest that can't be made, or bytes that are none."""


@dataclass(frozen=True)
class Manifest:
    """What is signed. Times are whole seconds since 1970, UTC; `keys` are X and Y, 64 bytes each.

    `share` is in 1/10000 of the devices. `device` is the SHA-256 of a device's name, or 32 zero bytes.
    """

    model: str
    version: str
    counter: int
    minimum_counter: int
    image_format: int
    chip: int
    size: int
    sha256: bytes
    url: str
    issued: int
    expires: int
    share: int
    seed: bytes
    keys: tuple[bytes, bytes]
    device: bytes = bytes(32)

    def encode(self, signer: bytes) -> bytes:
        """The 448 bytes that are signed by a key, given as X and Y. Raises `ManifestError`."""
        check(self)
        texts = [text.encode("ascii") for text in (self.model, self.version)]
        return _BODY.pack(
            b"GHFW", 1, 1, self.image_format, 0, self.counter, self.minimum_counter, self.size, self.chip, self.share,
            self.issued, self.expires, self.seed, self.device, self.sha256, *texts, *self.keys,
            key_identifier(signer), self.url.encode("ascii"),
        )  # fmt: skip


def is_model(text: str) -> bool:
    """Whether a model can have firmware: a manifest, a URL and a folder can be called so."""
    return bool(_TEXTS["model"].fullmatch(text))


def check(manifest: Manifest) -> None:
    """Raise `ManifestError` for the first field that is out of its range."""
    for name, pattern in _TEXTS.items():
        text = getattr(manifest, name)
        if not pattern.fullmatch(text) or len(text) > 127:
            raise ManifestError(f"{name} {text[:80]!r}: {_MENDS[name]}")
    at = manifest
    ranges = {
        "counter": (at.counter, 1, HIGHEST_COUNTER, "the model's counter is used up"),
        "minimum counter": (at.minimum_counter, 0, at.counter - 1, "give one that an earlier release has"),
        "size": (at.size, 1, LARGEST_IMAGE, "an image has 1 byte to 16 MiB"),
        "image format": (at.image_format, 1, 2, "use 1 or 2"),
        "chip": (at.chip, 0, ANY_CHIP, "use ESP-IDF's number of it"),
        "roll-out share": (at.share, 0, WHOLE_SHARE, "give 0 % to 100 %"),
        "time of issue": (at.issued, 1, _LATEST, "set this machine's clock"),
        "expiry": (at.expires, at.issued + 1, _LATEST, "it must lie after the time of issue"),
    }
    for name, (value, lowest, highest, mend) in ranges.items():
        if not lowest <= value <= highest:
            raise ManifestError(f"{name} {value}: {mend}")
    if any(len(value) != 32 for value in (at.sha256, at.device)) or len(at.seed) != 16:
        raise ManifestError("a digest or the seed is too short or too long; use 32 bytes, and 16 for the seed")
    if at.keys[0] == at.keys[1] or not all(is_key(key) for key in at.keys):
        raise ManifestError("the keys that devices trust from then on must be two different points of P-256")


_MENDS = {
    "model": "use up to 31 of a to z, 0 to 9, '.', '_' and '-'",
    "version": "use up to 31 letters, digits, '.', '+', '_' and '-', beginning with a letter or digit",
    "url": "use https://HOST/PATH of up to 127 letters, digits, '/', '.', '_', '+' and '-'",
}


def signed(manifest: Manifest, signer: Signer) -> bytes:
    """The manifest, 512 bytes. Raises `ManifestError`, and `PkiError` when a token does not sign."""
    body = manifest.encode(raw_key(signer.public_key()))
    first, second = utils.decode_dss_signature(signer.sign(LABEL + body, ec.ECDSA(hashes.SHA256())))
    return body + first.to_bytes(32, "big") + second.to_bytes(32, "big")


def read(data: bytes) -> Manifest:
    """What 512 bytes say; their signature is not looked at (`verified` does). Raises `ManifestError`."""
    if len(data) != SIZE:
        raise ManifestError(f"{len(data)} bytes: a manifest has {SIZE}")
    fields = _BODY.unpack_from(data)
    magic, form, algorithm, image_format, zero, counter, minimum, size, chip, share, issued, expires = fields[:12]
    seed, device, digest, model, version, first, second, _, url = fields[12:]
    if (magic, form, algorithm, zero) != (b"GHFW", 1, 1, 0):
        raise ManifestError("it does not begin like a manifest")
    manifest = Manifest(
        model=_text(model), version=_text(version), counter=counter, minimum_counter=minimum,
        image_format=image_format, chip=chip, size=size, sha256=digest, url=_text(url), issued=issued, expires=expires,
        share=share, seed=seed, keys=(first, second), device=device,
    )  # fmt: skip
    check(manifest)
    return manifest


def signer_of(data: bytes) -> bytes:
    """The identifier of the key that is said to have signed, 8 bytes."""
    return data[312:320]


def is_signed_by(data: bytes, key: bytes) -> bool:
    """Whether the signature of 512 bytes is right and by a key, given as X and Y."""
    halves = [int.from_bytes(data[start : start + 32], "big") for start in (SIGNED, SIGNED + 32)]
    try:
        public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\4" + key)
        public.verify(utils.encode_dss_signature(*halves), LABEL + data[:SIGNED], ec.ECDSA(hashes.SHA256()))
    except (ValueError, InvalidSignature):
        return False
    return True


def raw_key(key: ec.EllipticCurvePublicKey) -> bytes:
    """A public key on P-256 as X and Y, 64 bytes (SEC 1 §2.3.3 without its first byte)."""
    point = key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    return point[1:]


def is_key(key: bytes) -> bool:
    """Whether 64 bytes are a point of P-256."""
    try:
        ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\4" + key)
    except ValueError:
        return False
    return True


def key_identifier(key: bytes) -> bytes:
    """What a manifest names its signer by, 8 bytes, from X and Y."""
    return sha256(key).digest()[:8]


def _text(field: bytes) -> str:
    text, zero, rest = field.partition(b"\0")
    if not zero or rest.strip(b"\0") or not text.isascii():
        raise ManifestError("a text in it does not end as it must")
    return text.decode("ascii")
