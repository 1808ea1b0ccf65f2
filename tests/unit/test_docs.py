"""The documents: every command in them is one that there is, every task has an example, every link leads somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from invoke import Collection
from invoke.exceptions import ParseError
from invoke.parser import Parser

import tasks
from tests.documented import run_by
from tests.unit.machine import INIT, ROOT, Machine

DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
OF_THE_SCRIPT = {"shell", "help"}  # what `./kit` does without invoke
_COMMAND = re.compile(r"(?:^ *|`)(?:\./kit|invoke) +([a-z][a-z.-]*[a-z](?![a-z.*])[^`\n|<>;&]*)", re.MULTILINE)


def written(document: Path) -> list[str]:
    """The commands of a document: those at the beginning of a line, and those in backticks."""
    found = []
    for text in _COMMAND.findall(document.read_text()):
        line = re.split(r"\s#|,\s|…|\s\(|\.$", text)[0].strip()
        if line.split()[0] not in OF_THE_SCRIPT:
            found.append(line)
    return found


def names(collection: Collection, prefix: str = "") -> set[str]:
    """Every task, as it is written."""
    found = {prefix + name.replace("_", "-") for name in collection.tasks}
    for name, inner in collection.collections.items():
        found |= names(inner, f"{name}.")
        found |= {name} if inner.default else set()
    return found


TASKS, PARSER = names(tasks.namespace), Parser(contexts=tasks.namespace.to_contexts())


def parsed(line: str) -> None:
    """Raises `ParseError` for what is no command; a task that is only named needs none of what it takes."""
    if line not in TASKS:
        PARSER.parse_argv(shlex.split(line))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_of_a_document_is_one_that_takes_what_it_is_given(document: Path) -> None:
    for line in written(document):
        try:
            parsed(line)
        except ParseError as error:
            pytest.fail(f"{document.name}: `{line}`: {error}")


def test_what_is_no_command_is_noticed() -> None:
    for line in ("no-such-task", "verify --no-such-option"):
        with pytest.raises(ParseError):
            parsed(line)


def test_every_task_has_an_example() -> None:
    shown = {line.split()[0] for document in DOCUMENTS for line in written(document)}
    shown |= {f"{name}.{inner.default}" for name, inner in tasks.namespace.collections.items() if name in shown}
    assert TASKS - shown == set()


# Run by no test as an operator runs them, and why not.
NOT_RUN = {
    "lab.restore": "of the lab of virtual machines, which takes an hour where it is emulated; its refusal is tested",
    "lab.save": "the same",
    "sabotage": "tests/lab/test_sabotage.py makes all of them by what the command calls; its refusal is tested",
    "test": "runs the tests, this one among them; its refusal is tested",
}


def test_every_task_with_an_example_is_run_by_a_test() -> None:
    """Each is in the call of a test; where that is `example`, the command is the document's, word for word."""
    run = {task for path in (ROOT / "tests").rglob("*.py") for task in run_by(path)}
    run |= {f"{name}.{inner.default}" for name, inner in tasks.namespace.collections.items() if name in run}
    assert TASKS - run - NOT_RUN.keys() == set()
    assert NOT_RUN.keys() <= TASKS


def test_what_a_test_says_or_looks_for_is_not_taken_for_what_it_runs(tmp_path: Path) -> None:
    file = tmp_path / "test_x.py"
    file.write_text(
        'assert "./kit trust" in machine.did(f"./kit plan --site {x} " + "--json; ./kit lab.up", E="./kit devices")\n'
        'checkout.invoke("verify", "sbom"); checkout.start("invoke", "drift"); print("./kit audit")\n'
    )
    assert run_by(file) == {"plan", "lab.up", "verify", "drift"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_to_a_file_leads_to_one(document: Path) -> None:
    links = re.findall(r"\]\(([^)\s#]+)(?:#[^)]*)?\)", document.read_text())
    assert [link for link in links if "://" not in link and not (document.parent / link).exists()] == []


def anchors(document: Path) -> set[str]:
    """What a link may name within a document: its headings as they are made into anchors."""
    headings = re.findall(r"^#+ +(.+)$", re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL), re.MULTILINE)
    plain = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading) for heading in headings)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_to_a_chapter_leads_to_one(document: Path) -> None:
    links = re.findall(r"\]\(([^)\s#:]*)#([^)\s]+)\)", document.read_text())
    targets = [((document.parent / path if path else document).resolve(), anchor) for path, anchor in links]
    assert [(path.name, anchor) for path, anchor in targets if anchor not in anchors(path)] == []


def test_the_threat_model_is_printed_as_documented(tmp_path: Path) -> None:
    machine = Machine.new(tmp_path)
    machine.did(INIT)
    assert "# Threat model of home, gateway" in machine.did("./kit threat-model --site home")
    assert machine.did("./kit threat-model --site home --format html").startswith("<!DOCTYPE html>")
    assert machine.sh("./kit threat-model --site home --format pdf").returncode == 1
