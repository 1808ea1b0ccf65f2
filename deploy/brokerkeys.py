"""Moves a gateway's broker to its backup key, and only when that strands none of the devices that pin its keys."""

from __future__ import annotations

from deploy import vaults
from deploy.enrolment import bundles_path, shown
from gatehouse.errors import GatehouseError
from gatehouse.identity import bundle
from gatehouse.identity.pins import broker_certificate, move_to_backup_key, pins_of
from gatehouse.site import Site

_NAMED = 5


class BrokerKeyError(GatehouseError):
    """The broker can't move to its backup key; it keeps the one it has."""


def move(site: Site, gateway: str, force: bool) -> str:
    """Makes the backup key the broker's, and says what comes then; `force` where devices trust the root alone.

    What a device pins is what its bundle was last given: the registry says so, or the bundle itself in `out/SITE/`.
    Raises `BrokerKeyError` when a device that is enrolled has an older backup key, or neither says.
    """
    if not gateway and len(site.gateways) == 1:
        gateway = next(iter(site.gateways))
    if not gateway:
        raise BrokerKeyError(f"name the gateway (--gateway; there are: {', '.join(site.gateways)})")
    if gateway not in site.gateways:
        raise BrokerKeyError(f"{gateway}: no such gateway (there are: {', '.join(site.gateways)})")
    vault = vaults.open_vault(site)
    server = broker_certificate(vaults.open_pki(site, vault), site, gateway)
    coming = pins_of(vault, server).backup_spki_sha256
    place = bundles_path(site)
    lacking, unknown = [], []
    for device in site.devices_of(gateway):
        if device.serials and device.status != "revoked":
            found = None if device.backup_pin else bundle.read(place / device.name)
            pinned = found.broker.pins.backup_spki_sha256 if found else device.backup_pin
            if pinned is None:
                unknown.append(device.name)
            elif pinned != coming:
                lacking.append(device.name)
    if not force and (lacking or unknown):
        reasons = [f"{len(names)} {why} ({_some(names)})" for names, why in (
            (lacking, "do not know the backup key: refresh their bundles with `./kit bundle`, and flash them"),
            (unknown, f"have no bundle in {shown(place)}, and the registry does not say: copy it here"),
        ) if names]  # fmt: skip
        raise BrokerKeyError(
            f"{gateway}: the broker keeps its key; of the devices, {'; '.join(reasons)}."
            " A device that pins keys would be stranded; add --force if none of these does"
        )
    move_to_backup_key(vault, server.name)
    return (
        f"{gateway}: the broker's next certificate is for its backup key, and there is a new backup key.\n"
        f"Next: ./kit harden --site {site.name}; then refresh the devices' bundles and flash them, before the next move"
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
