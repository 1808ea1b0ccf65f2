"""Cuts devices off and lets them back, at once and on a running gateway, without touching the others' sessions."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from deploy import vaults
from deploy.inventory import ROOT
from deploy.remote import Remote, connected
from gatehouse.errors import GatehouseError
from gatehouse.identity import Pki
from gatehouse.site import Device, Site, load
from gatehouse.site.registry_writer import Registry
from roles import lifecycle
from roles.mosquitto import deploy as mosquitto
from roles.nftables import deploy as nftables
from roles.target import Target

Log = Callable[[str], None]


class DeviceError(GatehouseError):
    """A device that is not as the command needs it; nothing was changed."""


def revoke(site: Site, names: Sequence[str], log: Log) -> None:
    """Lost or stolen: certificates revoked, session ended, packets dropped. Not to be taken back."""
    devices = _chosen(site, names)
    pki = vaults.open_pki(site)
    serials = [int(serial, 16) for device in devices for serial in device.serials]
    if serials:
        pki.revoke_all(serials)
    _set_status(site, devices, "revoked")
    _push(site, devices, pki, log, "revoked")


def quarantine(site: Site, names: Sequence[str], log: Log) -> None:
    """Suspected: no internet, no other device, and at the broker only `quarantine/NAME/#`. `release` takes it back."""
    devices = _chosen(site, names)
    gone = [device.name for device in devices if device.status == "revoked"]
    if gone:
        raise DeviceError(f"{gone[0]}: is revoked, which is more than quarantine (enrol it again under a new name)")
    blind = [device.name for device in devices if not (device.hardware_address or device.address)]
    if blind:
        raise DeviceError(
            f"{blind[0]}: no hardware_address or address in the registry to know its packets by (add one)"
        )
    _set_status(site, devices, "quarantined")
    _push(site, devices, vaults.open_pki(site), log, "quarantined")


def release(site: Site, names: Sequence[str], log: Log) -> None:
    """Takes devices out of quarantine."""
    devices = _chosen(site, names)
    other = [device.name for device in devices if device.status != "quarantined"]
    if other:
        raise DeviceError(f"{other[0]}: is not in quarantine (nothing to release)")
    _set_status(site, devices, "active")
    _push(site, devices, vaults.open_pki(site), log, "released")


def _chosen(site: Site, names: Sequence[str]) -> list[Device]:
    known = {device.name: device for device in site.devices}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise DeviceError(f"{unknown[0]}: no such device in {vaults.registry_path(site)}")
    if not names:
        raise DeviceError("no device named (add --name NAME)")
    return [known[name] for name in names]


def _set_status(site: Site, devices: Sequence[Device], status: str) -> None:
    with Registry(vaults.registry_path(site)).transaction() as registry:
        for device in devices:
            registry.change(device.name, status=status)


def _push(site: Site, devices: Sequence[Device], pki: Pki, log: Log, done: str) -> None:
    """Makes each gateway that has one of the devices know it now. What is written down stays where one is away."""
    site = load(site.name, ROOT)
    away = []
    for gateway in dict.fromkeys(device.gateway for device in devices):
        mine = [device for device in devices if device.gateway == gateway]
        try:
            with connected(site, gateway) as remote:
                _apply(remote, Target(site, gateway, lambda: pki), mine)
        except GatehouseError as error:
            away.append(str(error))
            continue
        log(f"{gateway}: {', '.join(device.name for device in mine)} {done}")
    if away:
        raise DeviceError("\n".join(f"{line}: written down, but not yet in force there (run harden)" for line in away))


def _apply(remote: Remote, target: Target, devices: Sequence[Device]) -> None:
    """Firewall first, then the broker's lists, then the open sessions."""
    ruleset = nftables.ruleset(target)
    script, stdin = lifecycle.swap([ruleset], [ruleset], nftables.CHECK)
    remote.run(f"{script}; {nftables.LOADER}", stdin)
    entries = [*mosquitto.configuration(target), *mosquitto.credentials(target)]
    script, stdin = lifecycle.swap([e for e in entries if e.path in mosquitto.REREAD], entries, mosquitto.CHECK)
    guard = mosquitto.GUARD
    remote.run(f"{script}; {{ {guard} reload && {guard} prove; }} || {{ {guard} restore; exit 1; }}", stdin)
    port = target.site.listener("mosquitto", "mqtts").port
    for device in devices:
        credential = target.pki.ephemeral_client(device.name)
        request = {
            "chain": credential.chain_pem.decode(),
            "key": credential.private_key_pem.decode(),
            "listeners": [[address, port] for address in mosquitto.addresses(target)],
        }
        remote.run(mosquitto.DISCONNECT, json.dumps(request))
