"""Installs what every role needs on the gateway."""

from __future__ import annotations

from pyinfra.api import deploy

from roles import lifecycle, undo
from roles.base import (
    FOR_ROOT_ALONE,
    GUARDED,
    GUARDS,
    NEW_ACCOUNTS,
    PROFILES,
    SHORTEST_PASSWORDS,
    service,
    version,
)
from roles.base.operations import defined, for_root_alone, guarded, passwords_judged, without_cores
from roles.target import Target

UNDO = "gatehouse-undo.service"
# What a person reads before logging in: at the console, and by SSH (role `ssh`).
NOTICES = ("/etc/issue", "/etc/issue.net")
# What holds for a person's shell, and for every program's core dumps.
LOGINS = (
    "/etc/profile.d/gatehouse.sh",
    "/etc/security/limits.d/50-gatehouse.conf",
    "/etc/systemd/system.conf.d/50-gatehouse.conf",
    "/etc/systemd/coredump.conf.d/50-gatehouse.conf",
)


@deploy("Base")
def apply(target: Target) -> None:
    """Install, configure, activate."""
    install(target)
    configure()
    logins()
    accounts(target)
    activate()


def install(target: Target) -> None:
    """The packages of every role in one transaction: one run of apt instead of one a role."""
    wanted = {package for role in target.site.services_of(target.name) for package in role.packages}
    lifecycle.packages(*sorted({*service.packages, *wanted}), name="Install Debian packages")


def configure() -> None:
    """The kit's tools, where it keeps what it must remember, and which state of the kit this gateway has."""
    lifecycle.files(
        lifecycle.Directory("/usr/lib/gatehouse"),
        lifecycle.Directory("/var/lib/gatehouse", mode=0o700),
        lifecycle.Directory(undo.PENDING, mode=0o700),
        lifecycle.template("base", lifecycle.STAMP, mode=0o755, loaded=lifecycle.LOADED),
        lifecycle.template("base", f"/etc/systemd/system/{UNDO}", pending=undo.PENDING),
        lifecycle.File(version.FILE, version.of_checkout().encode()),
        name="Install the kit's tools",
    )


def logins() -> None:
    """What accounts and logins are held to, whoever they are of."""
    lifecycle.files(
        *(lifecycle.template("base", "/etc/issue.net", to=path) for path in NOTICES),
        *(lifecycle.template("base", path) for path in LOGINS),
        *(lifecycle.template("base", f"/usr/share/pam-configs/{name}", **GUARDS) for name in PROFILES),
        name="Configure logins",
    )
    defined(NEW_ACCOUNTS, name="Configure new accounts")
    passwords_judged(SHORTEST_PASSWORDS, name="Have weak passwords refused")
    guarded(PROFILES, GUARDED, name="Have guesses counted and former passwords refused")
    for_root_alone(FOR_ROOT_ALONE, name="Keep root's jobs to root")


def accounts(target: Target) -> None:
    """The accounts that the firewall will speak of, before it does."""
    named = {a for s in target.site.services_of(target.name) for o in s.listeners for a in o.accounts}
    lifecycle.accounts(*sorted(named - {"root"}), name="Make the accounts of the kit's services")


def activate() -> None:
    """Only enabled: it acts at the next start, if a change was left unconfirmed. The limit holds from now on."""
    lifecycle.enabled(UNDO, name="Undo unconfirmed changes at start")
    without_cores(name="Start services without core dumps")
