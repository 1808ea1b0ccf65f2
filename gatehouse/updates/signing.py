"""Signs an image for a model: judges it, gives it the next counter, and notes in the vault what was signed.

    firmware/models/MODEL       JSON: the chip, and every release with all that its manifest says

The counter is of the model and never goes back, whatever the version does.
"""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

from gatehouse.errors import GatehouseError
from gatehouse.identity.store import SecretStore
from gatehouse.updates.image import ESP_IMAGE, RAW, chip_name, read_image
from gatehouse.updates.keys import FirmwareKeys, KeysError
from gatehouse.updates.manifest import ANY_CHIP, LARGEST_IMAGE, WHOLE_SHARE, Manifest, signed

CLOCKS = 300
"""Seconds that the clocks of two machines which sign for one site may differ."""
_NUMBERS = re.compile(r"[0-9]+")


class SigningError(GatehouseError):
    """An image that is not signed; says why."""


@dataclass(frozen=True)
class Wish:
    """What the operator asks for. `share` in 1/10000; `device` is a name, empty for every device of the model."""

    model: str
    version: str
    url: str
    expires: timedelta = timedelta(days=90)
    minimum_counter: int = 0
    share: int = WHOLE_SHARE
    device: str = ""
    downgrade: bool = False


@dataclass(frozen=True)
class Release:
    """A signed image: its manifest as bytes and as fields; `again` when only the manifest is new."""

    data: bytes
    manifest: Manifest
    again: bool


def sign(vault: SecretStore, keys: FirmwareKeys, image: bytes, wish: Wish, now: int) -> Release:
    """Sign an image; `now` in seconds since 1970. The same image under the same version keeps its counter.

    Raises `SigningError`, `ManifestError`, and what vault and token raise; the counter goes up only when it is signed.
    """
    image_format, chip = _judge_image(image, wish.version)
    current, backup = keys.pair()
    with vault.transaction():
        record = _record(vault, wish.model)
        last = record["releases"][-1] if record["releases"] else None
        digest = sha256(image).hexdigest()
        if last and (record["image_format"], record["chip"]) != (image_format, chip):
            raise SigningError(
                f"model '{wish.model}': the image is {_kind(image_format, chip)}, all before it were"
                f" {_kind(record['image_format'], record['chip'])}; build it so, or give that hardware its own model"
            )
        if last and now < int(last["issued"]) - CLOCKS:
            raise SigningError(
                f"this machine's clock shows {_moment(now)}, and {wish.model} {last['version']} was signed at"
                f" {_moment(last['issued'])}: set it, or devices take the new release for one that ends sooner"
            )
        again = _is_again(record["releases"], wish, digest)
        manifest = Manifest(
            model=wish.model, version=wish.version,
            counter=last["counter"] + (0 if again else 1) if last else 1,
            minimum_counter=wish.minimum_counter,
            image_format=image_format, chip=chip, size=len(image), sha256=sha256(image).digest(), url=wish.url,
            # so that of two manifests with one counter the later one can be told, within one second too
            issued=max(now, last["issued"] + 1 if last and again else 0),
            expires=now + int(wish.expires.total_seconds()), share=wish.share,
            seed=bytes.fromhex(last["seed"]) if last and again else secrets.token_bytes(16),
            keys=(current.key, backup.key),
            device=sha256(wish.device.encode()).digest() if wish.device else bytes(32),
        )  # fmt: skip
        data = signed(manifest, keys.signer())
        noted = {**_noted(manifest), "device_name": wish.device, "signed_by": current.number}
        releases = record["releases"][:-1] if again else record["releases"]
        record = {"image_format": image_format, "chip": chip, "releases": [*releases, noted]}
        vault.set(_place(wish.model), json.dumps(record), "record")
    return Release(data, manifest, again)


def models(vault: SecretStore) -> list[str]:
    """The models that something was signed for."""
    return [name.rpartition("/")[2] for name in vault.names("firmware/models/")]


