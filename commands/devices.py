"""Devices, from their identity to their end: `enroll`, `bundle`, `devices`, `renew`, `quarantine`, …"""

from __future__ import annotations

import datetime
import sys
from json import dumps
from pathlib import Path

from invoke import Context, task

from commands import common
from commands.common import SITE, told

NAMED = {**SITE, "name": "the device; more than once for several"}


@task(
    help={
        **SITE,
        "name": "the new device's name: a to z, 0 to 9 and '-'",
        "model": "what it is, such as esp32-sht31",
        "gateway": "the gateway that it is behind (not needed where there is one)",
        "segment": "its segment (default: iot)",
        "hardware-address": "its MAC address",
        "address": "its fixed IPv4 address",
        "csr": "its certificate request (PEM or DER), when its key never leaves it",
        "psk": "it can't do X.509: give it a pre-shared key, and no certificate",
        "from": "a CSV file with many devices: name,model,gateway,segment,hardware_address,address,csr,authentication",
        "keep-going": "enrol the good lines of the list and report the others",
        "nvs": "also make the ESP-IDF partition nvs.bin",
    }
)
@told
def enroll(
    _: Context,
    site: str = "lab",
    name: str = "",
    model: str = "",
    gateway: str = "",
    segment: str = "",
    hardware_address: str = "",
    address: str = "",
    csr: str = "",
    psk: bool = False,
    from_: str = "",
    keep_going: bool = False,
    nvs: bool = False,
) -> None:
    """Give a device, or each of a list, its identity: certificate, HMAC key, registry entry, bundle in out/SITE/."""
    from deploy import enrolment

    where = common.site(site)
    if bool(name) == bool(from_):
        sys.exit("enroll: name one device (--name NAME --model MODEL) or a list of them (--from FILE)")
    if from_:
        if psk:
            sys.exit("enroll: --psk is for one device; in a list the column `authentication` says psk")
        outcome = enrolment.enrol_list(where, Path(from_), keep_going, nvs)
    else:
        facts = [name, model, gateway, segment, hardware_address, address]
        kind = "psk" if psk else None
        request = enrolment.Request(*(fact or None for fact in facts), authentication=kind)
        outcome = enrolment.enrol_one(where, request, csr, nvs)
    for refusal in outcome.refused:
        print(refusal, file=sys.stderr)
    place = enrolment.shown(enrolment.bundles_path(where) / name)
    print(
        f"{len(outcome.enrolled)} enrolled, {len(outcome.already)} were before, {len(outcome.refused)} refused: {place}"
    )
    sys.exit(1 if outcome.refused else 0)


@task(iterable=["name"], help={**NAMED, "nvs": "also make the ESP-IDF partition nvs.bin"})
@told
def bundle(_: Context, name: list[str], site: str = "lab", nvs: bool = False) -> None:
    """Bring a device's bundle up to date, such as the pins of the broker."""
    from deploy import enrolment

    print(*enrolment.refresh(common.site(site), name, nvs), sep="\n")


@task(help={**SITE, "json": "print JSON instead of the table"})
@told
def devices(_: Context, site: str = "lab", json: bool = False) -> None:
    """List a site's devices: status, age of the certificate and days left, when they were last seen."""
    from deploy.lastseen import last_seen
    from gatehouse.identity import roster

    where = common.site(site)
    moments, notes = last_seen(where)
    rows = roster.rows(where.devices, datetime.datetime.now(datetime.UTC), moments)
    print(dumps(rows, indent=1) if json else "\n".join(roster.table(rows)), flush=True)
    print(*notes, sep="\n", end="\n" * bool(notes), file=sys.stderr)


@task(
    iterable=["name"],
    help={
        **SITE,
        "name": "only this device, due or not; more than once for several",
        "json": "print JSON instead of the summary",
    },
)
@told
def renew(_: Context, name: list[str], site: str = "lab", json: bool = False) -> None:
    """Sign what devices past two thirds of their certificate's life ask for, and retire what they have left."""
    from deploy import renewals

    outcome = renewals.renew(common.site(site), name)
    print(dumps(vars(outcome), indent=1) if json else "\n".join(outcome.table()))
    sys.exit(0 if outcome.succeeded else 1)


@task(iterable=["name"], help=NAMED)
@told
def quarantine(_: Context, name: list[str], site: str = "lab") -> None:
    """Suspected: cut a device from everything but what diagnosis needs, until it is released."""
    from deploy import devices

    devices.quarantine(common.site(site), name, print)


@task(iterable=["name"], help=NAMED)
@told
def release(_: Context, name: list[str], site: str = "lab") -> None:
    """Take a device out of quarantine."""
    from deploy import devices

    devices.release(common.site(site), name, print)


@task(iterable=["name"], help=NAMED)
@told
def revoke(_: Context, name: list[str], site: str = "lab") -> None:
    """Lost or stolen: refuse a device and end its session, now and for good."""
    from deploy import devices

    devices.revoke(common.site(site), name, print)
