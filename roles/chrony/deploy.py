"""Installs, configures and activates chrony."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import deploy

from gatehouse.site import INTERNET
from roles import lifecycle
from roles.chrony import service
from roles.chrony.facts import Contained
from roles.target import Target

UNIT = service.units[0]
CONFIGURATION = "/etc/chrony/chrony.conf"
SANDBOX = f"/etc/systemd/system/{UNIT}.d/50-gatehouse.conf"
LOADS = (CONFIGURATION, SANDBOX)
TRIED = f"{CONFIGURATION}.gatehouse-tried"
# Beside it: Debian's AppArmor profile lets chronyd read nothing that lies elsewhere.
CHECK = (
    f'cp -- "$STAGED"{CONFIGURATION} {TRIED} && /usr/sbin/chronyd -p -f {TRIED} >/dev/null;'
    f" set -- $?; rm -f {TRIED}; [ $1 -eq 0 ]"
)


@deploy("Time")
def apply(target: Target) -> None:
    """Install, configure, activate."""
    install()
    configure(target)
    activate()


def install() -> None:
    """chrony replaces systemd-timesyncd, which can't serve others."""
    lifecycle.packages(*service.packages, name="Install chrony")


def configure(target: Target) -> None:
    """Own servers, and service for the segments that the declaration names."""
    lifecycle.files(
        configuration(target),
        sandbox(contained=host.get_fact(Contained)),
        lifecycle.stamped(UNIT, LOADS, reloads=False),
        name="Configure chrony",
        check=CHECK,
    )


def activate() -> None:
    """A restart: chronyd reads its configuration only then."""
    lifecycle.running(UNIT, loads=LOADS, name="Run chrony", prove="chronyc -n tracking >/dev/null")


def configuration(target: Target) -> lifecycle.File:
    """What chronyd reads."""
    reach = target.service("chrony").listener("ntp").reachable_from
    networks = target.gateway.networks
    return lifecycle.template(
        "chrony",
        CONFIGURATION,
        time=target.site.time,
        served=[p for s, n in networks.items() if s in reach and s != INTERNET for p in n.prefixes],
    )


def sandbox(contained: bool) -> lifecycle.File:
    """The unit's confinement; in a container (`contained`) the clock is the machine's underneath."""
    return lifecycle.template("chrony", SANDBOX, contained=contained)
