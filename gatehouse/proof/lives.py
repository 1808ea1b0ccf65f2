"""What of a site ends one day: certificates, authorities, revocation lists, secrets; the soonest first."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from gatehouse.identity import Pki
from gatehouse.identity.ages import Age
from gatehouse.identity.lifetimes import Lifetime
from gatehouse.site import Device

SHOWN = 60
"""Rows of a report: a site with ten thousand devices has the soonest of them in it."""

State = Literal["fine", "soon", "over"]


@dataclass(frozen=True)
class Life:
    """One that ends: `state` is `soon` where it is to be replaced now (a third of its life left, or due), and `over`.

    `mend` is the command that replaces it, or says how. `end` is UTC, ISO 8601.
    """

    kind: str
    name: str
    end: str
    days_left: int
    state: State
    mend: str


def lives(site: str, pki: Pki, secrets: Iterable[Age], devices: Iterable[Device], now: datetime.datetime) -> list[Life]:
    """All that ends, the soonest first. A revoked device's certificate is no longer of interest."""
    found = []
    for standing in pki.standings():
        name, mend = standing.life.name, f"./kit harden --site {site}"
        kind = "certificate"
        if " CA" in name:
            kind, mend = "authority", f"./kit ca.status --site {site}"
        if name.startswith("revocation list"):
            kind, mend = "revocation list", f"./kit harden --site {site}"
        found.append(_life(kind, name, standing.life, now, mend))
    for device in devices:
        if device.status != "revoked" and device.not_before and device.not_after:
            span = Lifetime(device.name, device.not_before, device.not_after)
            found.append(_life("device's certificate", device.name, span, now, f"./kit renew --site {site}"))
    for age in secrets:
        if age.name.endswith(("/certificate", "/crl")):  # they say themselves when they end
            continue
        left = (age.due - now).days
        state: State = {"fresh": "fine", "due": "soon"}.get(age.state(now), "over")  # type: ignore[assignment]
        by = age.secret.replaced_by
        mend = f"./kit {by} --site {site}" + (f" --only '{age.name}'" if by == "rotate" else "")
        found.append(Life("secret", age.name, _iso(age.due), left, state, mend))
    return sorted(found, key=lambda life: (life.days_left, life.kind, life.name))


def _life(kind: str, name: str, span: Lifetime, now: datetime.datetime, mend: str) -> Life:
    state: State = "over" if now >= span.end else "soon" if span.needs_care(now) else "fine"
    return Life(kind, name, _iso(span.end), span.days_left(now), state, mend)


def _iso(moment: datetime.datetime) -> str:
    return moment.astimezone(datetime.UTC).isoformat(timespec="seconds")
