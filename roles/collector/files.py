"""What the collector's role puts on a gateway; `deploy` activates it, `invoke revoke` brings the counts."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import gatehouse
from gatehouse.site.alerts import SERVICE as ALERTS
from gatehouse.site.pages import hosts
from roles import influxdb, rendering
from roles.collector import service
from roles.intake.files import LIBRARY, METRICS, library
from roles.mosquitto import service as broker
from roles.nginx import files as nginx
from roles.target import Target
from roles.watch import files as watch

FOLDER = "/etc/gatehouse/collector"
SETTINGS, REGISTRY, NAMES = (f"{FOLDER}/{name}.json" for name in ("collector", "devices", "names"))
TIMER = service.units[0]
UNIT = TIMER.replace(".timer", ".service")
PROGRAM = "/usr/lib/gatehouse/collector"
STATE = "/var/lib/gatehouse-collector"
# Whose certificates are watched, and where it is noted from when and until when each is good.
ENDS = "/run/gatehouse-certificates"
# What was read last, for the gateway's alerts, and what they leave in return.
READING = "/run/gatehouse-collector/reading.json"
TOLD = "/var/lib/gatehouse-alerts/status.json"
FOLDERS = ("/", "/var", "/boot")
# Where devices are unless the registry says otherwise.
DEVICES = "iot"
CERTIFICATES = {
    "mosquitto": "/etc/mosquitto/gatehouse/server.crt",
    "influxdb": f"{influxdb.FOLDER}/server.crt",
}


def program() -> list[rendering.File]:
    """What runs: the library, and its start."""
    root = Path(gatehouse.__file__).parent
    own = [rendering.File(f"{LIBRARY}/gatehouse/{s.relative_to(root)}", s.read_bytes()) for s in _sources(root)]
    return [*library(), *own, rendering.template("collector", PROGRAM, mode=0o755, library=LIBRARY)]


def _sources(root: Path) -> list[Path]:
    return sorted((root / "collector").glob("*.py"))


def configuration(target: Target) -> list[rendering.File]:
    """What is read, and where it is written to."""
    site = target.site
    runs = {each.name for each in site.services_of(target.name)}
    certificates = {name: path for name, path in CERTIFICATES.items() if name in runs}
    if nginx.service.name in runs:
        certificates |= {page.name: f"{nginx.folder(page)}/chain.pem" for page in hosts(site, target.name)}
    one = site.database.engine == "influxdb1"
    port = site.listener(influxdb.service.name, "https").port
    content = {
        "metrics": METRICS if "intake" in runs else "",
        "broker": broker.units[0] if broker.name in runs else "",
        "cursor": f"{STATE}/cursor",
        "certificates": {name: f"{ENDS}/{name}" for name in sorted(certificates)},
        "verified": watch.RESULT if watch.service.name in runs else "",
        "folders": FOLDERS,
        "units": _units(target),
        "reading": READING if ALERTS in runs else "",
        "alerts": TOLD if ALERTS in runs else "",
        "registry": REGISTRY,
        "names": NAMES,
        "bridges": bridges(target),
        "database": {
            "engine": site.database.engine,
            "url": f"https://{influxdb.host_name(site.domain)}:{port}",
            "address": influxdb.ADDRESS,
            "ca": influxdb.CA,
            "credential": influxdb.credential(influxdb.COLLECTOR),
            **({"database": influxdb.NUMBERS, "user": influxdb.COLLECTOR} if one else {}),
            **({} if one else {"org": influxdb.NAME, "bucket": influxdb.NUMBERS}),
        },
    }
    return [
        rendering.File(SETTINGS, json.dumps(content, indent=1).encode()),
        names(target),
        *(
            rendering.template(
                "collector",
                f"/etc/systemd/system/{unit}",
                program=PROGRAM,
                settings=SETTINGS,
                user=service.user,
                certificates=certificates,
                ends=ENDS,
            )
            for unit in (UNIT, TIMER)
        ),
    ]


def _units(target: Target) -> list[str]:
    """The units of the kit on this gateway; of a timer also what it starts."""
    named = {unit for each in target.site.services_of(target.name) for unit in each.units}
    return sorted(named | {unit.replace(".timer", ".service") for unit in named})


def registry(target: Target) -> rendering.File:
    """How many devices of this gateway have each status."""
    found = Counter(device.status for device in target.site.devices_of(target.name))
    counts = {status: found[status] for status in ("active", "quarantined", "revoked")}
    return rendering.File(REGISTRY, json.dumps(counts).encode())


def bridges(target: Target) -> list[str]:
    """Those of the segments that hold devices, or are there for them: the others' hardware is nobody's device."""
    held = {DEVICES, *(device.segment for device in target.site.devices_of(target.name))}
    return sorted(target.gateway.bridge(segment) for segment in held & target.gateway.networks.keys())


def names(target: Target) -> rendering.File:
    """The devices of this gateway by their hardware addresses, where these are known."""
    found = {d.hardware_address: d.name for d in target.site.devices_of(target.name) if d.hardware_address}
    return rendering.File(NAMES, json.dumps(found).encode())
