"""What operations ask is asked together beforehand, and no operation is told what another one has made untrue."""

from __future__ import annotations

import contextlib
import io
import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from pyinfra import host
from pyinfra.api import Config, FactBase, Inventory, State, StringCommand, operation
from pyinfra.api.connect import connect_all
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.facts import get_fact
from pyinfra.api.operation import add_op
from pyinfra.api.operations import run_ops
from pyinfra.context import ctx_host, ctx_state

from deploy.foresight import Foresight
from deploy.shell import Shell
from roles import facts


class Content(FactBase[str]):
    """The content of a file, empty without one."""

    default = str

    def command(self, path: str) -> str:
        return f"cat {path} 2>/dev/null || true"


class Broken(FactBase[str]):
    """A fact that fails."""

    def command(self) -> str:
        return "echo half an answer; exit 3"


@operation()
def contains(path: Path, content: str) -> Generator[StringCommand, None, None]:
    if host.get_fact(Content, path=str(path)) != content:
        yield StringCommand(f"printf '%s' {content} > {path}")


@operation()
def follows(pointer: Path, seen: dict[str, str]) -> Generator[StringCommand, None, None]:
    """Asks twice: the second question depends on the first answer."""
    seen["followed"] = host.get_fact(Content, path=host.get_fact(Content, path=str(pointer)))
    yield from ()


@operation()
def sees(path: Path, seen: dict[str, str], when: str = "") -> Generator[StringCommand, None, None]:
    seen[when or path.name] = host.get_fact(Content, path=str(path))
    yield from ()


@operation()
def changes_and_sees(path: Path, seen: dict[str, str]) -> Generator[StringCommand, None, None]:
    before = host.get_fact(Content, path=str(path))
    yield StringCommand(f"printf '%s' {before}+ > {path}")
    seen[path.name] = host.get_fact(Content, path=str(path))


@operation()
def fails() -> Generator[StringCommand, None, None]:
    host.get_fact(Broken)
    yield from ()


class Channel:
    """A shell on this machine, at the other end of what the kit takes for an SSH channel."""

    def __init__(self) -> None:
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(["sh"], **pipes)
        self.scripts: list[str] = []

    def makefile(self, mode: str) -> Any:
        assert mode == "r"
        return io.TextIOWrapper(self.process.stdout, newline="\n")

    def settimeout(self, seconds: float) -> None:
        pass

    def sendall(self, data: bytes) -> None:
        self.scripts.append(data.decode())
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()


class Run:
    """A deploy of this machine, and how often it was asked something or told to do something."""

    def __init__(self) -> None:
        self.state = State(Inventory((["@local"], {})), Config(), check_for_changes=False)
        connect_all(self.state)
        self.host = next(iter(self.state.inventory))
        self.commands: list[str] = []
        original = self.host.connector.run_shell_command

        def counted(command: Any, *args: Any, **kwargs: Any) -> Any:
            self.commands.append(str(command))
            return original(command, *args, **kwargs)

        self.host.connector.run_shell_command = counted
        self.host.connector.client = "the connection that the shell runs on"
        self.channel = Channel()
        self.state.add_callback_handler(Foresight(self.host, Shell(self.channel)))

    def add(self, op: Any, *args: Any) -> None:
        add_op(self.state, op, *args, name=f"operation {len(self.state.op_meta)}")

    def go(self) -> int:
        """Runs the operations; how many round trips that took."""
        run_ops(self.state)
        return len(self.commands) + len(self.channel.scripts)


@pytest.fixture
def run() -> Iterator[Run]:
    made = Run()
    yield made
    made.channel.close()
    # pyinfra leaves them behind where an operation failed.
    ctx_state.reset()
    ctx_host.reset()


def test_a_run_without_changes_asks_all_its_questions_at_once(run: Run, tmp_path: Path) -> None:
    for name in "abcdef":
        (tmp_path / name).write_text("wanted")
        run.add(contains, tmp_path / name, "wanted")
    assert run.go() == 1


def test_a_question_that_depends_on_an_answer_is_asked_in_a_second_round(run: Run, tmp_path: Path) -> None:
    (tmp_path / "one").write_text(str(tmp_path / "two"))
    (tmp_path / "two").write_text("found")
    (tmp_path / "three").write_text("other")
    seen: dict[str, str] = {}
    run.add(follows, tmp_path / "one", seen)
    run.add(sees, tmp_path / "three", seen)
    assert run.go() == 2
    assert seen == {"followed": "found", "three": "other"}


def test_a_later_operation_sees_what_an_earlier_one_has_changed(run: Run, tmp_path: Path) -> None:
    file, seen = tmp_path / "file", {}
    file.write_text("old")
    run.add(sees, file, seen, "before")
    run.add(contains, file, "new")
    run.add(sees, file, seen, "after")
    run.go()
    assert seen == {"before": "old", "after": "new"}


def test_an_operation_sees_what_it_has_changed_itself(run: Run, tmp_path: Path) -> None:
    file, seen = tmp_path / "file", {}
    file.write_text("1")
    run.add(changes_and_sees, file, seen)
    run.go()
    assert seen == {"file": "1+"}


