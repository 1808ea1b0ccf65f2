"""Brings signed firmware to the update servers of a site, and takes it away again. What is signed is `firmware.sign`'s.

Each file is renamed into its place, the image before the manifest that names it: a device sees the one or the other.
"""

from __future__ import annotations

import math
import re
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from deploy import vaults
from deploy.enrolment import bundles_path, shown
from deploy.firmware import sign_image
from deploy.remote import Remote, RemoteError, connected
from gatehouse.errors import GatehouseError
from gatehouse.identity.store import SecretStore
from gatehouse.site import Site
from gatehouse.updates import manifest as manifests
from gatehouse.updates.judgement import MOST
from gatehouse.updates.keys import trusted_keys
from gatehouse.updates.manifest import LARGEST_IMAGE, Manifest
from gatehouse.updates.signing import known_keys
from roles.updates import service
from roles.updates.files import SERVED

Log = Callable[[str], None]
MANIFEST = "manifest"
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+_-]{0,30}")


class PublishingError(GatehouseError):
    """Firmware that can't be published, or a gateway that did not take it."""


@dataclass(frozen=True)
class Signed:
    """A manifest and its image, which belong together."""

    manifest: Manifest
    data: bytes
    image: bytes


def publish(site: Site, model: str, version: str, log: Log, rollout: str = "") -> None:
    """Bring a signed release to every update server of the site; one that is there already is left as it is.

    With `rollout` its manifest is signed again first, for another share of the devices.
    """
    gateways = servers(site)
    if rollout:
        _resign(site, model, version, rollout)
    signed = _signed(site, model, version)
    for gateway in gateways:
        with connected(site, gateway) as remote:
            log(f"{gateway}: {_bring(remote, signed)}")


def _resign(site: Site, model: str, version: str, rollout: str) -> None:
    """The same image, counter and end; who has it first stays so."""
    found = _signed(site, model, version).manifest
    if any(found.device):
        raise PublishingError(f"{model} {version}: is for one device; there is nothing to roll out")
    path = bundles_path(site) / "firmware.signed" / model / f"{version}.bin"
    for _ in sign_image(site, path, model, version, _left(found), found.minimum_counter, rollout):
        pass


def _left(found: Manifest) -> str:
    """How long a manifest is still good, as `firmware.sign` takes it."""
    hours = max(1, math.ceil((found.expires - time.time()) / 3600))
    return f"{hours}h" if hours < 10_000 else f"{math.ceil(hours / 24)}d"


def halt(site: Site, model: str, version: str, gateways: Sequence[str]) -> Iterator[str]:
    """Give a release to nobody any more; what became of it, a line each. Raises `PublishingError` if it is still given.

    Its manifest is signed again, for no device: those that have the release are up to date, the others wait, and both
    see that the server is not frozen. What can't be signed here is withdrawn instead, which takes no key.
    """
    try:
        _resign(site, model, version, "0%")
        signed = _signed(site, model, version)
        why = ""
    except GatehouseError as error:
        why = str(error)
    failed = []
    for gateway in gateways:
        try:
            with connected(site, gateway) as remote:
                if why:
                    yield f"{gateway}: {model} {version} HALTED: {_withdrawn(remote, model)} ({why})"
                else:
                    _bring(remote, signed)
                    yield f"{gateway}: {model} {version} HALTED: given to no device any more"
        except GatehouseError as error:
            failed.append(str(error))
    if failed:
        raise PublishingError(f"{model} {version} is NOT HALTED everywhere: {'; '.join(failed)}")


def withdraw(site: Site, model: str, log: Log) -> None:
    """Show devices of a model no release any more; those that have taken one keep it. Images go, too."""
    _check(model, "1")
    for gateway in servers(site):
        with connected(site, gateway) as remote:
            log(f"{gateway}: {model} {_withdrawn(remote, model)}")


def _withdrawn(remote: Remote, model: str) -> str:
    folder = shlex.quote(f"{SERVED}/{model}")
    # The manifest first: no device is sent to an image that is gone.
    script = f"set -e; if [ -d {folder} ]; then rm -f -- {folder}/{MANIFEST}; rm -rf -- {folder}; echo gone; fi"
    return "withdrawn" if remote.run(script).strip() else "has nothing published"