def known_keys(vault: SecretStore, model: str) -> tuple[bytes, ...]:
    """Every key that a release of a model told its devices of, former ones too: what a bridge may be signed by."""
    found = [bytes.fromhex(key) for release in _record(vault, model)["releases"] for key in release["keys"]]
    return tuple(dict.fromkeys(found))


def behind(vault: SecretStore, keys: FirmwareKeys) -> list[str]:
    """The models whose newest release does not yet tell devices of the present pair of keys."""
    pair = [known.key.hex() for known in keys.pair()]
    return [model for model in models(vault) if _record(vault, model)["releases"][-1]["keys"] != pair]


def check_replaceable(vault: SecretStore, keys: FirmwareKeys) -> None:
    """Raise `KeysError` when a key was replaced already and a model had no release since: its devices would be lost."""
    if late := behind(vault, keys):
        raise KeysError(
            f"no release of {', '.join(late)} since the last key was replaced: its devices know only one of the present"
            " two; sign and publish one first"
        )


def order(version: str) -> tuple[Any, ...]:
    """By which versions are compared: numbers as numbers; `1.2-rc1` comes before `1.2` (as in SemVer 2.0.0 §11)."""
    main, dash, extra = version.partition("+")[0].partition("-")
    numbers = tuple(int(number) for number in _NUMBERS.findall(main))
    return (numbers, not dash, tuple((not part.isdigit(), int(part) if part.isdigit() else 0, part)
                                     for part in re.split(r"[.-]", extra)))  # fmt: skip


def _judge_image(image: bytes, version: str) -> tuple[int, int]:
    """The format and the chip of an image. Raises `SigningError`, `ImageError`."""
    if not image:
        raise SigningError("the image has 0 bytes; build it again")
    if len(image) > LARGEST_IMAGE:
        raise SigningError(f"the image has more than {LARGEST_IMAGE:,} bytes, which no slot holds; build it smaller")
    head = read_image(image)
    if head is None:
        return RAW, ANY_CHIP
    if head.version and head.version != version:
        raise SigningError(f"the image calls itself {head.version!r}; give that as its version, or build it again")
    return ESP_IMAGE, head.chip


def _moment(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def _kind(image_format: int, chip: int) -> str:
    return f"for {chip_name(chip)}" if image_format == ESP_IMAGE else "no ESP-IDF application"


def _is_again(releases: list[dict[str, Any]], wish: Wish, digest: str) -> bool:
    """Whether this is the newest release once more. Raises `SigningError` for a version that is taken or goes back."""
    if not releases:
        return False
    last = releases[-1]
    if (last["version"], last["sha256"]) == (wish.version, digest):
        return True
    for each in releases:
        if each["version"] == wish.version and each["sha256"] != digest:
            raise SigningError(
                f"{wish.model} {wish.version}: is another image already (counter {each['counter']}); give this one a"
                " version of its own"
            )
    if order(wish.version) < order(last["version"]) and not wish.downgrade:
        raise SigningError(
            f"{wish.model} {wish.version}: the newest is {last['version']}; correct the version, or add --downgrade to"
            " send devices back to this one on purpose"
        )
    return False


def _place(model: str) -> str:
    return f"firmware/models/{model}"


def _record(vault: SecretStore, model: str) -> dict[str, Any]:
    if _place(model) not in vault:
        return {"image_format": 0, "chip": 0, "releases": []}
    try:
        found: dict[str, Any] = json.loads(vault.get(_place(model)))
        newest = found["releases"][-1]
        int(newest["counter"]), str(newest["version"]), bytes.fromhex(newest["seed"]), int(newest["issued"])
        return {name: found[name] for name in ("image_format", "chip", "releases")}
    except (ValueError, LookupError, TypeError):
        raise SigningError(f"{vault.where}: {_place(model)} is no record; restore the vault from its backup") from None


def _noted(manifest: Manifest) -> dict[str, Any]:
    fields = asdict(manifest)
    return {
        name: [part.hex() for part in value] if name == "keys" else value.hex() if isinstance(value, bytes) else value
        for name, value in fields.items()
    }
