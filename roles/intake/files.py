"""What the intake's role puts on a gateway; `deploy` installs and activates it, `invoke revoke` brings the keys."""

from __future__ import annotations

from pathlib import Path

import gatehouse
from gatehouse.identity.names import KIT_PREFIX
from gatehouse.identity.passwords import raw_key
from gatehouse.identity.pins import broker_host
from gatehouse.messages import keyfile
from gatehouse.proof.credentials import OTHER_PROBE, PROBE
from roles import influxdb, rendering
from roles.intake import service
from roles.mosquitto import files as mosquitto
from roles.nftables import service as nftables
from roles.target import Target

UNIT = service.units[0]
UNIT_FILE = f"/etc/systemd/system/{UNIT}"
FOLDER = "/etc/gatehouse/intake"
SETTINGS, KEYS = f"{FOLDER}/intake.toml", f"{FOLDER}/keys"
AUTHORITY, CLIENT = f"{FOLDER}/ca.pem", f"{FOLDER}/client.pem"
METRICS = "/run/gatehouse-intake/metrics.prom"
PROGRAM, LIBRARY = "/usr/lib/gatehouse/intake", "/usr/lib/gatehouse/python"
PACKAGES = (LIBRARY, f"{LIBRARY}/gatehouse", f"{LIBRARY}/gatehouse/messages")
# Keys and credential are read again when they change, the others only at a start.
READ_AT_START = (SETTINGS, AUTHORITY, CLIENT, UNIT_FILE, PROGRAM)
CHECK = f'python3 -I "$STAGED"{PROGRAM} --check "$STAGED"'
CONNECTED = f"timeout 20 sh -c \"until grep -qs '^gatehouse_intake_connected 1' {METRICS}; do sleep 0.2; done\""
# The suite's own devices: who has one of the certificates that it makes for itself can sign as well.
PROBES = (PROBE, OTHER_PROBE)


def loads() -> tuple[str, ...]:
    """What the unit notes at its start: its files and the program's."""
    return (*READ_AT_START, *(file.path for file in library()))


def program() -> list[rendering.File]:
    """What runs: the library, and its start."""
    return [*library(), rendering.template("intake", PROGRAM, mode=0o755, library=LIBRARY)]


def library() -> list[rendering.File]:
    """The part of the kit's library that runs on the gateway; it needs Debian's Python and nothing else."""
    root = Path(gatehouse.__file__).parent
    sources = [root / "__init__.py", root / "errors.py", *sorted((root / "messages").glob("*.py"))]
    return [rendering.File(f"{LIBRARY}/gatehouse/{s.relative_to(root)}", s.read_bytes()) for s in sources]


def configuration(target: Target) -> list[rendering.File]:
    """Where broker and database are, what is shown to them, and what is taken."""
    client = target.pki.client(service.user)
    broker = mosquitto.addresses(target)[0]
    mine = {"group": service.user, "mode": 0o640}
    return [
        rendering.template(
            "intake",
            SETTINGS,
            **mine,
            broker=broker,
            port=target.site.listener(mosquitto.service.name, "mqtts").port,
            name=broker_host(target.site),
            user=service.user,
            site=target.site,
            authority=AUTHORITY,
            client=CLIENT,
            keys=KEYS,
            database=influxdb,
            database_port=target.site.listener(influxdb.service.name, "https").port,
            metrics=METRICS,
        ),
        rendering.File(AUTHORITY, target.pki.trust_anchor, "root", service.user, 0o640),
        rendering.File(CLIENT, client.chain_pem + client.private_key_pem, "root", service.user, 0o640),
        rendering.template(
            "intake",
            UNIT_FILE,
            program=PROGRAM,
            settings=SETTINGS,
            user=service.user,
            broker=broker,
            firewall=nftables.units[0],
        ),
    ]


def keys(target: Target) -> rendering.File:
    """The keys of the active devices of this gateway, all numbers, and of the suite's own two."""
    secrets = target.pki.vault
    active = {device.name for device in target.site.devices_of(target.name) if device.status == "active"}
    found = [
        (device, int(number), bytes.fromhex(secrets.get_text(f"devices/{device}/hmac/{number}")))
        for _, device, kind, number in (name.split("/") for name in secrets.names("devices/") if name.count("/") == 3)
        if kind == "hmac" and device in active
    ]
    found += [(probe, 1, probe_key(target, probe)) for probe in PROBES]
    return rendering.File(KEYS, keyfile.render(found, rendering.HEADER), "root", service.user, 0o640)


def probe_key(target: Target, probe: str) -> bytes:
    """The key that one of the suite's devices signs with."""
    name = f"probe/hmac/{probe.removeprefix(KIT_PREFIX)}"
    return target.pki.vault.obtain(name, raw_key, "hmac-key")
