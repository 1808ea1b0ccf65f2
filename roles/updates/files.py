"""What the update server adds to the HTTPS front, and where firmware lies; `invoke revoke` brings who may have it.

Not by a revocation list: nginx would want one of every authority up to the root. A certificate has to be known instead,
as that of an active device and not revoked: what is not in the list gets nothing.
"""

from __future__ import annotations

import ipaddress

from gatehouse.proof.credentials import KNOWN, KNOWN_MODEL
from gatehouse.site import Device
from gatehouse.updates.manifest import is_model
from roles import nginx, rendering
from roles.nginx import USER
from roles.target import Target
from roles.updates import service

FOLDER = "/etc/gatehouse/web/updates"
CONFIGURATION, MODELS = f"{FOLDER}/updates.conf", f"{FOLDER}/models.map"
CHAIN, KEY, DEVICES = f"{FOLDER}/chain.pem", f"{FOLDER}/key.pem", f"{FOLDER}/devices.pem"
ROOT = "/var/lib/gatehouse-updates"
SERVED = f"{ROOT}/served"
# What the compliance checks are given, with firmware or without, who show a certificate that is known.
PROOF = f"{SERVED}/{KNOWN_MODEL}/proof"
FOLDERS = (ROOT, SERVED, PROOF.rpartition("/")[0])
LOADS = (CONFIGURATION, MODELS, CHAIN, KEY, DEVICES)
# Devices learn of a change within a moment: connections that are idle end, and each request is looked up anew.
RELOAD = f"! systemctl is-active -q nginx.service || {nginx.RELOAD}"


def on(target: Target) -> bool:
    """Whether this gateway has an update server."""
    return target.name in target.site.gateways_with(service.name)


def name(target: Target) -> str:
    """By which name devices know it."""
    return f"{service.name}.{target.site.domain}"


def front(target: Target) -> list[rendering.File | rendering.Directory]:
    """What nginx reads of it."""
    given = target.listens_on(service.name, "updates") or ["127.0.0.1"]
    server = target.pki.server(f"{service.name}-{target.name}"[:64], [name(target)])
    return [
        rendering.Directory(FOLDER),
        rendering.template(
            "updates",
            CONFIGURATION,
            name=name(target),
            addresses=[f"[{each}]" if ipaddress.ip_address(each).version == 6 else each for each in given],
            port=target.site.listener(service.name, "updates").port,
            served=SERVED,
            folder=FOLDER,
        ),
        models(target),
        rendering.File(CHAIN, server.chain_pem),
        rendering.File(KEY, server.private_key_pem, group=USER, mode=0o640),
        rendering.File(DEVICES, target.pki.trust_chain_for_devices()),
    ]


def proof() -> rendering.File:
    """It says what it is for."""
    return rendering.File(PROOF, b"For the compliance checks: who shows a certificate that is known gets this.\n")


def models(target: Target) -> rendering.File:
    """Whose certificate may have which model's firmware."""
    revoked = target.pki.revoked()
    lines = [_line(KNOWN, f"{target.pki.client(KNOWN).serial:x}", KNOWN_MODEL)]
    lines += [
        _line(device.name, serial, device.model)
        for device in sorted(target.site.devices_of(target.name), key=_name)
        if device.status == "active" and is_model(device.model)
        for serial in device.serials
        if int(serial, 16) not in revoked
    ]
    return rendering.File(MODELS, "".join(f"{line}\n" for line in [f"# {rendering.HEADER}", *lines]).encode())


def _line(name: str, serial: str, model: str) -> str:
    return f'"CN={name} {_shown(serial)}" "{model}";'


def _name(device: Device) -> str:
    return device.name


def _shown(serial: str) -> str:
    """A serial number as nginx has it: whole bytes, in capitals."""
    return (serial if len(serial) % 2 == 0 else f"0{serial}").upper()
