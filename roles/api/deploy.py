"""Installs, configures and activates the device API."""

from __future__ import annotations

import json
from pathlib import Path

from pyinfra.api import deploy

import gatehouse
from gatehouse.identity import jwt
from roles import lifecycle
from roles.api import service
from roles.nftables import service as nftables
from roles.target import Target

UNIT = service.units[0]
UNIT_FILE = f"/etc/systemd/system/{UNIT}"
FOLDER = "/etc/gatehouse/api"
SETTINGS, DEVICES = f"{FOLDER}/settings.json", f"{FOLDER}/devices.json"
PROGRAM, LIBRARY = "/usr/lib/gatehouse/api", "/usr/lib/gatehouse/python"
ADDRESS = "127.0.0.1"


@deploy("Device API")
def apply(target: Target) -> None:
    """Install, configure, activate."""
    install()
    configure(target)
    activate(target)


def install() -> None:
    """Debian's Python with what checks tokens, and a user of the API's own."""
    lifecycle.packages(*service.packages, name="Install what checks tokens")
    lifecycle.accounts(service.user, name="Make the API's user")


def configure(target: Target) -> None:
    """The program, the public keys of the site's tokens, and what it tells."""
    lifecycle.files(
        lifecycle.Directory("/etc/gatehouse"),
        lifecycle.Directory(FOLDER, group=service.user, mode=0o750),
        *(lifecycle.Directory(path) for path in (LIBRARY, f"{LIBRARY}/gatehouse", f"{LIBRARY}/gatehouse/api")),
        *library(),
        *configuration(target),
        lifecycle.stamped(UNIT, loads(), reloads=False),
        name="Configure the device API",
    )


def activate(target: Target) -> None:
    """A restart; it must then turn away who shows no token."""
    port = target.site.listener(service.name, "http").port
    ask = (
        "import http.client as h, sys, time\n"
        "for _ in range(50):\n"
        f"    c = h.HTTPConnection('{ADDRESS}', {port}, timeout=5)\n"
        "    try:\n"
        "        c.request('GET', '/api/devices'); sys.exit(c.getresponse().status != 401)\n"
        "    except OSError: time.sleep(0.2)\n"
        "sys.exit(1)\n"
    )
    lifecycle.running(UNIT, loads=loads(), prove=f'python3 -I -c "{ask}"', name="Run the device API")


def loads() -> tuple[str, ...]:
    """What the unit notes at its start."""
    return (SETTINGS, DEVICES, PROGRAM, UNIT_FILE, *(file.path for file in library()))


def library() -> list[lifecycle.File]:
    """The part of the kit's library that it is made of."""
    root = Path(gatehouse.__file__).parent
    sources = [root / "__init__.py", root / "errors.py", *sorted((root / "api").glob("*.py"))]
    return [lifecycle.File(f"{LIBRARY}/gatehouse/{s.relative_to(root)}", s.read_bytes()) for s in sources]


def configuration(target: Target) -> list[lifecycle.File]:
    """Its settings, without any secret, and the devices of this gateway as the registry has them."""
    site = target.site
    settings = {
        "site": site.name,
        "gateway": target.name,
        "keys": jwt.ensured_public_keys(target.pki.vault),
        "address": ADDRESS,
        "port": site.listener(service.name, "http").port,
    }
    devices = [
        {
            **{fact: getattr(device, fact) for fact in ("name", "model", "segment", "status")},
            "certificate_ends": device.not_after.isoformat() if device.not_after else None,
        }
        for device in sorted(site.devices_of(target.name), key=lambda device: device.name)
    ]
    return [
        lifecycle.File(SETTINGS, json.dumps(settings, indent=1).encode() + b"\n", "root", service.user, 0o640),
        lifecycle.File(DEVICES, json.dumps(devices, indent=1).encode() + b"\n", "root", service.user, 0o640),
        lifecycle.template("api", PROGRAM, mode=0o755, library=LIBRARY, folder=FOLDER),
        lifecycle.template("api", UNIT_FILE, program=PROGRAM, user=service.user, firewall=nftables.units[0]),
    ]
