"""Commands as the documents write them, for the tests that run them; and which tasks are run by a test."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from deploy.inventory import ROOT

_TASK = re.compile(r"(?:\./kit|invoke) ([a-z][a-z.-]*[a-z])(?![a-z.*])")
# What runs a line of shell; and what runs a task, given as the arguments that follow.
_LINES, _TASKS = {"did", "sh", "example"}, {"invoke", "start"}


def example(document: str, command: str, *instead: tuple[str, str]) -> str:
    """A command that stands in a document, word for word: a line of its own but for a remark, or in backticks.

    It comes back with `./kit` where the document has `invoke`, which is the same in an environment that is activated,
    and with words of the test's own `instead` of the document's names.
    """
    path = ROOT / (document if document == "README.md" else f"docs/{document}")
    assert re.search(rf"(?:^ *|`){re.escape(command)}(?:`| *$| +#)", path.read_text(), re.MULTILINE), (
        f"{document}: has no command {command!r}"
    )
    line = re.sub(r"^invoke ", "./kit ", command)
    for written, meant in instead:
        assert written in line, f"{command!r} has no {written!r}"
        line = line.replace(written, meant)
    return line


def run_by(path: Path) -> set[str]:
    """The tasks that a file of tests runs, as an operator does: what stands in its calls, not what they say."""
    found: set[str] = set()
    for call in ast.walk(ast.parse(path.read_text())):
        if isinstance(call, ast.Call):
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            texts = list(_texts(call.args))
            if name in _LINES:
                found |= {task for text in texts for task in _TASK.findall(text)}
            elif name in _TASKS and texts:
                found |= {texts[1] if texts[0] == "invoke" and len(texts) > 1 else texts[0]}
    return found


def _texts(arguments: list[ast.expr]) -> Iterator[str]:
    """The strings among arguments, also those within an f-string or a sum, but not those of calls inside."""
    for argument in arguments:
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
            yield argument.value
        elif isinstance(argument, ast.JoinedStr):
            yield from _texts(argument.values)
        elif isinstance(argument, ast.BinOp):
            yield from _texts([argument.left, argument.right])
