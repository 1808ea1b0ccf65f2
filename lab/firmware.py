"""Firmware for the lab's devices, so that there is something on its update server: signed with the site's own keys."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from deploy import publishing, vaults
from deploy.firmware import sign_image
from gatehouse.site import Site
from gatehouse.updates.keys import FirmwareKeys
from gatehouse.updates.signing import models
from lab import simulator
from roles.updates import service

EARLIER, VERSION = "0.9.0", "1.0.0"
LIFE, SIZE = "30d", 4096


def image(version: str, behaviour: str = "good", size: int = SIZE) -> bytes:
    """An image as `device/host/device.c` runs it, of a size in bytes."""
    return f"gatehouse image {version} {behaviour}\n".encode().ljust(size, b"-")


def offer(site: Site, log: Callable[[str], None]) -> None:
    """Has a release published for the last of the lab's devices, if the site has update servers. Idempotent."""
    if not site.gateways_with(service.name):
        return
    vault = vaults.open_vault(site)
    FirmwareKeys(vault, site.name, vaults.tokens(site)).ensure()
    last = simulator.few(site)[-1]
    model = next(device.model for device in site.devices if device.name == last)
    try:
        publishing.publish(site, model, VERSION, log)
    except publishing.PublishingError:  # not signed yet, expired, or by a key that was replaced
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "image.bin"
            for version in [VERSION] if model in models(vault) else [EARLIER, VERSION]:
                path.write_bytes(image(version))
                for _ in sign_image(site, path, model, version, LIFE):
                    pass
        publishing.publish(site, model, VERSION, log)
