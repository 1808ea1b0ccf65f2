"""Replacing an issuing authority while its certificates are in use.

    prepare     the next authority is made; it is trusted from the next harden on, and issues nothing yet
    switch      it issues; the one that did is a former one, trusted as long as a device needs it
    drop        the former one is forgotten, and from the next harden on its certificates are refused

Each step is one write of the vault: done or not done, and no harm to do again. Between the first two every gateway is
hardened, or it would refuse the first device with a new certificate; between the last two the devices renew.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable
from typing import Protocol

from gatehouse.identity.authorities import ISSUING, Authorities, Former
from gatehouse.identity.authority import BACKDATE, PkiError, read_certificate
from gatehouse.identity.leaf import LONGEST_LIFE
from gatehouse.identity.store import SecretStore


class Enrolled(Protocol):
    """What the device registry says of a device; the moments (UTC) are those of its newest certificate."""

    @property
    def name(self) -> str: ...

    @property
    def status(self) -> str: ...

    @property
    def serials(self) -> tuple[str, ...]: ...

    @property
    def not_before(self) -> datetime.datetime | None: ...

    @property
    def not_after(self) -> datetime.datetime | None: ...


class Rollover:
    """The roll-over of one role's authority, `devices` or `services`. Raises `PkiError`."""

    def __init__(
        self, authorities: Authorities, vault: SecretStore, role: str, clock: Callable[[], datetime.datetime]
    ) -> None:
        if role not in ISSUING:
            mend = "a new root is a new identity for every device" if role == "root" else f"use {' or '.join(ISSUING)}"
            raise PkiError(f"the {role[:20]!r} CA can't be rolled over; {mend}")
        self._authorities, self._vault, self._role, self._clock = authorities, vault, role, clock

    @property
    def coming(self) -> str | None:
        """The identifier of the authority that will issue next, None when none is prepared."""
        coming = self._authorities.coming(self._role)
        return coming.identifier if coming else None

    @property
    def issuing(self) -> str:
        """The identifier of the authority that issues."""
        return self._authorities[self._role].identifier

    @property
    def former(self) -> list[str]:
        """The identifiers of those that issued before and are trusted still, the latest first."""
        return list(self._authorities.former(self._role))

    def prepare(self) -> str:
        """Make the next authority, unless one is prepared; return its identifier."""
        return self._authorities.prepare(self._role, self._clock()).identifier

    def switch(self) -> bool:
        """Let the prepared authority issue from now on; False when none is prepared."""
        return self._authorities.switch(self._role, self._clock())

    def dependents(self, devices: Iterable[Enrolled] = ()) -> dict[str, list[str]]:
        """Return who still needs each former authority, by its identifier: names of devices, or of servers."""
        formers = self._authorities.former(self._role)
        if self._role == "services":
            return {identifier: self._servers_of(former) for identifier, former in formers.items()}
        known = list(devices)
        now = self._clock()
        return {
            identifier: [device.name for device in known if _needs(device, former, now)]
            for identifier, former in formers.items()
        }

    def drop(self, devices: Iterable[Enrolled] = (), force: bool = False) -> list[str]:
        """Forget the former authorities and destroy their keys; return their identifiers.

        Raises `PkiError` when a certificate in use depends on one, unless forced: that device then has to be enrolled
        again by hand.
        """
        dependents = self.dependents(devices)
        for identifier, names in dependents.items():
            if names and not force:
                some = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
                mend = "renew them" if self._role == "devices" else "harden their gateways"
                raise PkiError(
                    f"{self._role} CA {identifier}: {len(names)} need it still ({some}); {mend}, or force it"
                )
        for identifier in dependents:
            self._authorities.drop(self._role, identifier)
        return list(dependents)

    def _servers_of(self, former: Former) -> list[str]:
        stored = [name for name in self._vault.names("server/") if name.endswith("/certificate")]
        issuer = former.authority.certificate.subject
        return [name.split("/")[1] for name in stored if read_certificate(name, self._vault.get(name)).issuer == issuer]


def _needs(device: Enrolled, former: Former, now: datetime.datetime) -> bool:
    """Whether a device may be using a certificate from before the switch. The registry has dates of the newest only."""
    if device.status == "revoked" or not device.serials or now >= former.replaced + LONGEST_LIFE:
        return False
    if len(device.serials) > 1 or device.not_before is None:
        return True
    if device.not_after is not None and device.not_after <= now:
        return False
    return device.not_before + BACKDATE <= former.replaced
