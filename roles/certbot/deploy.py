"""Installs, configures and activates the certificates of the public CA."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path

from pyinfra import host
from pyinfra.api import StringCommand, deploy, operation

from gatehouse.errors import GatehouseError
from gatehouse.site.pages import hosts
from gatehouse.site.web import Acme
from roles import lifecycle
from roles.certbot import service
from roles.certbot.facts import Due
from roles.differences import differs
from roles.nginx import USER, files
from roles.nginx import service as front
from roles.target import Target

TIMER = service.units[0]
UNIT = "certbot.service"
FOLDER = "/etc/gatehouse/certbot"
SETTINGS, TRUST, ANCHORS, KEY = (f"{FOLDER}/{n}" for n in ("settings.json", "trust.pem", "anchors.pem", "tsig.ini"))
PROGRAM = "/usr/lib/gatehouse/certificates"
HOOK = "/etc/letsencrypt/renewal-hooks/deploy/gatehouse"
STATE = "/var/lib/gatehouse-certificates"
TSIG = "acme/tsig"


@deploy("Certificates of a public CA")
def apply(target: Target) -> None:
    """Install, configure, activate."""
    install()
    configure(target)
    activate(target)


def install() -> None:
    """Debian's certbot."""
    lifecycle.packages(*service.packages, name="Install certbot")


def configure(target: Target) -> None:
    """Which names, which CA, and who uses the certificates."""
    lifecycle.files(
        lifecycle.Directory("/etc/gatehouse"),
        lifecycle.Directory(FOLDER),
        lifecycle.Directory(STATE, mode=0o700),
        *configuration(target),
        name="Configure certbot",
    )


def activate(target: Target) -> None:
    """The timer, and at once what it would do: a name without a certificate is not served."""
    lifecycle.enabled(TIMER, start=True, name="Arm the timer of certificates")
    names = [page.name for page in hosts(target.site, target.name) if page.public]
    if names:
        issued(names, name="Have certificates issued and installed")


@operation()
def issued(names: list[str]) -> Generator[StringCommand, None, None]:
    """As the timer does it, in the same confinement."""
    due = host.get_fact(Due, program=PROGRAM, names=names)
    for line in due:
        differs(host.connector_data, "certificate", line, "to be issued, renewed or installed")
    if due:
        yield StringCommand(
            f"systemctl daemon-reload; systemctl reset-failed {UNIT} 2>/dev/null; systemctl start {UNIT} ||"
            f" {{ journalctl -u {UNIT} -n 30 -o cat --no-pager | grep '^certificates:' | tail -3 >&2; exit 1; }}"
        )


def configuration(target: Target) -> list[lifecycle.File]:
    """Everything of it."""
    acme = target.site.acme or Acme()
    found = [
        lifecycle.File(PROGRAM, Path(__file__).with_name("gateway.py").read_bytes(), mode=0o755),
        lifecycle.File(SETTINGS, json.dumps(settings(target, acme), indent=1).encode() + b"\n"),
        lifecycle.template("certbot", HOOK, mode=0o755, program=PROGRAM),
        lifecycle.template(
            "certbot",
            f"/etc/systemd/system/{UNIT}.d/50-gatehouse.conf",
            program=PROGRAM,
            writes=[files.FOLDER, files.CHALLENGES, STATE],
        ),
    ]
    found += [lifecycle.File(TRUST, acme.trust.read_bytes())] if acme.trust else []
    found += [lifecycle.File(ANCHORS, acme.anchors.read_bytes())] if acme.anchors else []
    if acme.dns:
        if TSIG not in target.pki.vault:
            raise GatehouseError(f"{target.site.name}: no key for DNS updates in the vault (./kit acme.key keeps one)")
        secret = target.pki.vault.get_text(TSIG).strip()
        found.append(lifecycle.template("certbot", KEY, mode=0o600, dns=acme.dns, secret=secret))
    return found


def settings(target: Target, acme: Acme) -> dict[str, object]:
    """What the gateway's program reads; it holds no secret."""
    return {
        "directory": acme.directory,
        "staging": acme.staging,
        "email": acme.email,
        "renew_at": acme.renew_at,
        "dns": acme.dns and {"credentials": KEY, "patience": acme.dns.patience},
        "webroot": files.CHALLENGES,
        "trust": TRUST if acme.trust else None,
        "anchors": ANCHORS if acme.anchors else None,
        "folder": "/etc/letsencrypt",
        "state": STATE,
        "names": {page.name: [consumer(page.name)] for page in hosts(target.site, target.name) if page.public},
    }


def consumer(name: str) -> dict[str, object]:
    """Who uses the certificate of a name, how it is made to read it, and what shows that it has."""
    return {
        "folder": f"{files.CERTIFICATES}/{name}",
        "group": USER,
        "enables": [f"{files.ENABLED}/{name}.conf", f"{files.NAMES}/{name}.conf"],
        "reloads": ["systemctl", "reload", front.units[0]],
        "proves": [files.PROVE, name],
    }
