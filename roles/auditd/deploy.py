"""Installs auditd, configures it, and gives the kernel its rules."""

from __future__ import annotations

from functools import partial

from pyinfra.api import deploy

from roles import lifecycle
from roles.auditd import CONFIGURATION, FILES, FOLDER, LOADER, LOGS, MEGABYTES, RULES, UNIT, service
from roles.auditd.operations import audited, locked
from roles.target import Target

# Debian's own rules: one that makes every program wait for a minute where the records find no room.
DEBIANS = f"{FOLDER}/rules.d/audit.rules"
# The journal would keep each record a second time.
JOURNALS = "systemd-journald-audit.socket"


@deploy("Audit")
def apply(target: Target) -> None:
    """Install, configure, activate."""
    install()
    configure()
    activate()


def install() -> None:
    """The daemon, and what gives rules to the kernel."""
    lifecycle.packages(*service.packages, name="Install auditd")


def configure() -> None:
    """What is recorded, how much of it is kept, and that nothing of it is started in a container."""
    lifecycle.files(
        lifecycle.Directory(FOLDER, mode=0o750),
        lifecycle.Directory(f"{FOLDER}/rules.d", mode=0o750),
        # The kernel takes no rule for a folder that is not there.
        lifecycle.Directory("/etc/gatehouse"),
        configuration(),
        rules(),
        *(lifecycle.template("auditd", drop_in(UNIT), to=drop_in(unit)) for unit in (UNIT, LOADER)),
        lifecycle.stamped(UNIT, [CONFIGURATION], reloads=False),
        name="Configure auditd",
    )
    lifecycle.absent(DEBIANS, name="Remove Debian's rules")


def activate() -> None:
    """auditd keeps what the kernel records, and the kernel has the declared rules, locked; nothing in a container."""
    audited(partial(lifecycle.stopped._inner, JOURNALS), name="Keep audit records out of the journal")
    audited(
        partial(lifecycle.running._inner, UNIT, loads=[CONFIGURATION]),
        otherwise=partial(lifecycle.enabled._inner, UNIT),
        name="Run auditd",
    )
    audited(partial(locked, rules()), name="Give the kernel the rules, and lock them")


def configuration() -> lifecycle.File:
    """What auditd reads."""
    return lifecycle.template("auditd", CONFIGURATION, mode=0o640, logs=LOGS, megabytes=MEGABYTES, files=FILES)


def rules() -> lifecycle.File:
    """What the kernel records."""
    return lifecycle.template("auditd", RULES, mode=0o640, logs=LOGS)


def drop_in(unit: str) -> str:
    """Where what the kit adds to a unit of Debian's lies."""
    return f"/etc/systemd/system/{unit}.d/50-gatehouse.conf"
