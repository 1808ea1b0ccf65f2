"""How old a site's secrets are, and when each is to be replaced: what services declare, and what the vault has."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from gatehouse.columns import aligned
from gatehouse.identity import rotation
from gatehouse.identity.store import SecretStore
from gatehouse.site import Device, Secret, Site

GRACE = 14
"""Days that a secret may be due before it is overdue: time for an operator who comes by once a week, or was away."""

_HMAC = re.compile(r"(devices/[^/]+/hmac)/(\d+)")
_COLUMNS = {"name": "NAME", "age_days": "AGE", "next": "NEXT", "replaced_by": "REPLACED BY", "consumers": "USED BY"}


@dataclass(frozen=True)
class Age:
    """One secret: by its name in the vault, when it was made, and in how many days from then it is to be replaced."""

    name: str
    service: str
    secret: Secret
    made: datetime.datetime
    begun: datetime.datetime | None = None
    """Since when it has been being replaced."""

    @property
    def due(self) -> datetime.datetime:
        """When it is to be replaced."""
        return self.made + datetime.timedelta(days=self.secret.rotation_days)

    def state(self, now: datetime.datetime) -> str:
        """`fresh`, `due`, `overdue`; `unfinished` where its replacement was begun more than `GRACE` days ago."""
        grace = datetime.timedelta(days=GRACE)
        if self.begun is not None and now > self.begun + grace:
            return "unfinished"
        return "fresh" if now < self.due else "due" if now < self.due + grace else "overdue"


def ages(site: Site, vault: SecretStore) -> list[Age]:
    """All that services declare and the vault has, by name. Of what is nobody's any more there is none."""
    devices = {device.name: device for device in site.devices}
    begun = {name: _begun(vault, name) for name in rotation.begun(vault)}
    found: dict[str, Age] = {}
    for service in site.services:
        for secret in service.secrets:
            pattern = secret.kept or secret.name
            for name, entry in _fitting(pattern, vault.names(), devices, site.programs):
                made = datetime.datetime.fromisoformat(vault.about(entry).created)
                if name not in found or made < found[name].made:
                    found[name] = Age(name, service.name, secret, made, begun.get(name))
    return [found[name] for name in sorted(found)]


def _fitting(
    pattern: str, names: Iterable[str], devices: Mapping[str, Device], programs: Iterable[str]
) -> Iterator[tuple[str, str]]:
    """What is replaced, and the entry that says how old it is."""
    for entry in names:
        if not fnmatchcase(entry, pattern):
            continue
        if entry.startswith("devices/"):
            device = devices.get(entry.split("/")[1])
            if device is None or device.status == "revoked":
                continue
            number = _HMAC.fullmatch(entry)
            if number is not None:
                # The one in use: another is on its way to it, or was before.
                if int(number[2]) == device.hmac_key:
                    yield number[1], entry
                continue
        if entry.startswith("broker/programs/") and entry.split("/")[2] not in programs:
            continue
        yield entry, entry


def _begun(vault: SecretStore, name: str) -> datetime.datetime | None:
    try:
        return datetime.datetime.fromisoformat(json.loads(vault.get(f"rotation/{name}/journal"))["begun"])
    except (ValueError, LookupError, TypeError):
        return None


def rows(found: Iterable[Age], now: datetime.datetime) -> list[dict[str, Any]]:
    """A row each, for machines: moments in ISO 8601, ages in whole days."""
    return [
        {
            "name": age.name,
            "service": age.service,
            "kind": age.secret.kind,
            "consumers": list(age.secret.consumers),
            "made": age.made.isoformat(),
            "age_days": (now - age.made).days,
            "rotation_days": age.secret.rotation_days,
            "next": f"{age.due:%Y-%m-%d}",
            "replaced_by": age.secret.replaced_by,
            "state": age.state(now),
            "begun": age.begun.isoformat() if age.begun else None,
        }
        for age in found
    ]


def table(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """The rows as lines of text, headed; ages in days, and what is not in order behind the date."""
    cells = [[*_COLUMNS.values()], *([_shown(row, column) for column in _COLUMNS] for row in found)]
    return aligned(cells)


def _shown(row: Mapping[str, Any], column: str) -> str:
    value = row[column]
    if column == "consumers":
        return ", ".join(value)
    if column == "next":
        state = row["state"] if row["state"] != "fresh" else "being replaced" if row["begun"] else ""
        return f"{value} {state}".strip()
    return str(value)
