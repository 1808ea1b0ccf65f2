"""Installs, configures and activates the broker."""

from __future__ import annotations

from pathlib import Path

from pyinfra.api import deploy

from gatehouse.identity.pins import broker_certificate
from roles import lifecycle, nftables
from roles.mosquitto import service
from roles.target import Target

UNIT = service.units[0]
CONFIGURATION = "/etc/mosquitto/conf.d/gatehouse.conf"
CREDENTIALS = "/etc/mosquitto/gatehouse"
SANDBOX = f"/etc/systemd/system/{UNIT}.d/50-gatehouse.conf"
# What SIGHUP makes the broker read again (mosquitto(8), "Signals"), and what only a start does.
REREAD = tuple(f"{CREDENTIALS}/{name}" for name in ("acl", "crl.pem", "server.crt", "server.key"))
READ_AT_START = (CONFIGURATION, SANDBOX, f"{CREDENTIALS}/ca.crt")
LOADS = (*READ_AT_START, *REREAD)
GUARD = "/usr/lib/gatehouse/mosquitto-guard"
DISCONNECT = "/usr/lib/gatehouse/mosquitto-disconnect"
CHECK = f'python3 "$STAGED"{GUARD} check "$STAGED"'
# The log is in the journal: nothing to rotate, and nobody would read what the broker says after this job's reload.
NIGHT_JOB = "/etc/logrotate.d/mosquitto"


@deploy("Broker")
def apply(target: Target) -> None:
    """Install, configure, activate."""
    install()
    configure(target)
    activate()


def install() -> None:
    """Debian's broker; its own configuration, which listens in the clear, is never started."""
    lifecycle.packages(*service.packages, name="Install mosquitto")
    lifecycle.absent(NIGHT_JOB, name="Leave the broker's log to the journal")


def configure(target: Target) -> None:
    """The whole set at once: a broker was started on it, in private, before any of it is replaced."""
    lifecycle.files(
        lifecycle.Directory(CREDENTIALS, group=service.user, mode=0o750),
        lifecycle.File(DISCONNECT, Path(__file__).with_name("disconnect.py").read_bytes(), mode=0o755),
        *configuration(target),
        *credentials(target),
        name="Configure mosquitto",
        check=CHECK,
    )


def activate() -> None:
    """A reload where that is enough; the broker must then show whom it turns away, or its former files come back."""
    lifecycle.running(
        UNIT,
        loads=LOADS,
        reload=f"{GUARD} reload",
        prove=f"{GUARD} prove",
        undo=f"{GUARD} restore",
        name="Run mosquitto",
    )


def addresses(target: Target) -> list[str]:
    """Where the broker listens. Without any `listener` it would open 1883, so there is always one."""
    return target.listens_on(service.name, "mqtts") or ["127.0.0.1"]


def configuration(target: Target) -> list[lifecycle.File]:
    """What holds no secret and is the same for ten devices and ten thousand."""
    broker = target.site.broker
    stamp = " ".join([lifecycle.STAMP, UNIT, *LOADS])
    firewall = nftables.service.units[0]
    return [
        lifecycle.File(GUARD, Path(__file__).with_name("guard.py").read_bytes(), mode=0o755),
        lifecycle.template(
            "mosquitto",
            CONFIGURATION,
            broker=broker,
            credentials=CREDENTIALS,
            port=target.site.listener(service.name, "mqtts").port,
            addresses=addresses(target),
        ),
        acl(target),
        lifecycle.template(
            "mosquitto", SANDBOX, broker=broker, configuration=CONFIGURATION, stamp=stamp, firewall=firewall
        ),
    ]


def acl(target: Target) -> lifecycle.File:
    """Patterns for all devices, and a few lines for each one in quarantine."""
    quarantined = [d.name for d in target.site.devices_of(target.name) if d.status == "quarantined"]
    return lifecycle.template(
        "mosquitto", f"{CREDENTIALS}/acl", group=service.user, mode=0o640, quarantined=quarantined
    )


def credentials(target: Target) -> list[lifecycle.File]:
    """The broker's own identity, and whom it trusts: the devices that the site's PKI made and has not revoked."""
    server = broker_certificate(target.pki, target.site, target.name)
    contents = {
        "ca.crt": target.pki.trust_chain_for_devices(),
        "crl.pem": target.pki.crl(),
        "server.crt": server.chain_pem,
        "server.key": server.private_key_pem,
    }
    return [
        lifecycle.File(f"{CREDENTIALS}/{name}", content, group=service.user, mode=0o640)
        for name, content in contents.items()
    ]
