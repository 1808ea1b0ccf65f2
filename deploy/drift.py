"""Compares the gateways of a site with its declaration, and changes nothing, here or there.

What a deploy would ask is asked, by the same operations, so that there is no second list of what shall be. They are
followed without running any of their commands: a question that has no answer yet gets its fact's default, so that one
look after another finds out what else would be asked, and each look is one round trip. Nothing that lies on the gateway
says what is right: contents, modes, units and settings come from the declaration, and the running ruleset is compared
with the declared one as the gateway's own nft lists it, from a network namespace of its own that ends at once.
"""

from __future__ import annotations

import base64
import contextlib
import copy
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from deploy import vaults
from deploy.asking import each
from deploy.foresight import Question, grouped, joint_command, question_of, read_by
from deploy.remote import connected
from deploy.shell import Shell
from gatehouse.errors import GatehouseError
from gatehouse.identity import Pki
from gatehouse.proof.drift import TABLE, Difference, Looked, gathered, rule_differences, settled, superusers
from gatehouse.site import Site
from roles import nftables
from roles.differences import HEARD
from roles.nftables import ruleset
from roles.nftables.facts import AS_LOADED
from roles.target import Target

if TYPE_CHECKING:
    from pyinfra.api import FactBase, State
    from pyinfra.api.host import Host
    from pyinfra.api.state import StateOperationHostData

LOOKS = 6
"""A question that depends on the answer to another is in the next look."""
_APART = "gatehouse-declared"


class DriftError(GatehouseError):
    """A gateway that could not be compared."""


def compare(site: Site) -> list[Looked]:
    """What differs on each gateway of the site, in its order; several are asked at a time.

    Raises `RemoteError`, `DriftError`, `VaultError`; `Unanswered` where several gateways have one.
    """
    kept: list[Pki] = []
    turn = Turn()

    def pki() -> Pki:
        # A certificate that is due is made for the comparison alone.
        if not kept:
            kept.append(vaults.open_pki(site, vaults.open_vault(site).apart()))
        return kept[0]

    with _quiet():
        return each(site.gateways, lambda gateway: _compared(Target(site, gateway, pki), turn))


def _compared(target: Target, turn: Turn) -> Looked:
    started = time.monotonic()
    with ThreadPoolExecutor(1) as pool, contextlib.ExitStack() as stack:
        # The way there takes as long as what there is to prepare here.
        opening = pool.submit(lambda: stack.enter_context(connected(target.site, target.name)).shell())
        with foreseen(target, opening.result, layers(), turn) as look:
            found = look.found(extras(target))
    return Looked(target.name, found, look.round_trips, time.monotonic() - started)


class Turn:
    """Whose operations are followed: pyinfra knows one state at a time. While one waits for answers, others go on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def taken(self, state: State, host: Host) -> Iterator[None]:
        """These are what operations act on."""
        with self._lock, _current(state, host):
            yield

    @contextlib.contextmanager
    def passed_on(self, state: State, host: Host) -> Iterator[None]:
        """Until this ends others may take it."""
        from pyinfra.context import ctx_host, ctx_state

        ctx_state.set(None)
        self._lock.release()
        try:
            yield
        finally:
            self._lock.acquire()
            ctx_state.set(state)
            ctx_host.set(host)


@contextlib.contextmanager
def foreseen(
    target: Target, shell: Callable[[], Shell], layers: Iterable[ModuleType], turn: Turn | None = None
) -> Iterator[Look]:
    """The operations of a deploy to this gateway, none of them run."""
    # Here: of the commands that are no deploy, those in a hurry can't wait for its import.
    from pyinfra.api import Config, Inventory, State
    from pyinfra.api.exceptions import PyinfraError

    from deploy.session import without_source_lines

    without_source_lines()
    data = {"_sudo": False, "site": target.site}
    state = State(Inventory(([(target.name, data)], {})), Config(), check_for_changes=False)
    host = next(iter(state.inventory))
    # A gateway that can't be reached is no matter of the layers.
    turn = turn or Turn()
    look = Look(state, host, shell(), turn)
    host.get_fact = look.get_fact
    with turn.taken(state, host):
        try:
            for layer in layers:
                layer.apply(target)
            yield look
        except (PyinfraError, DriftError) as error:
            raise DriftError(f"{target.name}: {error}") from None


@contextlib.contextmanager
def _current(state: State, host: Host) -> Iterator[None]:
    """Makes them what operations act on; pyinfra's own leaves them so after an error."""
    from pyinfra.context import ctx_host, ctx_state

    before = ctx_state.get(), ctx_host.get()
    ctx_state.set(state)
    ctx_host.set(host)
    try:
        yield
    finally:
        ctx_state.set(before[0])
        ctx_host.set(before[1])


