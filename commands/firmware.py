"""`firmware.*`: firmware from its signature to the devices, and the devices' own hardening."""

from __future__ import annotations

import sys
from json import dumps
from pathlib import Path

from invoke import Context, task

from commands import common
from commands.common import SITE, told

MODEL = {"model": "the devices' model, as in the registry"}
HARDENING = {
    "profile": "release (for devices that leave the desk) or development, which burns nothing (default: release)",
    "bluetooth": "the device needs Bluetooth",
}


@task(
    help={
        **SITE,
        "replace": "current or backup: make a new backup key for it; every model then needs a release",
        "force": "even if devices of a model that had no release since the last time are lost by it",
    },
)
@told
def keys(_: Context, site: str = "lab", replace: str = "", force: bool = False) -> None:
    """Make the two keys that firmware is signed with, once, and print what goes into devices."""
    from deploy import firmware

    for line in firmware.make_keys(common.site(site), replace, force):
        print(line)


@task(
    positional=["image"],
    help={
        **SITE,
        "image": "the file to be signed",
        "model": "the devices' model, as in the registry",
        "version": "its version; an ESP-IDF application that names another one is refused",
        "expires": "how long devices take it: hours, days or weeks (default: 90d)",
        "min-counter": "the counter of the release that devices must have before this one",
        "rollout": "the share of the devices that get it (default: 100%)",
        "device": "for this one device only",
        "downgrade": "the version goes back on purpose",
    },
)
@told
def sign(
    _: Context,
    image: str,
    model: str,
    version: str,
    site: str = "lab",
    expires: str = "90d",
    min_counter: int = 0,
    rollout: str = "100%",
    device: str = "",
    downgrade: bool = False,
) -> None:
    """Sign an image for the devices of a model; sign it again to change its expiry or its share."""
    from deploy import firmware

    where = common.site(site)
    for line in firmware.sign_image(
        where, Path(image), model, version, expires, min_counter, rollout, device, downgrade
    ):
        print(line)


@task(positional=["manifest"], help={**SITE, "manifest": "the file", "image": "compare it with this image"})
@told
def show(_: Context, manifest: str, site: str = "lab", image: str = "") -> None:
    """Verify a manifest's signature with the site's keys, and print what it says."""
    from deploy import firmware

    for line in firmware.show(common.site(site), Path(manifest), image):
        print(line)


@task(
    help={
        **SITE,
        **MODEL,
        "version": "what `firmware.sign` was given",
        "rollout": "sign it again first, for this share of the devices",
    },
)
@told
def publish(_: Context, model: str, version: str, site: str = "lab", rollout: str = "") -> None:
    """Bring signed firmware to the update servers of the site's gateways."""
    from deploy import publishing

    publishing.publish(common.site(site), model, version, print, rollout)


@task(
    help={**SITE, **MODEL, "version": "the published release", "share": "of the devices, such as 50%"},
)
@told
def rollout(_: Context, model: str, version: str, share: str, site: str = "lab") -> None:
    """Let more of a model's devices have a release, or fewer: signs its manifest again and publishes it."""
    from deploy import publishing

    publishing.publish(common.site(site), model, version, print, share)


@task(help={**SITE, **MODEL})
@told
def withdraw(_: Context, model: str, site: str = "lab") -> None:
    """Take a model's firmware off the update servers; devices that have it keep it."""
    from deploy import publishing

    publishing.withdraw(common.site(site), model, print)


@task(help=SITE)
@told
def published(_: Context, site: str = "lab") -> None:
    """Show what the update servers offer, and what of it devices would refuse."""
    from deploy import publishing

    for line in publishing.published(common.site(site)):
        print(line)


@task(
    help={
        **SITE,
        "halt": "halt a roll-out of which too many fail (--no-halt: only look)",
        "json": "print JSON instead of the table",
    },
)
@told
def status(_: Context, site: str = "lab", halt: bool = True, json: bool = False) -> None:
    """Show who runs which firmware, who failed and who is silent; halt what too many fail of. Status 2: have a look."""
    from deploy import firmwarestatus

    seen = firmwarestatus.look(common.site(site), halt)
    shown = dumps(firmwarestatus.document(seen), indent=1) if json else "\n".join(firmwarestatus.table(seen))
    print(shown, flush=True)
    print(*seen.notes, sep="\n", end="\n" * bool(seen.notes), file=sys.stderr)
    sys.exit(seen.status)


@task(
    help={
        **HARDENING,
        "model": "the devices' model",
        "chip": "ESP-IDF's target: esp32, esp32s3, esp32c3, … (default: esp32)",
        "output": "the file to be written (default: sdkconfig.defaults)",
        "yes": "replace a file that is there",
    },
)
@told
def harden(
    _: Context,
    model: str,
    chip: str = "esp32",
    profile: str = "release",
    bluetooth: bool = False,
    output: str = "sdkconfig.defaults",
    yes: bool = False,
) -> None:
    """Write sdkconfig.defaults for an ESP32 that others can lay hands on; each line says why, and what it costs."""
    from deploy import esp32

    print(esp32.write_defaults(Path(output), model, profile, chip, bluetooth, yes))


@task(positional=["sdkconfig"], help={**HARDENING, "sdkconfig": "what `idf.py build` has written"})
@told
def check_config(_: Context, sdkconfig: str, profile: str = "release", bluetooth: bool = False) -> None:
    """Compare an sdkconfig with the profile: each deviation is a line, and exit status 1."""
    from deploy import esp32

    found = esp32.check(Path(sdkconfig), profile, bluetooth)
    print(*found or [f"{sdkconfig}: as the {profile} profile has it"], sep="\n")
    sys.exit(1 if found else 0)


@task(
    help={
        "chip": "esp32s3 or esp32c3",
        "profile": HARDENING["profile"],
        "rehearse": "burn simulated fuses, to see that the plan works",
        "key": "secure boot's signing key for the rehearsal, PEM (default: a throw-away one)",
        "backup": "its backup key, likewise",
    },
)
@told
def fuses(
    _: Context,
    chip: str = "esp32s3",
    profile: str = "release",
    rehearse: bool = False,
    key: str = "",
    backup: str = "",
) -> None:
    """Show which fuses of an ESP32 are burnt, in which order; or rehearse it. Burns nothing real."""
    from deploy import fuses

    if rehearse:
        print(fuses.rehearse(chip, profile, key, backup, lambda line: print(line, flush=True)))
    else:
        print(fuses.plan(chip, profile))
