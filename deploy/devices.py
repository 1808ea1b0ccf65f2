"""Cuts devices off and lets them back, at once and on a running gateway, without touching the others' sessions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from deploy import vaults
from deploy.remote import Remote, RemoteError, connected
from gatehouse.errors import GatehouseError
from gatehouse.identity import Credential, Pki
from gatehouse.site import Device, Site
from gatehouse.site.registry_writer import Registry
from roles import alerts, collector, intake, rendering
from roles.alerts import files as alerts_files
from roles.api import files as api_files
from roles.api import service as api
from roles.coap import files as coap
from roles.collector import files as collector_files
from roles.intake import files as intake_files
from roles.mosquitto import files as mosquitto
from roles.mosquitto import service as broker
from roles.nftables import ruleset as firewall
from roles.target import Target
from roles.updates import files as updates

Log = Callable[[str], None]


class DeviceError(GatehouseError):
    """A device that is not as the command needs it; nothing was changed."""


def revoke(site: Site, names: Sequence[str], log: Log) -> None:
    """Lost or stolen: certificates revoked, session ended, packets dropped. Not to be taken back.

    Written down first: when this is killed at any moment, the next harden or the same command again completes it.
    """
    devices = _chosen(site, names)
    # Their certificates are good at every gateway of the site; those that have the devices come first.
    with _reached(site, [*_gateways(devices), *site.gateways]) as gateways:
        vault = vaults.open_vault(site)
        pki = vaults.open_pki(site, vault)
        serials = [int(serial, 16) for device in devices for serial in device.serials]
        with vault.transaction():
            if serials:
                pki.revoke_all(serials)
            pki.crl()
        _push(_with_status(site, devices, "revoked"), devices, pki, log, "revoked", gateways)


def quarantine(site: Site, names: Sequence[str], log: Log) -> Site:
    """Suspected: no internet, no other device, and at the broker only `quarantine/NAME/#`. `release` takes it back.

    Returns the site as it is then.
    """
    devices = _chosen(site, names)
    gone = [device.name for device in devices if device.status == "revoked"]
    if gone:
        raise DeviceError(f"{gone[0]}: is revoked, which is more than quarantine (enrol it again under a new name)")
    blind = [device.name for device in devices if not (device.hardware_address or device.address)]
    if blind:
        raise DeviceError(
            f"{blind[0]}: no hardware_address or address in the registry to know its packets by (add one)"
        )
    with _reached(site, _gateways(devices)) as gateways:
        site = _with_status(site, devices, "quarantined")
        _push(site, devices, vaults.open_pki(site), log, "quarantined", gateways)
    return site


def release(site: Site, names: Sequence[str], log: Log) -> None:
    """Takes devices out of quarantine."""
    devices = _chosen(site, names)
    other = [device.name for device in devices if device.status != "quarantined"]
    if other:
        raise DeviceError(f"{other[0]}: is not in quarantine (nothing to release)")
    with _reached(site, _gateways(devices)) as gateways:
        site = _with_status(site, devices, "active")
        _push(site, devices, vaults.open_pki(site), log, "released", gateways)


def named(site: Site, names: Sequence[str]) -> list[Device]:
    """The devices of these names. Raises `DeviceError` for a name that is none."""
    known = {device.name: device for device in site.devices}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise DeviceError(f"{unknown[0]}: no such device in {vaults.registry_path(site)}")
    return [known[name] for name in names]


def _chosen(site: Site, names: Sequence[str]) -> list[Device]:
    if not names:
        raise DeviceError("no device named (add --name NAME)")
    return named(site, names)


def _gateways(devices: Sequence[Device]) -> list[str]:
    return list(dict.fromkeys(device.gateway for device in devices))


Connecting = Mapping[str, Future[Remote]]


@contextmanager
def _reached(site: Site, gateways: Sequence[str]) -> Iterator[Connecting]:
    """Connections to gateways, begun at once: they come up while all is written down."""
    names = list(dict.fromkeys(gateways))
    with ExitStack() as stack, ThreadPoolExecutor(min(len(names), 16)) as pool:

        def connect(name: str) -> Remote:
            opening: AbstractContextManager[Remote] = connected(site, name)
            return stack.enter_context(opening)

        yield {name: pool.submit(connect, name) for name in names}


def _with_status(site: Site, devices: Sequence[Device], status: str) -> Site:
    """Writes the devices' status down; returns the site with every status as it stands in the registry now."""
    names = {device.name for device in devices}
    with Registry(vaults.registry_path(site)).transaction() as registry:
        for name in names:
            registry.change(name, status=status)
    now = {name: entry.get("status", "active") for name, entry in registry.entries.items()}
    settled = tuple(
        device
        if now.get(device.name, device.status) == device.status
        else device.model_copy(update={"status": now[device.name]})
        for device in site.devices
    )
    return site.model_copy(update={"devices": settled})


def _push(site: Site, devices: Sequence[Device], pki: Pki, log: Log, done: str, gateways: Connecting) -> None:
    """Makes gateways know it now. What is written down stays where one is away."""
    away = []
    for gateway, connecting in gateways.items():
        mine = [device for device in devices if device.gateway == gateway]
        try:
            _apply(connecting.result(), Target(site, gateway, lambda: pki), mine, devices)
        except GatehouseError as error:
            away.append(str(error))
            continue
        log(f"{gateway}: {', '.join(device.name for device in mine or devices)} {done}")
    if away:
        raise DeviceError("\n".join(f"{line}: written down, but not yet in force there (run harden)" for line in away))


