"""What the alerts' role puts on a gateway: the program, from which number on something is wrong, and the ways out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gatehouse
from gatehouse.errors import GatehouseError
from gatehouse.identity.passwords import password
from gatehouse.identity.pins import broker_host
from gatehouse.site.alerts import Alerts, topic
from gatehouse.site.model import seconds
from roles import rendering
from roles.alerts import EMAIL_PASSWORD, WEBHOOK_SECRET, service
from roles.collector import service as collector
from roles.collector.files import READING, TOLD
from roles.intake.files import LIBRARY, library
from roles.mosquitto import files as mosquitto
from roles.mosquitto import service as broker
from roles.target import Target

TIMER = service.units[0]
UNIT = TIMER.replace(".timer", ".service")
FOLDER = "/etc/gatehouse/alerts"
SETTINGS, DEVICES = f"{FOLDER}/alerts.json", f"{FOLDER}/devices.json"
AUTHORITY, CLIENT = f"{FOLDER}/ca.pem", f"{FOLDER}/client.pem"
SECRET, TRUST = f"{FOLDER}/webhook.secret", f"{FOLDER}/webhook-ca.pem"
PASSWORD, MAIL_TRUST = f"{FOLDER}/email.password", f"{FOLDER}/email-ca.pem"
PROGRAM = "/usr/lib/gatehouse/alerts"
STATE = str(Path(TOLD).parent)
STATUS, BOOK, TEST = TOLD, f"{STATE}/state.json", f"{STATE}/test"
CHECK = f'python3 -I "$STAGED"{PROGRAM} --check "$STAGED"'


class AlertsRefused(GatehouseError):
    """Alerts that can't be told as the site says."""


def program() -> list[rendering.File]:
    """What runs: its part of the library and what it shares with the intake, and its start."""
    root = Path(gatehouse.__file__).parent
    sources = sorted((root / "alerts").glob("*.py"))
    own = [rendering.File(f"{LIBRARY}/gatehouse/{s.relative_to(root)}", s.read_bytes()) for s in sources]
    return [*library(), *own, rendering.template("alerts", PROGRAM, mode=0o755, library=LIBRARY)]


def configuration(target: Target) -> list[rendering.File]:
    """What counts as wrong, where it is told, and what is shown there."""
    wanted = target.site.alerts
    assert wanted is not None  # noqa: S101  `only_with`
    here = ways(target, wanted)
    content = {
        "site": target.site.name,
        "gateway": target.name,
        "reading": READING,
        "state": STATE,
        "devices": DEVICES,
        # Who comes from there is the kit, in a device's name.
        "own": sorted(str(a) for network in target.gateway.networks.values() for a in network.addresses),
        "limits": {
            "window": wanted.window_seconds,
            "learning": 3600 * wanted.learning_hours,
            **wanted.thresholds.model_dump(),
        },
        "calm": wanted.calm_seconds,
        "ways": here,
    }
    return [
        rendering.File(SETTINGS, (json.dumps(content, indent=1) + "\n").encode()),
        devices(target),
        *_shown(target, wanted, here),
        *(
            rendering.template(
                "alerts",
                f"/etc/systemd/system/{unit}",
                program=PROGRAM,
                settings=SETTINGS,
                user=service.user,
                folder=Path(STATE).name,
                readers=collector.user,
                broker=here["mqtt"]["address"] if "mqtt" in here else "",
                outside=bool(here.keys() - {"mqtt"}),
            )
            for unit in (UNIT, TIMER)
        ),
    ]


def devices(target: Target) -> rendering.File:
    """The devices of this gateway: what they are, where they are to come from, and when they are silent (seconds)."""
    wanted = target.site.alerts
    after = {
        device.name: wanted.silent_after.of(device.name, device.model) if wanted and device.status == "active" else ""
        for device in target.site.devices_of(target.name)
    }
    found = {
        device.name: {
            "model": device.model,
            "address": str(device.address or ""),
            "silent_after": seconds(after[device.name]) if after[device.name] else 0,
        }
        for device in target.site.devices_of(target.name)
    }
    return rendering.File(DEVICES, json.dumps(found).encode())


def ways(target: Target, wanted: Alerts) -> dict[str, dict[str, Any]]:
    """The ways out of this gateway, as the program reads them."""
    found: dict[str, dict[str, Any]] = {}
    if wanted.mqtt:
        found["mqtt"] = {
            "address": mosquitto.addresses(target)[0],
            "port": target.site.listener(broker.name, "mqtts").port,
            "name": broker_host(target.site),
            "ca": AUTHORITY,
            "client": CLIENT,
            "topic": topic(target.name),
        }
    if wanted.webhook:
        trust = TRUST if wanted.webhook.trust else ""
        found["webhook"] = {"url": wanted.webhook.url, "trust": trust, "secret": SECRET}
    if wanted.email:
        found["email"] = {
            **wanted.email.model_dump(mode="json"),
            "trust": MAIL_TRUST if wanted.email.trust else "",
            "password": PASSWORD,
            "hello": f"{target.name}.{target.site.domain}",
        }
    return found


def _shown(target: Target, wanted: Alerts, here: dict[str, dict[str, Any]]) -> list[rendering.File]:
    """What the ways need besides. Raises `AlertsRefused`."""
    found: dict[str, bytes] = {}
    if "mqtt" in here:
        client = target.pki.client(service.user)
        found = {AUTHORITY: target.pki.trust_anchor, CLIENT: client.chain_pem + client.private_key_pem}
    if wanted.webhook:
        found[SECRET] = secret(target)
        found |= _trusted(TRUST, wanted.webhook.trust, "webhook")
    if wanted.email:
        if EMAIL_PASSWORD not in target.pki.vault:
            command = f"./kit alerts.password --site {target.site.name}"
            raise AlertsRefused(f"{target.site.name}: no password for {wanted.email.server} in the vault ({command})")
        found[PASSWORD] = target.pki.vault.get(EMAIL_PASSWORD)
        found |= _trusted(MAIL_TRUST, wanted.email.trust, "email")
    return [rendering.File(path, content, "root", service.user, 0o640) for path, content in found.items()]


def _trusted(path: str, given: Path | None, way: str) -> dict[str, bytes]:
    """What vouches for a server, where the site names it. Raises `AlertsRefused`."""
    if given is None:
        return {}
    try:
        return {path: given.read_bytes()}
    except OSError as error:
        raise AlertsRefused(f"{given}: {error.strerror} (name a PEM file in the site's alerts, {way}, trust)") from None


def secret(target: Target) -> bytes:
    """What the webhook's messages are signed with; made where there is none yet."""
    return target.pki.vault.obtain(WEBHOOK_SECRET, lambda: password().encode(), "password")
