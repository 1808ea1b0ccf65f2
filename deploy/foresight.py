"""One look for many questions: what the operations of a run will ask a gateway is asked before the first of them runs.

An operation asks by `host.get_fact`, and each question is a round trip: half of the time of a deploy that has nothing
to change. So before the first operation runs, all of them are followed to their first question, the questions are put
together in one command, and with the answers each is followed to its next question, until it has none or has a command
to give. That is what `--dry` does with them too: nothing is run, and what an operation does before its first command
must not change anything, here as there.

The answers hold until any operation gives its first command, whatever it is. From then on every question is asked anew,
so that no operation is ever told what another one of the same run has made untrue.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pyinfra.api import FactBase
from pyinfra.api.arguments import CONNECTOR_ARGUMENT_KEYS, pop_global_arguments
from pyinfra.api.state import BaseStateCallback

from deploy.shell import Shell

if TYPE_CHECKING:
    from pyinfra.api.command import PyinfraCommand
    from pyinfra.api.host import Host
    from pyinfra.api.state import State, StateOperationHostData

# A question that depends on the answer to another is in the next round; what is left then is asked one by one.
ROUNDS = 6


@dataclass(frozen=True)
class Question:
    """A fact and its arguments; two questions with the same command are the same."""

    fact: type[FactBase[Any]]
    command: str
    arguments: dict[str, Any] = field(compare=False)


class _Unanswered(Exception):
    """Ends the following of an operation at a question that has no answer yet."""


class Foresight(BaseStateCallback):
    """Answers the facts of one host's operations; add it to pyinfra's state by `add_callback_handler`."""

    def __init__(self, host: Host, shell: Shell) -> None:
        self._host = host
        self._shell = shell
        self._ask = host.get_fact
        self._answers: dict[Question, list[str]] = {}
        self._questions: list[Question] | None = None  # a list while operations are followed
        self._looked = False
        self._client = host.connector.client
        host.get_fact = self.get_fact

    def operation_host_start(self, state: State, host: Host, op_hash: str) -> None:
        """Looks, before the first operation of this host runs."""
        if host is self._host and not self._looked:
            self._looked = True
            operations = [state.ops[host][op] for op in state.get_op_order() if op in state.ops[host]]
            for operation in operations:
                operation.command_generator = self._watched(operation.command_generator)
            self._look(operations)

    def get_fact(self, fact: type[FactBase[Any]], *args: Any, **kwargs: Any) -> Any:
        """What pyinfra's `Host.get_fact` gives: from what is known and still holds, or from the shell where it can."""
        question = question_of(fact, args, kwargs) if self._as_usual() else None
        if question in self._answers:
            return read_by(fact, self._answers[question])
        if self._questions is not None:
            if question is not None:
                self._questions.append(question)
            raise _Unanswered
        if question is not None:
            (lines,) = self._shell.ask([question.command])
            if lines is not None:
                return read_by(fact, lines)
        return self._ask(fact, *args, **kwargs)

    @cached_property
    def _usual(self) -> dict[str, Any]:
        """How this host's commands are run unless an operation says otherwise: as the shell was started."""
        return _connector_arguments(pop_global_arguments(self._host.state, self._host, {})[0])

    def _as_usual(self) -> bool:
        """Whether the shell is asked as the host would be: over the same connection, as the same user."""
        now = self._host.current_op_global_arguments or self._host.current_deploy_kwargs or {}
        differs = any(self._usual[key] != value for key, value in _connector_arguments(now).items())
        return not differs and self._host.connector.client is self._client

    def _watched(self, generator: Callable[[], Iterator[PyinfraCommand]]) -> Callable[[], Iterator[PyinfraCommand]]:
        """The same commands; the first of them that is about to run ends all foresight."""

        def commands() -> Iterator[PyinfraCommand]:
            for command in generator():
                if self._questions is None:
                    self._answers.clear()
                yield command

        return commands

    def _look(self, operations: Iterable[StateOperationHostData]) -> None:
        pending = list(operations)
        for _ in range(ROUNDS):
            self._questions, following, pending = [], pending, []
            for operation in following:
                commands = operation.command_generator()
                try:
                    next(commands)
                    # It has something to do, after which no answer holds.
                    break
                except _Unanswered:
                    pending.append(operation)
                except StopIteration:
                    continue
                except Exception:  # noqa: S112  it will say so itself when it is run
                    continue
                finally:
                    commands.close()
            questions, self._questions = list(dict.fromkeys(self._questions)), None
            if not questions or not self._read(questions):
                return

    def _read(self, questions: list[Question]) -> bool:
        """Asks all of them at once, and keeps the answers. False if there were none."""
        groups = grouped(questions)
        answered = False
        for group, lines in zip(groups, self._shell.ask([joint_command(group) for group in groups]), strict=True):
            # What failed is asked again by the operation that needs it, which says what is wrong.
            if lines is not None:
                answered = True
                for question in group:
                    alone = len(group) == 1
                    self._answers[question] = lines if alone else question.fact().part(lines, **question.arguments)
        return answered


def question_of(fact: type[FactBase[Any]], args: Any, kwargs: Any) -> Question | None:
    """None for what takes more than a command that is run as all others are."""
    special = ("requires_command", "check_preconditions", "shell_executable")
    plain = issubclass(fact, FactBase) and all(getattr(fact, name) is getattr(FactBase, name) for name in special)
    if not plain or any(key.startswith("_") for key in kwargs):
        return None
    arguments = inspect.getcallargs(fact().command, *args, **kwargs)
    command = fact().command(*args, **kwargs)
    if not isinstance(command, str):
        return None
    return Question(fact, command, {name: value for name, value in arguments.items() if name != "self"})


def grouped(questions: list[Question]) -> list[list[Question]]:
    """Questions of one fact that can be asked `together` (see `roles.facts`), and the others, each by itself."""
    groups: dict[Any, list[Question]] = {}
    for question in questions:
        groups.setdefault(question.fact if hasattr(question.fact, "together") else question, []).append(question)
    return list(groups.values())


def joint_command(group: list[Question]) -> str:
    first = group[0]
    return first.command if len(group) == 1 else first.fact().together([each.arguments for each in group])


def read_by(fact: type[FactBase[Any]], lines: list[str]) -> Any:
    """As pyinfra reads them; anew each time, because any caller may change what it gets."""
    return fact().process(lines) if lines else fact().default()


def _connector_arguments(arguments: Any) -> dict[str, Any]:
    """Of pyinfra's global arguments those that say how a command is run: as whom, in which shell, …"""
    return {key: arguments[key] for key in CONNECTOR_ARGUMENT_KEYS if key in arguments}
