"""A site's certification authorities, for the operator: how long they last, and replacing one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime

from deploy import vaults
from gatehouse.identity.pki import Standing
from gatehouse.site import Site


def table(site: Site) -> Iterator[str]:
    """A line each: name, state, end, days and part of its life left, where its key is, and whether it needs care."""
    now = datetime.now(UTC)
    rows = vaults.open_pki(site).standings()
    width = max(len(row.life.name) for row in rows)
    for row in rows:
        life = row.life
        care = "  needs care" if life.needs_care(now) else ""
        left = f"{life.days_left(now):5} days, {life.left(now):4.0%} left"
        yield f"{life.name:{width}}  {row.state:8} until {life.end:%Y-%m-%d}  {left}  {row.key:8}{care}".rstrip()


def as_json(site: Site) -> str:
    """The same for programs; `left` is a fraction, moments are ISO 8601."""
    now = datetime.now(UTC)
    return json.dumps([_fields(row, now) for row in vaults.open_pki(site).standings()], indent=1)


def _fields(row: Standing, now: datetime) -> dict[str, object]:
    life = row.life
    moments = {"begin": life.begin.isoformat(), "end": life.end.isoformat()}
    remaining = {"days_left": life.days_left(now), "left": round(life.left(now), 4), "needs_care": life.needs_care(now)}
    return {"name": life.name, "state": row.state, "key": row.key, **moments, **remaining}


def prepare(site: Site, role: str) -> str:
    """Makes the next authority of a role, and says what comes then."""
    rollover = vaults.open_pki(site).rollover(role)
    new = rollover.prepare()
    return (
        f"{role} CA {new} is made and trusted, {rollover.issuing} issues still.\n"
        f"Next: harden every gateway, then: ./kit ca.rollover --role {role} --issue --site {site.name}"
    )


def issue(site: Site, role: str) -> str:
    """Lets the prepared authority issue, and says what comes then."""
    rollover = vaults.open_pki(site).rollover(role)
    if not rollover.switch() and not rollover.former:
        return f"no {role} CA is prepared; {rollover.issuing} issues (begin without --issue)"
    then = f"./kit renew --site {site.name} until no device waits" if role == "devices" else "harden every gateway"
    return (
        f"{role} CA {rollover.issuing} issues; trusted still: {', '.join(rollover.former)}.\n"
        f"Next: {then}, then: ./kit ca.drop --role {role} --site {site.name}"
    )


def drop(site: Site, role: str, force: bool) -> str:
    """Forgets the former authorities of a role. Raises `PkiError` while something depends on one."""
    dropped = vaults.open_pki(site).rollover(role).drop(site.devices, force)
    if not dropped:
        return f"there is no former {role} CA"
    names = ", ".join(dropped)
    return f"{role} CA {names}: forgotten, key destroyed.\nNext: harden every gateway, it is trusted there until then"