def published(site: Site) -> Iterator[str]:
    """What each update server offers, a line a manifest; what its devices would not take is said with it."""
    vault = vaults.open_vault(site)
    now = int(time.time())
    for gateway in servers(site):
        with connected(site, gateway) as remote:
            found = remote.run(listing()).splitlines()
        if not found:
            yield f"{gateway}: nothing published"
        for line in found:
            offer = offers(line)
            if not offer.entries:
                yield f"{gateway}: {offer.model} BROKEN: no manifest; publish it again"
            for entry, keys in zip(offer.entries, keys_of(vault, offer), strict=True):
                yield f"{gateway}: {offer.model} {_judged(offer, entry, keys, now)}"


# Of each model: its name, its manifests in hexadecimal, and DIGEST=FILE of each image.
_LIST = (
    ' 2>/dev/null || exit 0; for m in */manifest; do [ -f "$m" ] || continue; d=${m%/manifest};'
    ' echo "$d x$(od -An -v -tx1 "$m" | tr -d " \\n")"'
    ' $(cd "$d" && sha256sum -- *.bin 2>/dev/null | sed "s/  /=/"); done'
)


def listing() -> str:
    """Shell that prints a line for each model that something is published of, as `offers` reads it."""
    return f"cd {SERVED}{_LIST}"


class Offer(NamedTuple):
    """What a gateway has of a model: its manifests, none where it is no file of manifests, and images' digests."""

    model: str
    entries: list[bytes]
    images: Mapping[str, str]


def offers(line: str) -> Offer:
    """What a line of `listing` says."""
    model, data, *images = line.split()
    return Offer(model, _entries(bytes.fromhex(data[1:])), dict(reversed(image.split("=", 1)) for image in images))


def keys_of(vault: SecretStore, offer: Offer) -> list[tuple[bytes, ...]]:
    """By which keys each of the manifests may be signed: the newest by those of today, the others by former ones."""
    trusted, known = trusted_keys(vault), known_keys(vault, offer.model) if offer.entries[1:] else ()
    return [known if number else trusted for number in range(len(offer.entries))]


def faults(model: str, data: bytes, keys: Iterable[bytes], now: int) -> list[str]:
    """Why no device of a model takes a manifest, in words. Raises `ManifestError` for bytes that are none."""
    found = manifests.read(data)
    return [
        text
        for text, holds in {
            "signed by none of the site's keys": not any(manifests.is_signed_by(data, key) for key in keys),
            f"for model {found.model}": found.model != model,
            "expired": found.expires <= now,
        }.items()
        if holds
    ]


def has_image(offer: Offer, found: Manifest) -> bool:
    """Whether the image of a manifest is there, just as it was signed."""
    return offer.images.get(_image(found)) == found.sha256.hex()


def _entries(data: bytes) -> list[bytes]:
    """The manifests of a file; none where it is no file of manifests."""
    if not data or len(data) % manifests.SIZE or len(data) > MOST * manifests.SIZE:
        return []
    return [data[start : start + manifests.SIZE] for start in range(0, len(data), manifests.SIZE)]


def _judged(offer: Offer, data: bytes, keys: Iterable[bytes], now: int) -> str:
    try:
        found, wrong = manifests.read(data), faults(offer.model, data, keys, now)
    except manifests.ManifestError as error:
        return f"BROKEN: no manifest ({error}); publish it again"
    wrong += [] if has_image(offer, found) else ["its image is missing or another one"]
    about = f"{found.version}, counter {found.counter}, for {found.share / 100:g} % of the devices"
    return f"{about}: REFUSED by devices: {', '.join(wrong)}" if wrong else about


def _image(found: Manifest) -> str:
    """The image's file, as its URL ends."""
    return found.url.rpartition("/")[2]


def servers(site: Site) -> list[str]:
    """The gateways that have an update server. Raises `PublishingError` where there is none."""
    found = site.gateways_with(service.name)
    if not found:
        raise PublishingError(f"{site.name}: has no update server; add updates=True to the site, then ./kit harden")
    return found


def _check(model: str, version: str) -> None:
    if not manifests.is_model(model):
        raise PublishingError(f"--model {model[:40]!r}: is no model that can have firmware")
    if not _VERSION.fullmatch(version):
        raise PublishingError(f"--version {version[:40]!r}: is no version")


