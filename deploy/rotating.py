"""Replaces a site's secrets: all that the kit can move by itself, or the named ones; goes on with what was begun."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase

from deploy import bootpasswords, devicekeys, serverkeys, tunnelkeys, vaults
from deploy.gateways import Gateways
from deploy.movers import Mover, movers
from gatehouse.errors import GatehouseError
from gatehouse.identity import rotation
from gatehouse.identity.rotation import RotationError
from gatehouse.site import Site

Say = Callable[[str], None]


@dataclass
class Outcome:
    """Names of secrets, and for `failed` a line each."""

    replaced: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    """Devices that have not taken up their new key yet; both are good until they have."""
    failed: list[str] = field(default_factory=list)


def rotate(site: Site, only: Sequence[str], say: Say, *, dry: bool = False) -> Outcome:
    """Replaces secrets, and says how far it is; with `dry` it says what it would do.

    `only` are names as `./kit credentials` lists them, or patterns such as `influxdb.*`. Without any it is all but
    those whose owner has to be given the new one by hand; what was begun is always gone on with.

    Raises `RotationError` for a name that is none, and what vault and registry raise.
    """
    vault = vaults.open_vault(site)
    pki = vaults.open_pki(site, vault)
    with Gateways(site, pki) as gateways:
        known = {
            **movers(gateways),
            **serverkeys.movers(gateways),
            **{mover.name: mover for mover in bootpasswords.movers(gateways)},
            **{mover.name: mover for mover in tunnelkeys.movers(gateways)},
        }
        keys = devicekeys.names(site, vault)
        chosen = _chosen(site, only, known, keys)
        begun = set(rotation.begun(vault))
        if dry:
            for name in chosen:
                say(_foreseen(gateways, name, name in begun))
            return Outcome()
        outcome = Outcome()
        for name in [name for name in chosen if name in known]:
            _replace(gateways, known[name], outcome, say)
        mine = [keys[name] for name in chosen if name in keys]
        if mine:
            _replace_keys(gateways, mine, outcome, say)
        return outcome


def _chosen(site: Site, only: Sequence[str], known: dict[str, Mover], keys: dict[str, str]) -> list[str]:
    """The names of what is to be replaced, in order. Raises `RotationError`."""
    every = [*known, *keys]
    for pattern in only:
        if not any(fnmatchcase(name, pattern) for name in every):
            some = ", ".join(every[:6]) + (", …" if len(every) > 6 else "")
            raise RotationError(
                f"{site.name}: nothing called '{pattern[:80]}' can be replaced (`./kit credentials --site {site.name}`"
                f" lists what can: {some or 'nothing'})"
            )
    begun = [name for name in rotation.begun(vaults.open_vault(site)) if name in known]
    wanted = [
        name
        for name in every
        if (any(fnmatchcase(name, p) for p in only) if only else name in keys or not known[name].asked_for)
    ]
    return list(dict.fromkeys([*begun, *wanted]))


def _foreseen(gateways: Gateways, name: str, begun: bool) -> str:
    vault = gateways.pki.vault
    if begun:
        return f"{name}: would go on ({rotation.phase_of(vault, name)})"
    if name not in vault:
        return f"{name}: would be replaced"
    days = (datetime.now(UTC) - datetime.fromisoformat(vault.about(name).created)).days
    return f"{name}: would be replaced ({days} days old)"


def _replace(gateways: Gateways, mover: Mover, outcome: Outcome, say: Say) -> None:
    try:
        mover.check()
        rotation.rotate(gateways.pki.vault, mover, lambda step: say(f"{mover.name}: {step}"))
    except GatehouseError as error:
        outcome.failed.append(f"{mover.name}: {error}")
        return
    outcome.replaced.append(mover.name)
    say(f"{mover.name}: replaced; the former one is refused")
    if mover.handover:
        say(f"{mover.name}: its owner needs the new one: {mover.handover}")


def _replace_keys(gateways: Gateways, devices: Sequence[str], outcome: Outcome, say: Say) -> None:
    try:
        moved, waiting, failed = devicekeys.rotate(gateways, devices, say)
    except GatehouseError as error:
        outcome.failed.append(str(error))
        return
    outcome.replaced += [f"devices/{name}/hmac" for name in moved]
    outcome.waiting += waiting
    outcome.failed += failed
