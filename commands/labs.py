"""`lab.*`: the lab, and what plays in it."""

from __future__ import annotations

import sys
from typing import Any

from invoke import Context, task

from commands import common
from commands.common import told
from gatehouse.site import Site


def build(site: Site) -> None:
    """Builds or repairs the lab of a site, with a vault of its own."""
    import lab
    from deploy import vaults

    lab.up(lab.from_site(site, lab.name_of(site)))
    vaults.prepare_lab(site)


def enrol(site: Site) -> Site:
    """Gives an identity to the devices that the lab plays; returns the site with them."""
    from deploy import enrolment
    from lab import simulator

    known = {device.name: device for device in site.devices}
    for name in simulator.few(site):
        if known[name].hmac_key is None:
            enrolment.enrol_one(site, enrolment.Request(name, known[name].model), "", False)
    return common.site(site.name)


def publish(site: Site) -> None:
    """Puts firmware on the lab's update server, so that the checks have something to look at."""
    from lab import firmware

    firmware.offer(site, lambda line: print(f"lab: {line}", flush=True))


def report(site: Site) -> None:
    """Has these devices report in the background, if they don't yet."""
    from deploy import vaults
    from lab import simulator

    names = simulator.few(site)
    if simulator.start(site, vaults.open_pki(site), names):
        print(f"lab: {', '.join(names)} report every {simulator.INTERVAL:.0f} s", flush=True)


VM = {"vm": "the lab of virtual machines, which plays the site lab-vm"}


def _lab(vm: bool) -> tuple[Any, str]:
    """What manages the usual lab, or that of virtual machines, and its name."""
    import lab
    from lab.vm import manage

    return (manage if vm else lab), lab.name_of(common.site("lab-vm" if vm else "lab"))


@task(help=VM)
@told
def up(_: Context, vm: bool = False) -> None:
    """Build the lab, or repair what is left of it."""
    build(common.site("lab-vm" if vm else "lab"))


@task(help=VM)
@told
def down(_: Context, vm: bool = False) -> None:
    """Remove the lab: its hosts, interfaces, keys. The images stay."""
    kind, name = _lab(vm)
    kind.down(name)


@task(help=VM)
@told
def status(_: Context, vm: bool = False) -> None:
    """List the lab's hosts; exit status 1 if there is no lab."""
    kind, name = _lab(vm)
    rows = kind.status(name)
    for row in rows:
        print(f"{row.host:12} {row.kind:9} {row.status:9} {row.segment:11} {' '.join(row.addresses)}")
    if not rows:
        sys.exit(f"there is no lab (`invoke lab.up{' --vm' * vm}` builds one)")


@task(
    positional=["host"],
    help={**VM, "host": "the lab's host, for example: gateway, device, guest; with --vm also: operator, field"},
)
@told
def shell(_: Context, host: str, vm: bool = False) -> None:
    """Open a shell on a host of the lab."""
    kind, name = _lab(vm)
    sys.exit(kind.shell(name, host))


STATE = {"name": "what the state is called (default: kept)"}


@task(help=STATE)
@told
def save(_: Context, name: str = "kept") -> None:
    """Keep the state of the running lab of virtual machines, to go back to: for trying things, never for a verdict."""
    kind, where = _lab(True)
    kind.save(where, name)


@task(help=STATE)
@told
def restore(_: Context, name: str = "kept") -> None:
    """Go back to a kept state of the lab of virtual machines, within seconds."""
    kind, where = _lab(True)
    kind.restore(where, name)
