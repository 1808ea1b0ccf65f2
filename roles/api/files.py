"""What the device API's role puts on a gateway; `deploy` activates it, `invoke revoke` brings the list of devices."""

from __future__ import annotations

import json
from pathlib import Path

import gatehouse
from gatehouse.identity import jwt
from roles import rendering
from roles.api import service
from roles.nftables import service as nftables
from roles.target import Target

UNIT = service.units[0]
UNIT_FILE = f"/etc/systemd/system/{UNIT}"
FOLDER = "/etc/gatehouse/api"
SETTINGS, DEVICES = f"{FOLDER}/settings.json", f"{FOLDER}/devices.json"
PROGRAM, LIBRARY = "/usr/lib/gatehouse/api", "/usr/lib/gatehouse/python"
PACKAGES = (LIBRARY, f"{LIBRARY}/gatehouse", f"{LIBRARY}/gatehouse/api")
ADDRESS = "127.0.0.1"


def loads() -> tuple[str, ...]:
    """What the unit notes at its start; the list of devices it reads at each request."""
    return (SETTINGS, PROGRAM, UNIT_FILE, *(file.path for file in library()))


def library() -> list[rendering.File]:
    """The part of the kit's library that it is made of."""
    root = Path(gatehouse.__file__).parent
    sources = [root / "__init__.py", root / "errors.py", *sorted((root / "api").glob("*.py"))]
    return [rendering.File(f"{LIBRARY}/gatehouse/{s.relative_to(root)}", s.read_bytes()) for s in sources]


def configuration(target: Target) -> list[rendering.File]:
    """Its settings, without any secret."""
    site = target.site
    settings = {
        "site": site.name,
        "gateway": target.name,
        "keys": jwt.ensured_public_keys(target.pki.vault),
        "address": ADDRESS,
        "port": site.listener(service.name, "http").port,
    }
    return [
        rendering.File(SETTINGS, json.dumps(settings, indent=1).encode() + b"\n", "root", service.user, 0o640),
        rendering.template("api", PROGRAM, mode=0o755, library=LIBRARY, folder=FOLDER),
        rendering.template("api", UNIT_FILE, program=PROGRAM, user=service.user, firewall=nftables.units[0]),
    ]


def devices(target: Target) -> rendering.File:
    """The devices of this gateway as the registry has them."""
    found = [
        {
            **{fact: getattr(device, fact) for fact in ("name", "model", "segment", "status")},
            "certificate_ends": device.not_after.isoformat() if device.not_after else None,
        }
        for device in sorted(target.site.devices_of(target.name), key=lambda device: device.name)
    ]
    return rendering.File(DEVICES, json.dumps(found, indent=1).encode() + b"\n", "root", service.user, 0o640)
