"""Signs firmware from this checkout: keys and counters in the site's vault, what is signed in `out/SITE/`."""

from __future__ import annotations

import datetime
import re
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Literal, cast

from deploy import vaults
from deploy.enrolment import bundles_path, shown
from gatehouse.errors import GatehouseError
from gatehouse.identity.files import write_private
from gatehouse.site import Site
from gatehouse.updates import manifest as manifests
from gatehouse.updates.image import ESP_IMAGE, chip_name
from gatehouse.updates.keys import FirmwareKeys, trusted_keys
from gatehouse.updates.manifest import LARGEST_IMAGE, Manifest
from gatehouse.updates.signing import Wish, behind, check_replaceable, sign

_DURATION = re.compile(r"([1-9][0-9]{0,3})([hdw])")
_SHARE = re.compile(r"([0-9]{1,3})(?:\.([0-9]{1,2}))?%")


class FirmwareError(GatehouseError):
    """An option or a file that firmware can't be signed with."""


def make_keys(site: Site, replace: str = "", force: bool = False) -> Iterator[str]:
    """Make the pair of keys if there is none, replace one if asked for; what goes into devices, a line each."""
    vault = vaults.open_vault(site)
    keys = FirmwareKeys(vault, site.name, vaults.tokens(site))
    if replace:
        if replace not in ("current", "backup"):
            raise FirmwareError(f"--replace {replace[:40]}: say current or backup")
        if not force:
            check_replaceable(vault, keys)
        pair = keys.replace(cast(Literal["current", "backup"], replace))
    else:
        pair = keys.ensure()
    names = ("GATEHOUSE_FIRMWARE_KEY", "GATEHOUSE_FIRMWARE_KEY_BACKUP")
    for known, use in zip(pair, ("signs", "backup"), strict=True):
        yield f"key {known.number} ({use}, in the {known.place}): {known.identifier}"
    for known, name in zip(pair, names, strict=True):
        yield f"#define {name} {{ 0x{known.key.hex(',').replace(',', ', 0x')} }}"
    yield "both are public; `invoke bundle --name NAME` puts them into a device's bundle, `enroll` does by itself"
    if late := behind(vault, keys):
        yield f"devices learn of this pair by the next release; there is none yet of: {', '.join(late)}"


def sign_image(
    site: Site,
    path: Path,
    model: str,
    version: str,
    expires: str = "90d",
    minimum_counter: int = 0,
    rollout: str = "100%",
    device: str = "",
    downgrade: bool = False,
) -> Iterator[str]:
    """Sign an image and write it and its manifest below `out/SITE/`; what was signed, a line each."""
    image = _read(path, LARGEST_IMAGE + 1)
    if device and not any(each.name == device and each.model == model for each in site.devices):
        raise FirmwareError(f"--device {device[:80]}: is no device of model '{model}'; `invoke devices` lists them")
    wish = Wish(
        model=model, version=version, url=f"{server(site)}{model}/{version}.bin", expires=_duration(expires),
        minimum_counter=minimum_counter, share=_share(rollout), device=device, downgrade=downgrade,
    )  # fmt: skip
    vault = vaults.open_vault(site)
    release = sign(vault, FirmwareKeys(vault, site.name, vaults.tokens(site)), image, wish, int(time.time()))
    folder = bundles_path(site) / "firmware.signed" / model  # no device's name has a dot
    try:
        for each in (folder.parent.parent, folder.parent, folder):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(folder / f"{version}.bin", image)
        write_private(folder / f"{version}.manifest", release.data)
    except OSError as error:
        raise FirmwareError(
            f"{shown(folder)}: not written ({error.strerror}); make room, or mend its owner and mode, then sign again:"
            " the counter stays"
        ) from None
    yield f"{shown(folder / version)}.bin, .manifest: {'signed again' if release.again else 'signed'}"
    yield from described(release.manifest)


def show(site: Site, path: Path, image: str = "") -> Iterator[str]:
    """What a manifest says, a line each, once its signature is found to be by one of the site's keys."""
    data = _read(path, manifests.SIZE + 1)
    try:
        found = manifests.read(data)
    except manifests.ManifestError as error:
        raise FirmwareError(f"{path}: is no manifest ({error})") from None
    if not any(manifests.is_signed_by(data, key) for key in trusted_keys(vaults.open_vault(site))):
        raise FirmwareError(f"{path}: is signed by none of the site's two keys; no device of today takes it")
    if image:
        content = _read(Path(image), LARGEST_IMAGE + 1)
        if len(content) != found.size or sha256(content).digest() != found.sha256:
            raise FirmwareError(f"{image}: is not the image of {path}")
    yield from described(found)


def server(site: Site) -> str:
    """Where devices find manifests and images: what each URL begins with."""
    return f"https://updates.{site.domain}/"


def described(manifest: Manifest) -> Iterator[str]:
    """What a manifest says, a line each."""
    end = datetime.datetime.fromtimestamp(manifest.expires, datetime.UTC)
    what = chip_name(manifest.chip) if manifest.image_format == ESP_IMAGE else "taken as it is"
    yield f"model     {manifest.model}"
    yield f"version   {manifest.version}"
    yield f"counter   {manifest.counter} (for devices at {manifest.minimum_counter} or later)"
    yield f"image     {manifest.size:,} bytes, {what}, SHA-256 {manifest.sha256.hex()}"
    yield f"url       {manifest.url}"
    yield f"expires   {end:%Y-%m-%d %H:%M} UTC"
    yield f"for       {manifest.share / 100:g} % of the devices" if not any(manifest.device) else "for       one device"


def _read(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(most)
    except OSError as error:
        raise FirmwareError(f"{path}: can't be read ({error.strerror}); name the file") from None


def _duration(text: str) -> datetime.timedelta:
    found = _DURATION.fullmatch(text)
    if not found:
        raise FirmwareError(f"--expires {text[:40]}: give hours, days or weeks, such as 90d")
    return (
        int(found[1])
        * {"h": datetime.timedelta(hours=1), "d": datetime.timedelta(1), "w": datetime.timedelta(7)}[found[2]]
    )


def _share(text: str) -> int:
    found = _SHARE.fullmatch(text)
    share = int(found[1]) * 100 + int((found[2] or "0").ljust(2, "0")) if found else -1
    if not 0 <= share <= manifests.WHOLE_SHARE:
        raise FirmwareError(f"--rollout {text[:40]}: give a share of the devices, such as 10%")
    return share