def test_following_an_operation_runs_none_of_its_commands(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("1")
    for _ in range(3):
        run.add(changes_and_sees, file, {})
    run.go()
    assert file.read_text() == "1+++"


def test_a_fact_that_fails_is_reported_by_the_operation_that_asks_it(run: Run, tmp_path: Path) -> None:
    file, seen = tmp_path / "file", {}
    file.write_text("there")
    run.add(sees, file, seen)
    run.add(fails)
    with pytest.raises(PyinfraError, match="No hosts remaining"):
        run.go()
    assert seen == {"file": "there"}
    assert run.commands[-1] == Broken().command()


def test_answers_are_told_apart_whether_they_end_in_a_newline_or_not(run: Run, tmp_path: Path) -> None:
    contents = ["", "one line", "one line\n", "two\nlines\n", "\nfirst empty", "last empty\n\n"]
    seen: dict[str, str] = {}
    for number, content in enumerate(contents):
        (tmp_path / str(number)).write_text(content)
        run.add(sees, tmp_path / str(number), seen)
    assert run.go() == 1
    for number in range(len(contents)):
        assert seen[str(number)] == get_fact(run.state, run.host, Content, kwargs={"path": str(tmp_path / str(number))})


def test_before_operations_run_each_question_gets_a_fresh_answer_from_the_shell(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "file"
    for content in ("first", "second"):
        file.write_text(content)
        assert run.host.get_fact(Content, path=str(file)) == content
    assert not run.commands
    assert len(run.channel.scripts) == 2


def test_the_shell_of_a_connection_that_was_replaced_is_asked_nothing(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("there")
    run.host.connector.client = "another connection"
    assert run.host.get_fact(Content, path=str(tmp_path / "file")) == "there"
    assert run.commands
    assert not run.channel.scripts


def test_an_operation_that_is_run_otherwise_gets_no_answer_of_the_shell(run: Run, tmp_path: Path) -> None:
    seen: dict[str, str] = {}
    for name in ("usual", "otherwise"):
        (tmp_path / name).write_text("there")
    run.add(sees, tmp_path / "usual", seen)
    add_op(run.state, sees, Path("otherwise"), seen, name="otherwise", _chdir=str(tmp_path))
    assert run.go() == 2
    assert seen == {"usual": "there", "otherwise": "there"}
    assert len(run.commands) == 1


def test_a_shell_that_has_gone_costs_no_answer(run: Run, tmp_path: Path) -> None:
    file, seen = tmp_path / "file", {}
    file.write_text("there")
    run.channel.process.kill()
    run.channel.process.wait()
    run.add(sees, file, seen)
    run.go()
    assert seen == {"file": "there"}
    assert run.commands


def test_a_command_that_fails_or_reads_takes_nothing_from_the_others() -> None:
    channel = Channel()
    assert Shell(channel).ask(["echo one", "echo half; exit 3", "cat", "echo four >&2; echo 4"]) == [
        ["one"], None, [], ["4"],
    ]  # fmt: skip
    channel.close()


def test_a_command_that_no_shell_understands_ends_the_answers() -> None:
    channel = Channel()
    shell = Shell(channel)
    assert shell.ask(["echo one", "if (", "echo three"])[1:] == [None, None]
    assert shell.ask(["echo one"]) == [None]
    channel.close()


JOINT = [
    (facts.Packages, [{"names": ["coreutils", "no-such-package"]}, {"names": ["dpkg"]}]),
    (facts.FileStates, [{"paths": ["/etc/passwd", "/etc", "/etc/none"]}, {"paths": ["/etc/group", "/etc"]}]),
]


@pytest.mark.parametrize(("fact", "asked"), JOINT)
def test_a_part_of_a_common_answer_is_what_the_question_alone_would_have_got(fact: Any, asked: list[Any]) -> None:
    run = Run()
    run.channel.close()
    here = run.host
    together = here.run_shell_command(StringCommand(fact().together(asked)))[1].stdout_lines
    for arguments in asked:
        alone = here.run_shell_command(StringCommand(fact().command(**arguments)))[1].stdout_lines
        assert fact().process(fact().part(together, **arguments)) == fact().process(alone)
        assert alone


def test_each_unit_gets_its_own_part_of_a_common_answer() -> None:
    fact = facts.UnitState()
    output = [
        "Names=ssh.service sshd.service", "ActiveState=active", "DropInPaths=/etc/systemd/system/ssh.service.d/a.conf",
        "NeedDaemonReload=no", "UnitFileState=enabled", "",
        "Names=chrony.service", "ActiveState=inactive", "DropInPaths=", "NeedDaemonReload=no", "UnitFileState=enabled",
        "Files of sshd.service /etc/ssh/sshd_config", "OnDisk=/etc/systemd/system/ssh.service.d/a.conf", "Loaded=yes",
        "Files of chrony.service", "OnDisk=/etc/systemd/system/chrony.service.d/new.conf", "Loaded=no",
    ]  # fmt: skip
    ssh = fact.process(fact.part(output, unit="sshd.service", loads=["/etc/ssh/sshd_config"]))
    assert (ssh["ActiveState"], ssh["Loaded"], ssh["NeedDaemonReload"]) == ("active", "yes", "no")
    chrony = fact.process(fact.part(output, unit="chrony.service", loads=[]))
    assert (chrony["ActiveState"], chrony["Loaded"], chrony["NeedDaemonReload"]) == ("inactive", "no", "yes")
