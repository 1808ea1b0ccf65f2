"""Rotation: a secret of the vault is replaced by a new one, a step at a time, and may be interrupted between any two.

    phase      what the gateways take       what the consumers use
    (at rest)  the one in use               the one in use
    install    it, and the coming one       the one in use
    move       the new one, and the former  the new one
    retire     the new one                  the new one

The phase is the journal: it stands in the vault beside the values, and each change of phase is one write of the vault.
What a gateway has to look like follows from the vault alone, so that a deploy in the middle of a rotation goes on with
it and never against it. After a change of phase the gateways are made so, which may be done again and again, and it is
proven; only then comes the next phase. A run that is killed anywhere leaves both secrets good or the new one good and
in use, and the next run goes on from there. A gateway that is away holds the rotation where it is.

    NAME                      the one in use
    rotation/NAME/journal     the phase, and when it began
    rotation/NAME/coming      in `install`
    rotation/NAME/former      in `move` and `retire`

A secret that nothing has to be told of beforehand begins with `move`; one that can't be taken beside another (a
password at the broker) with `retire`: then there is a moment in which whoever has the former one is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Literal, Protocol

from gatehouse.errors import GatehouseError
from gatehouse.identity.store import SecretStore, now_text

Phase = Literal["install", "move", "retire"]
PHASES: tuple[Phase, ...] = ("install", "move", "retire")


class RotationError(GatehouseError):
    """A secret that could not be replaced to the end; both are as the journal says, and running it again goes on."""


class Mover(Protocol):
    """What a rotation needs to know of one secret: how it is made, and how the gateways and consumers follow.

    `first` is the phase that it begins with. `apply` makes all gateways as the vault says now and may be called any
    number of times; `prove` raises `RotationError` unless `new` is taken, and `former`, where given, is refused.
    """

    name: str
    kind: str
    first: Phase

    def make(self, used: bytes) -> bytes:
        """A new value, from the one in use."""

    def keep(self) -> bytes:
        """What has to be known of the one in use when it is the former one."""

    def replaced(self, vault: SecretStore) -> None:
        """In the write that puts the new one in use: what hangs on the value."""

    def retired(self, vault: SecretStore, former: bytes) -> None:
        """In the write that retires the former one."""

    def apply(self) -> None:
        """Every gateway as the vault says."""

    def prove(self, new: bytes, former: bytes | None) -> None:
        """By using them."""


def phase_of(vault: SecretStore, name: str) -> Phase | None:
    """The phase of a rotation that has begun. Raises `RotationError` for a journal that can't be read."""
    where = f"rotation/{name}/journal"
    if where not in vault:
        return None
    try:
        found = json.loads(vault.get(where))["phase"]
        return PHASES[PHASES.index(found)]
    except (ValueError, LookupError, TypeError):
        raise RotationError(f"{where}: names no phase of a rotation; restore the vault from its backup") from None


def begun(vault: SecretStore) -> list[str]:
    """The names of the secrets whose rotation has begun and not ended."""
    names = (entry.split("/", 1)[1].rpartition("/") for entry in vault.names("rotation/"))
    return sorted(name for name, _, last in names if last == "journal")


def accepted(vault: SecretStore, name: str) -> list[bytes]:
    """What a gateway has to take now, the one that consumers use first. Raises `VaultError` when there is none."""
    phase, found = phase_of(vault, name), [vault.get(name)]
    if phase == "install":
        found.append(vault.get(f"rotation/{name}/coming"))
    elif phase == "move":
        found.append(vault.get(f"rotation/{name}/former"))
    return found


def rotate(vault: SecretStore, mover: Mover, say: Callable[[str], None] = lambda line: None) -> None:
    """Replaces a secret, or goes on where an earlier run ended. `say` is told of each step before it is made.

    Raises `RotationError`, and what vault and gateways raise: run it again, it goes on from there.
    """
    if phase_of(vault, mover.name) is None:
        say("make")
        _begin(vault, mover)
    while phase := phase_of(vault, mover.name):
        say(phase)
        mover.apply()
        say(f"{phase}: prove")
        # Only then is the former one no longer needed by anybody, and its last use is to be refused.
        new = vault.get(f"rotation/{mover.name}/coming" if phase == "install" else mover.name)
        mover.prove(new, vault.get(f"rotation/{mover.name}/former") if phase == "retire" else None)
        say(f"{phase}: done")
        _advance(vault, mover, phase)


def _begin(vault: SecretStore, mover: Mover) -> None:
    with vault.transaction():
        if phase_of(vault, mover.name) is not None:  # another run was first
            return
        new = mover.make(vault.get(mover.name))
        _note(vault, mover.name, mover.first)
        if mover.first == "install":
            vault.set(f"rotation/{mover.name}/coming", new, mover.kind)
        else:
            _replace(vault, mover, new)
            if mover.first == "retire":
                mover.retired(vault, vault.get(f"rotation/{mover.name}/former"))


def _advance(vault: SecretStore, mover: Mover, done: Phase) -> None:
    """To the next phase, unless another run has been there meanwhile."""
    where = f"rotation/{mover.name}"
    with vault.transaction():
        if phase_of(vault, mover.name) != done:
            return
        if done == "install":
            _replace(vault, mover, vault.get(f"{where}/coming"))
            vault.delete(f"{where}/coming")
            _note(vault, mover.name, "move")
        elif done == "move":
            mover.retired(vault, vault.get(f"{where}/former"))
            _note(vault, mover.name, "retire")
        else:
            vault.delete(f"{where}/former")
            vault.delete(f"{where}/journal")


def _replace(vault: SecretStore, mover: Mover, new: bytes) -> None:
    vault.set(f"rotation/{mover.name}/former", mover.keep(), mover.kind)
    vault.set(mover.name, new, mover.kind)
    mover.replaced(vault)


def _note(vault: SecretStore, name: str, phase: Phase) -> None:
    where = f"rotation/{name}/journal"
    since = json.loads(vault.get(where))["begun"] if where in vault else now_text()
    vault.set(where, json.dumps({"phase": phase, "begun": since}), "record")
