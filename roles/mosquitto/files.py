"""What the broker's role puts on a gateway; `deploy` installs and activates it, `invoke revoke` brings a part of it."""

from __future__ import annotations

from pathlib import Path

from gatehouse.identity import programs, psk
from gatehouse.identity.pins import broker_certificate
from gatehouse.proof.credentials import CUT_OFF
from gatehouse.site import Program
from gatehouse.site.alerts import topic
from roles import rendering
from roles.apparmor import profile
from roles.mosquitto import service
from roles.nftables import service as nftables
from roles.target import Target

UNIT = service.units[0]
CONFIGURATION = "/etc/mosquitto/conf.d/gatehouse.conf"
CREDENTIALS = "/etc/mosquitto/gatehouse"
OPENSSL = "/etc/mosquitto/openssl.cnf"
SANDBOX = f"/etc/systemd/system/{UNIT}.d/50-gatehouse.conf"
# What SIGHUP makes the broker read again (mosquitto(8), "Signals"), and what only a start does.
REREAD = tuple(f"{CREDENTIALS}/{name}" for name in ("acl", "crl.pem", "passwords", "psk", "server.crt", "server.key"))
READ_AT_START = (CONFIGURATION, OPENSSL, SANDBOX, f"{CREDENTIALS}/ca.crt")
LOADS = (*READ_AT_START, *REREAD)
GUARD = "/usr/lib/gatehouse/mosquitto-guard"
DISCONNECT = "/usr/lib/gatehouse/mosquitto-disconnect"
EXCHANGE = "/usr/lib/gatehouse/mosquitto-exchange"
SEEN = "/usr/lib/gatehouse/mosquitto-seen"
CHECK = f'python3 -B "$STAGED"{GUARD} check "$STAGED"'


def addresses(target: Target) -> list[str]:
    """Where the broker listens. Without any `listener` it would open 1883, so there is always one."""
    return target.listens_on(service.name, "mqtts") or ["127.0.0.1"]


def tools() -> list[rendering.File]:
    """The programs that the operator's commands run there."""
    scripts = {DISCONNECT: "disconnect.py", EXCHANGE: "exchange.py", SEEN: "seen.py"}
    here = Path(__file__)
    return [rendering.File(path, here.with_name(name).read_bytes(), mode=0o755) for path, name in scripts.items()]


def passwords(target: Target) -> list[tuple[str, int]]:
    """Where programs say their names with a password: (address, port); nowhere unless the site has programs."""
    return _places(target, "passwords") if target.site.programs else []


def keyed(target: Target) -> list[tuple[str, int]]:
    """Where devices show a pre-shared key: (address, port); nowhere unless the site says so."""
    return _places(target, "psk") if target.site.psk else []


def _places(target: Target, listener: str) -> list[tuple[str, int]]:
    port = target.site.listener(service.name, listener).port
    return [(address, port) for address in target.listens_on(service.name, listener)]


def configuration(target: Target) -> list[rendering.File]:
    """What holds no secret and is the same for ten devices and ten thousand."""
    broker = target.site.broker
    stamp = " ".join([rendering.STAMP, UNIT, *LOADS])
    firewall = nftables.units[0]
    return [
        *_guard(),
        rendering.template(
            "mosquitto",
            CONFIGURATION,
            broker=broker,
            credentials=CREDENTIALS,
            port=target.site.listener(service.name, "mqtts").port,
            addresses=addresses(target),
            passwords=passwords(target),
            keyed=keyed(target),
        ),
        acl(target),
        rendering.template("mosquitto", OPENSSL),
        rendering.template(
            "mosquitto",
            SANDBOX,
            broker=broker,
            configuration=CONFIGURATION,
            openssl=OPENSSL,
            stamp=stamp,
            firewall=firewall,
            profile=profile(service.name),
        ),
    ]


def _guard() -> list[rendering.File]:
    """The program, and beside it what it consists of."""
    here, parts = Path(__file__), f"{Path(GUARD).parent}/mosquitto/guard"
    return [
        rendering.File(GUARD, here.with_name("mosquitto_guard.py").read_bytes(), mode=0o755),
        *(rendering.File(f"{parts}/{part.name}", part.read_bytes()) for part in sorted(here.parent.glob("guard/*.py"))),
    ]


def acl(target: Target) -> rendering.File:
    """Patterns for all devices, and a few lines for each one in quarantine: one of the compliance suite always is."""
    quarantined = [CUT_OFF, *(d.name for d in target.site.devices_of(target.name) if d.status == "quarantined")]
    return rendering.template(
        "mosquitto",
        f"{CREDENTIALS}/acl",
        group=service.user,
        mode=0o640,
        quarantined=quarantined,
        programs=_rights(target),
        coap=target.site.coap is not None,
        alerts=topic(target.name) if target.site.alerts and target.site.alerts.mqtt else "",
    )


def _rights(target: Target) -> dict[str, Program]:
    """What programs may do, by the names that they say; the compliance suite has a topic of its own."""
    named = target.site.programs
    probe = {programs.PROBE: Program(reads=(f"{programs.PROBE}/#",), writes=(f"{programs.PROBE}/#",))} if named else {}
    return {programs.user_name(name): program for name, program in {**named, **probe}.items()}


def credentials(target: Target) -> list[rendering.File]:
    """The broker's own identity, and whom it trusts: the devices that the site's PKI made and has not revoked."""
    server = broker_certificate(target.pki, target.site, target.name)
    contents = {
        "ca.crt": target.pki.trust_chain_for_devices(),
        "crl.pem": target.pki.crl(),
        "server.crt": server.chain_pem,
        "server.key": server.private_key_pem,
        "passwords": programs.password_file(target.pki.vault, target.site.programs),
        # Of this gateway's devices only: who takes it has no other gateway's.
        "psk": psk.key_file(target.pki.vault, target.site.devices_of(target.name)) if target.site.psk else b"",
    }
    return [
        rendering.File(f"{CREDENTIALS}/{name}", content, group=service.user, mode=0o640)
        for name, content in contents.items()
    ]