def layers() -> tuple[ModuleType, ...]:
    """What `deploy.py` applies, in its order."""
    from deploy import foundation, messaging, network, telemetry, web

    return foundation, network, messaging, telemetry, web


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of a deploy: what is not deployed is no difference."""
    logger = logging.getLogger("pyinfra")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


@dataclass(frozen=True)
class Extra:
    """A question of no operation: the command, and what its lines say."""

    command: str
    read: Callable[[Sequence[str]], Iterable[Difference]]


class Look:
    """The operations of one gateway, followed with the answers that are there so far."""

    def __init__(self, state: State, host: Host, shell: Shell, turn: Turn) -> None:
        self.round_trips = 0
        self._state, self._host, self._shell, self._turn = state, host, shell, turn
        self._answers: dict[Question, list[str]] = {}
        self._open: list[Question] | None = None  # a list while operations are followed
        self._open_before = 0  # as many were open when the present one began

    def get_fact(self, fact: type[FactBase[Any]], *args: Any, **kwargs: Any) -> Any:
        """What pyinfra's `Host.get_fact` gives; for what is not known yet, what it gives where there is nothing."""
        question = question_of(fact, args, kwargs)
        if question is None:
            raise DriftError(f"{fact.__name__} can't be asked with others (report this)")
        if question not in self._answers:
            if self._open is not None:
                # What takes long is asked only once the operation's other answers lead there.
                if self._open_before == len(self._open) or not getattr(fact, "takes_long", False):
                    self._open.append(question)
                return fact().default()
            # What is to be done depends on it.
            self._read([question], [])
        return read_by(fact, self._answers[question])

    def found(self, extra: Mapping[str, Extra]) -> tuple[Difference, ...]:
        """Everything that differs. Raises `DriftError` for what the gateway does not answer."""
        asked = dict(extra)
        named: dict[str, list[Difference]] = {}
        for _ in range(LOOKS):
            self._open = []
            found = [d for name, operation in self._operations() for d in self._followed(name, operation)]
            questions = list(dict.fromkeys(self._open))
            if not (questions or asked):
                return settled(found, named)
            answers = self._read(questions, [each.command for each in asked.values()])
            named |= {name: list(asked[name].read(lines)) for name, lines in zip(asked, answers, strict=True)}
            asked = {}
        raise DriftError("asks more after each answer (report this)")

    def _operations(self) -> list[tuple[str, StateOperationHostData]]:
        """The operations by name, in order."""
        operations = self._state.ops[self._host]
        return [(" | ".join(self._state.op_meta[op].names), operations[op]) for op in self._state.get_op_order()]

    def _followed(self, name: str, operation: StateOperationHostData) -> list[Difference]:
        """What an operation would mend; nothing yet where a question of it has no answer."""
        data = self._host.connector_data
        before, open_before = copy.deepcopy(data), len(self._open or ())
        self._open_before = open_before
        heard: list[tuple[str, str, str]] = []
        data[HEARD] = heard
        commands = 0
        try:
            commands = sum(1 for _ in operation.command_generator())
        except Exception:
            # On the answers that are not there yet anything can fail; on those of the gateway nothing may.
            if len(self._open or ()) == open_before:
                raise
        if len(self._open or ()) > open_before:
            data.clear()
            data.update(before)
            return []
        return gathered(heard, name) if commands else []

    def _read(self, questions: list[Question], extra: Sequence[str]) -> list[list[str]]:
        """Asks all of it in one round trip; the lines that each of `extra` has printed."""
        groups = grouped(questions)
        commands = [joint_command(group) for group in groups] + list(extra)
        self.round_trips += 1
        with self._turn.passed_on(self._state, self._host):
            answers = self._shell.ask(commands)
        for command, lines in zip(commands, answers, strict=True):
            if lines is None:
                raise DriftError(f"no answer to '{command[:60]}' (is it well? ./kit plan says more)")
        known = [lines for lines in answers if lines is not None]
        for group, lines in zip(groups, known, strict=False):
            for question in group:
                alone = len(group) == 1
                self._answers[question] = lines if alone else question.fact().part(lines, **question.arguments)
        return known[len(groups) :]


def _accounts(lines: Sequence[str]) -> Iterator[Difference]:
    for user in superusers(lines):
        yield Difference("account", user, "is root by another name")


def _rules(lines: Sequence[str]) -> Iterator[Difference]:
    middle = lines.index(_APART)
    if middle == len(lines) - 1:
        raise DriftError("nft does not take the declared ruleset there (./kit plan says more)")
    for place, how in rule_differences(lines[middle + 1 :], lines[:middle]):
        yield Difference("firewall", place, how, "Firewall | Load the firewall, confirmed over a new connection")


def extras(target: Target) -> dict[str, Extra]:
    """What no operation asks: who else is root, and the ruleset rule by rule."""
    found = {"accounts": Extra("getent passwd", _accounts)}
    if nftables.service.name in {service.name for service in target.site.services_of(target.name)}:
        declared = base64.b64encode(ruleset.ruleset(target).content).decode()
        own = f"unshare -n sh -c 'base64 -d | nft -f - && nft -s list table {TABLE}'"
        running = f"nft -s list table {TABLE} | {AS_LOADED}"
        found["rules"] = Extra(f"{running}; echo {_APART}; echo {declared} | {own} | {AS_LOADED}", _rules)
    return found