def _signed(site: Site, model: str, version: str) -> Signed:
    """What `firmware.sign` has written, once more compared with what it must be. Raises `PublishingError`."""
    _check(model, version)
    folder = bundles_path(site) / "firmware.signed" / model
    place = shown(folder / version)
    data, image = _read(folder / f"{version}.manifest", manifests.SIZE), _read(folder / f"{version}.bin", LARGEST_IMAGE)
    try:
        found = manifests.read(data)
    except manifests.ManifestError as error:
        raise PublishingError(f"{place}.manifest: is no manifest ({error}); sign it again") from None
    if not any(manifests.is_signed_by(data, key) for key in trusted_keys(vaults.open_vault(site))):
        raise PublishingError(f"{place}.manifest: is signed by none of the site's two keys; sign it again")
    if (found.model, found.version) != (model, version):
        raise PublishingError(f"{place}.manifest: is of {found.model} {found.version}; sign it again")
    if found.expires <= time.time():
        raise PublishingError(f"{place}.manifest: has expired, no device takes it; sign it again")
    if len(image) != found.size or sha256(image).digest() != found.sha256:
        raise PublishingError(f"{place}.bin: is not the image that was signed; sign it again")
    return Signed(found, data, image)


def _read(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(most + 1)
    except OSError as error:
        raise PublishingError(f"{shown(path)}: can't be read ({error.strerror}); `firmware.sign` makes it") from None


def _bring(remote: Remote, signed: Signed) -> str:
    found = signed.manifest
    folder = f"{SERVED}/{found.model}"
    listed = map(offers, remote.run(listing()).splitlines())
    there = next((offer for offer in listed if offer.model == found.model), Offer(found.model, [], {}))
    kept = _kept(remote.gateway, signed, there.entries)
    image = _image(found)
    same = has_image(there, found)
    if same and there.entries == [signed.data, *kept]:
        return f"{found.model} {found.version} is published already"
    if not same:
        _put(remote, f"{folder}/{image}", signed.image)
    try:
        _put(remote, f"{folder}/{MANIFEST}", b"".join([signed.data, *kept]))
    except RemoteError:
        if image not in there.images:
            remote.run(f"rm -f -- {shlex.quote(f'{folder}/{image}')}")  # no manifest names it
        raise
    wanted = {image, *(_image(manifests.read(entry)) for entry in kept)}
    if gone := sorted(f"{folder}/{name}" for name in there.images if name not in wanted):
        remote.run(f"rm -f -- {shlex.join(gone)}")
    beside = f"; {len(kept)} earlier beside it, for devices that need one first" if kept else ""
    return f"{found.model} {found.version} published, for {found.share / 100:g} % of the devices{beside}"


def _kept(gateway: str, signed: Signed, there: list[bytes]) -> list[bytes]:
    """Of what is published, what some device needs before the new one: by another key, or the counter that it wants.

    Raises `PublishingError` for a release that devices would take for a step back, and for more than fit in a file.
    """
    found = signed.manifest
    kept, needing, signers = [], [found], {manifests.signer_of(signed.data)}
    for data in there:  # newest first
        try:
            former = manifests.read(data)
        except manifests.ManifestError:
            continue  # what is broken there is replaced
        if (found.counter, found.issued) < (former.counter, former.issued):
            raise PublishingError(
                f"{gateway}: {found.model} {found.version} (counter {found.counter}) is older than {former.version}"
                f" (counter {former.counter}), which is published; sign it with --downgrade to go back on purpose"
            )
        bridge = manifests.signer_of(data) not in signers
        step = any(former.minimum_counter < each.minimum_counter <= former.counter for each in needing)
        if former.counter < found.counter and former.expires > time.time() and (bridge or step):
            kept.append(data)
            needing.append(former)
            signers.add(manifests.signer_of(data))
    if len(kept) >= MOST:
        raise PublishingError(
            f"{gateway}: {found.model}: {len(kept)} earlier releases are still needed, and {MOST - 1} have room beside"
            f" {found.version}; withdraw it, then publish: devices that were away for long are to be flashed by hand"
        )
    return kept


def _put(remote: Remote, path: str, content: bytes) -> None:
    """A file in its place, whole or not at all. Raises `RemoteError`."""
    target, beside = shlex.quote(path), shlex.quote(path.rpartition("/")[0] + "/.new." + path.rpartition("/")[2])
    full = f"{{ rm -f -- {beside}; echo '{path}: not written, it is as it was (is there room?)' >&2; exit 1; }}"
    script = (
        f"umask 022; mkdir -p -- {shlex.quote(path.rpartition('/')[0])} && cat >{beside} || {full};"
        f' [ "$(sha256sum {beside} | cut -d" " -f1)" = {sha256(content).hexdigest()} ] && sync -- {beside}'
        f" && mv -fT -- {beside} {target} || {full}"
    )
    try:
        with remote.writing(script) as (send, answer):
            send(content)
            answer()
    except OSError as error:
        raise RemoteError(f"{remote.gateway}: {path}: {error}") from None
