"""What the CoAP endpoint's role puts on a gateway; `deploy` activates it, `invoke revoke` brings whom it lets in."""

from __future__ import annotations

import json
from pathlib import Path

import gatehouse
from gatehouse.identity.pins import broker_host, coap_host
from gatehouse.proof.credentials import OTHER_PROBE, PROBE
from gatehouse.site.coap import Coap
from roles import rendering
from roles.coap import service
from roles.mosquitto import files as mosquitto
from roles.nftables import service as nftables
from roles.target import Target

UNIT = service.units[0]
UNIT_FILE = f"/etc/systemd/system/{UNIT}"
FOLDER = "/etc/gatehouse/coap"
SETTINGS, DEVICES = f"{FOLDER}/settings.json", f"{FOLDER}/devices.json"
CERTIFICATE, KEY, TRUST = f"{FOLDER}/server.crt", f"{FOLDER}/server.key", f"{FOLDER}/devices.pem"
AUTHORITY, CLIENT = f"{FOLDER}/ca.pem", f"{FOLDER}/client.pem"
METRICS = "/run/gatehouse-coap/metrics.prom"
STATE = "/var/lib/gatehouse-coap"
SEEN = f"{STATE}/seen.json"
PROGRAM, LIBRARY = "/usr/lib/gatehouse/coap", "/usr/lib/gatehouse/python"
PACKAGES = (LIBRARY, *(f"{LIBRARY}/gatehouse{part}" for part in ("", "/coap", "/messages")))
# Of the messages' part of the library: what it publishes with, and how topics are read.
SHARED = ("__init__", "counts", "forms", "mqtt", "refusal", "replay", "topics")
# Its own certificate, whom it trusts and who is a device it reads again when they change, the others only at a start.
READ_AT_START = (SETTINGS, AUTHORITY, CLIENT, UNIT_FILE, PROGRAM)
CHECK = f'python3 -I "$STAGED"{PROGRAM} --check "$STAGED"'
CONNECTED = f"timeout 20 sh -c \"until grep -qs '^gatehouse_coap_connected 1' {METRICS}; do sleep 0.2; done\""
LOOKS_WITHIN = 3  # seconds, on a busy gateway
# The suite's own devices, which live for minutes.
PROBES = (PROBE, OTHER_PROBE)


def on(target: Target) -> bool:
    """Whether this gateway has an endpoint."""
    return target.name in target.site.gateways_with(service.name)


def loads() -> tuple[str, ...]:
    """What the unit notes at its start: its files and the program's."""
    return (*READ_AT_START, *(file.path for file in library()))


def program() -> list[rendering.File]:
    """What runs: the library, and its start."""
    return [*library(), rendering.template("coap", PROGRAM, mode=0o755, library=LIBRARY)]


def library() -> list[rendering.File]:
    """The part of the kit's library that runs on the gateway; it needs Debian's Python and pyOpenSSL."""
    root = Path(gatehouse.__file__).parent
    sources = [root / "__init__.py", root / "errors.py", *sorted((root / "coap").glob("*.py"))]
    sources += [root / "messages" / f"{name}.py" for name in SHARED]
    return [rendering.File(f"{LIBRARY}/gatehouse/{s.relative_to(root)}", s.read_bytes()) for s in sources]


def configuration(target: Target) -> list[rendering.File]:
    """Where it listens, where the broker is, and what is shown there."""
    site, client = target.site, target.pki.client(service.user)
    limits = site.coap or Coap()
    reach = [s for s in site.listener(service.name, "coaps").reachable_from if s in target.gateway.networks]
    broker = mosquitto.addresses(target)[0]
    settings = {
        "listen": listens_at(target),
        "certificate": CERTIFICATE,
        "key": KEY,
        "trust": TRUST,
        "devices": DEVICES,
        "broker": {
            "address": broker,
            "port": site.listener(mosquitto.service.name, "mqtts").port,
            "name": broker_host(site),
            "ca": AUTHORITY,
            "client": CLIENT,
            "user": service.user,
            "window": site.broker.max_inflight_messages,
        },
        "max_sessions": limits.max_sessions,
        "idle_seconds": limits.idle_seconds,
        "metrics": METRICS,
        "seen": SEEN,
    }
    return [
        _own(SETTINGS, json.dumps(settings, indent=1).encode() + b"\n"),
        _own(AUTHORITY, target.pki.trust_anchor),
        _own(CLIENT, client.chain_pem + client.private_key_pem),
        rendering.template(
            "coap",
            UNIT_FILE,
            program=PROGRAM,
            settings=SETTINGS,
            user=service.user,
            folder=Path(STATE).name,
            peers=[broker, *(str(prefix) for s in reach for prefix in target.gateway.networks[s].prefixes)],
            firewall=nftables.units[0],
        ),
    ]


def listens_at(target: Target) -> list[tuple[str, int]]:
    """Where devices reach it: (address, port)."""
    port = target.site.listener(service.name, "coaps").port
    return [(address, port) for address in target.listens_on(service.name, "coaps") or ["127.0.0.1"]]


def server_name(target: Target) -> str:
    """What its own certificate is called in the vault."""
    return f"{service.name}-{target.name}"[:64]


def certificate(target: Target) -> list[rendering.File]:
    """Its own certificate, for the names and addresses at which devices reach it."""
    names = [coap_host(target.site), f"{target.name}.{target.site.domain}"]
    server = target.pki.server(server_name(target), names, target.listens_on(service.name, "coaps"))
    return [_own(CERTIFICATE, server.chain_pem), _own(KEY, server.private_key_pem)]


def admission(target: Target) -> list[rendering.File]:
    """Whom it trusts: the devices that the site's PKI made and has not revoked; and of these, this gateway's."""
    active = sorted(device.name for device in target.site.devices_of(target.name) if device.status == "active")
    names = json.dumps([*active, *PROBES], indent=0).encode() + b"\n"
    return [_own(TRUST, target.pki.trust_chain_for_devices() + target.pki.crl()), _own(DEVICES, names)]


def _own(path: str, content: bytes) -> rendering.File:
    return rendering.File(path, content, "root", service.user, 0o640)
