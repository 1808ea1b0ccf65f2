"""Rotation: killed at any step, by whatever, nobody is locked out, and the next run ends it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gatehouse.errors import GatehouseError
from gatehouse.identity import SecretStore, Vault, new_identity, rotation
from gatehouse.identity.rotation import Phase, RotationError

NAME = "database/intake"


class Killed(BaseException):
    """As SIGKILL: nothing that was begun is tidied up."""


class Away(GatehouseError):
    """A gateway that can't be reached."""


class Site:
    """Two gateways, each with a database that takes some secrets and a consumer that uses one; and who is watching.

    Everything that changes something is counted, before and after; the run dies at number `dies`.
    """

    def __init__(self, path: Path) -> None:
        identity = path / "identity.age"
        recipient = new_identity(identity)
        self.path, self.identity = path / "vault.age", identity
        Vault.create(self.path, [recipient])
        with (vault := self.vault()).transaction():
            vault.set(NAME, b"first", "password")
        self.taken = {name: {b"first"} for name in ("gw1", "gw2")}
        self.used = dict.fromkeys(self.taken, b"first")
        self.away: set[str] = set()
        self.dies, self.count = 0, 0
        self.made = 0

    def vault(self) -> Vault:
        return Vault.open(self.path, [self.identity])

    def step(self, change: Callable[[], object] = lambda: None) -> None:
        self.died()
        change()
        self.died()
        self.nobody_is_locked_out()

    def died(self) -> None:
        self.count += 1
        if self.count == self.dies:
            raise Killed

    def nobody_is_locked_out(self) -> None:
        vault, former = self.vault(), f"rotation/{NAME}/former"
        known = [*rotation.accepted(vault, NAME), *([vault.get(former)] if former in vault else [])]
        for name, taken in self.taken.items():
            assert self.used[name] in taken, f"{name}: the consumer is refused"
            assert taken & set(known), f"{name}: the operator knows nothing that is taken"


class Mover:
    """As the kit's: a gateway is made as the vault says, one thing after the other."""

    name, kind = NAME, "password"

    def __init__(self, site: Site, vault: Vault, first: Phase) -> None:
        self.site, self.vault, self.first = site, vault, first

    def make(self, used: bytes) -> bytes:
        self.site.made += 1
        return used + b"+"

    def keep(self) -> bytes:
        return self.vault.get(NAME)

    def replaced(self, vault: SecretStore) -> None:
        self.site.died()

    def retired(self, vault: SecretStore, former: bytes) -> None:
        self.site.died()

    def apply(self) -> None:
        for name, taken in self.site.taken.items():
            if name in self.site.away:
                raise Away(f"{name}: no SSH")
            wanted = set(rotation.accepted(self.vault, NAME))
            # As the steward does: first what is new, then who uses it, then what is no longer wanted.
            for value in wanted - taken:
                self.site.step(lambda value=value, taken=taken: taken.add(value))  # type: ignore[misc]
            used = rotation.accepted(self.vault, NAME)[0]
            self.site.step(lambda name=name, used=used: self.site.used.update({name: used}))  # type: ignore[misc]
            for value in taken - wanted:
                self.site.step(lambda value=value, taken=taken: taken.discard(value))  # type: ignore[misc]

    def prove(self, new: bytes, former: bytes | None) -> None:
        self.site.step()
        for name, taken in self.site.taken.items():
            if new not in taken or former in taken:
                raise RotationError(f"{name}: it is not so")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def run(site: Site, first: Phase = "install") -> list[str]:
    said: list[str] = []

    def say(line: str) -> None:
        site.died()
        said.append(line)

    vault = site.vault()
    rotation.rotate(vault, Mover(site, vault, first), say)
    return said


def is_settled(site: Site) -> None:
    vault = site.vault()
    new = vault.get(NAME)
    assert new == b"first+"
    assert site.taken == {"gw1": {new}, "gw2": {new}}
    assert site.used == {"gw1": new, "gw2": new}
    assert vault.names("rotation/") == [] and rotation.begun(vault) == []


def test_a_secret_is_replaced_and_the_former_one_is_forgotten(site: Site) -> None:
    said = run(site)
    assert [line for line in said if ":" not in line] == ["make", "install", "move", "retire"]
    is_settled(site)


@pytest.mark.parametrize("first", ["install", "move"])
def test_killed_at_every_step_the_next_run_ends_it_and_nobody_was_locked_out(tmp_path: Path, first: Phase) -> None:
    steps, number = 0, 0
    while True:
        number += 1
        (tmp_path / str(number)).mkdir()
        site = Site(tmp_path / str(number))
        if first == "move":  # nothing to tell the gateways of beforehand: they take whatever the site has made
            site.taken = {name: {b"first", b"first+"} for name in site.taken}
        site.dies = number
        try:
            run(site, first)
        except Killed:
            steps += 1
        else:
            break
        site.nobody_is_locked_out()
        # Whether the next to come is a deploy, or the command again.
        if number % 2:
            vault = site.vault()
            Mover(site, vault, first).apply()
            site.nobody_is_locked_out()
        run(site, first)
        is_settled(site)
        assert site.made <= 2
    assert steps >= 20


def test_killed_twice_it_is_ended_all_the_same(tmp_path: Path) -> None:
    for number in range(1, 40, 3):
        (tmp_path / str(number)).mkdir()
        site = Site(tmp_path / str(number))
        for more in (number, 5):
            site.dies = site.count + more
            with pytest.raises(Killed):
                run(site)
                raise Killed
            site.nobody_is_locked_out()
        site.dies = 0
        if site.vault().get(NAME) == b"first" or rotation.begun(site.vault()):
            run(site)
        is_settled(site)


def test_a_gateway_that_is_away_holds_the_rotation_where_it_is(site: Site) -> None:
    site.away = {"gw2"}
    for _ in range(2):
        with pytest.raises(Away):
            run(site)
        assert rotation.phase_of(site.vault(), NAME) == "install" and site.made == 1
        site.nobody_is_locked_out()
    site.away = set()
    run(site)
    is_settled(site)


def test_what_is_not_proven_goes_no_further(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise RotationError("gw1: it does not let in")

    with monkeypatch.context() as patched, pytest.raises(RotationError):
        patched.setattr(Mover, "prove", refused)
        run(site)
    assert site.used == {"gw1": b"first", "gw2": b"first"}
    assert all(b"first" in taken for taken in site.taken.values())
    run(site)
    is_settled(site)


def test_where_two_can_t_be_good_at_a_time_the_change_is_one_step(site: Site) -> None:
    with (vault := site.vault()).transaction():
        vault.set("other", b"x")
    said = run(site, "retire")
    assert [line for line in said if ":" not in line] == ["make", "retire"]
    is_settled(site)


def test_two_runs_at_a_time_make_one_secret(site: Site) -> None:
    one, other = site.vault(), site.vault()
    rotation._begin(one, Mover(site, one, "install"))
    rotation._begin(other, Mover(site, other, "install"))
    assert site.made == 1
    rotation._advance(one, Mover(site, one, "install"), "install")
    rotation._advance(other, Mover(site, other, "install"), "install")
    assert rotation.phase_of(site.vault(), NAME) == "move"


def test_a_journal_that_says_nothing_is_told_and_changes_nothing(site: Site) -> None:
    with (vault := site.vault()).transaction():
        vault.set(f"rotation/{NAME}/journal", b"{}", "record")
    with pytest.raises(RotationError, match="names no phase"):
        run(site)
    assert site.vault().get(NAME) == b"first"