def bring(remote: Remote, target: Target, devices: Sequence[Device]) -> None:
    """Makes a gateway know what there is of devices of its own now, and ends their sessions. Raises `RemoteError`."""
    _apply(remote, target, devices, devices)


def _apply(remote: Remote, target: Target, mine: Sequence[Device], devices: Sequence[Device]) -> None:
    """Firewall first, and what it does not let go on; then the broker and the open sessions, and the CoAP endpoint's;
    then the intake's keys, what is counted, and what is told of them.

    Each is tried, whatever becomes of the others. Raises `RemoteError`.
    """
    runs = {service.name for service in target.site.services_of(target.name)}
    steps: list[Callable[[], None]] = []
    if mine:
        steps.append(lambda: _update_firewall(remote, target, mine))
    if broker.name in runs:
        steps.append(lambda: update_broker(remote, target, devices))
    if coap.on(target):
        steps.append(lambda: update_coap(remote, target))
    if intake.service.name in runs:
        steps.append(lambda: _replace(remote, intake_files.keys(target)))
    if collector.service.name in runs:
        steps.append(lambda: _replace(remote, collector_files.registry(target)))
    if alerts.service.name in runs:
        steps.append(lambda: _replace(remote, alerts_files.devices(target)))
    if api.name in runs:
        steps.append(lambda: _replace(remote, api_files.devices(target)))
    steps.append(lambda: update_updates(remote, target))
    failed = []
    for step in steps:
        try:
            step()
        except RemoteError as error:
            failed.append(str(error))
    if failed:
        raise RemoteError("; ".join(failed))


def _update_firewall(remote: Remote, target: Target, mine: Sequence[Device]) -> None:
    ruleset = firewall.ruleset(target)
    script, stdin = rendering.swap([ruleset], [ruleset], firewall.CHECK)
    ends = [f"ss -K dst {device.address} >/dev/null 2>&1 || true" for device in mine if device.address]
    remote.run("; ".join([script, firewall.LOADER, *ends]), stdin)


def update_updates(remote: Remote, target: Target) -> None:
    """Makes the update server, where there is one, go by the certificates of now. Raises `RemoteError`."""
    if not updates.on(target):
        return
    known = updates.models(target)
    script, stdin = rendering.swap([known], [known])
    remote.run(f"{script}; {updates.RELOAD}", stdin)


def update_coap(remote: Remote, target: Target) -> None:
    """Makes the CoAP endpoint go by the devices and the revocation lists of now: it looks for itself, each second.

    Raises `RemoteError`.
    """
    entries = coap.admission(target)
    remote.run(*rendering.swap(entries, entries, keep_same=True))


def update_revoked(remote: Remote, target: Target) -> None:
    """Makes whatever judges certificates at a running broker's gateway go by the revocation lists of now.

    Raises `RemoteError`.
    """
    update_broker(remote, target)
    if coap.on(target):
        update_coap(remote, target)


def _replace(remote: Remote, entry: rendering.File) -> None:
    """Puts a file in place of the former one, for who reads it anew by itself."""
    remote.run(*rendering.swap([entry], [entry]))


def update_broker(remote: Remote, target: Target, cut: Sequence[Device] = ()) -> None:
    """Makes a running broker go by the rights and the revocation lists of now, and ends the sessions of some devices.

    The latter as soon as it has read them; what else there is to be proven of it comes after. Raises `RemoteError`.
    """
    entries = [*mosquitto.configuration(target), *mosquitto.credentials(target)]
    requests = [rendering.File(f"/cut/{device.name}", _request(target, device), mode=0o600) for device in cut]
    changed = [entry for entry in entries if entry.path in mosquitto.REREAD]
    script, stdin = rendering.swap(changed, [*entries, *requests], mosquitto.CHECK, keep_same=True)
    back = f"{{ {mosquitto.GUARD} restore; exit 1; }}"
    ends = [f'{mosquitto.DISCONNECT} <"$STAGED"{request.path} || failed=1' for request in requests]
    reload, prove = (f"{mosquitto.GUARD} {command} || {back}" for command in ("reload", "prove"))
    remote.run("; ".join([script, reload, "failed=0", *ends, prove, "exit $failed"]), stdin)


def _request(target: Target, device: Device) -> bytes:
    """What ends a device's session, and shows that the certificates of it that are revoked are refused."""
    port = target.site.listener(broker.name, "mqtts").port
    listeners = [[address, port] for address in mosquitto.addresses(target)]
    refused = [_shown(target.pki.twin(device.name, int(serial, 16))) for serial in _revoked(target.pki, device)]
    taking_over = _shown(target.pki.ephemeral_client(device.name))
    return json.dumps({**taking_over, "listeners": listeners, "refused": refused}).encode()


def _revoked(pki: Pki, device: Device) -> list[str]:
    revoked = pki.revoked()
    return [serial for serial in device.serials if int(serial, 16) in revoked]


def _shown(credential: Credential) -> dict[str, Any]:
    return {"chain": credential.chain_pem.decode(), "key": credential.private_key_pem.decode()}
