"""Options that a whole run has, and what it tells at its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

SAID = pytest.StashKey[list[str]]()
WHY, WHY_LENGTH = "gatehouse/why", 300


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("gatehouse", "compliance suite")
    group.addoption("--site", default="lab", help="the site to prove, as its inventory is named (default: lab)")
    group.addoption("--json", action="store_true", help="print results.json instead of the table")
    group.addoption(
        "--connection-each", action="store_true", help="ask everything anew for each check (benchmarks.verify)"
    )
    group.addoption(
        "--reports", metavar="DIR", help="the folder that the report goes to, below SITE (default: reports)"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Nothing is to be told yet."""
    config.stash[SAID] = []


@pytest.fixture(scope="session")
def tell(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Shows lines at the end of the run, wherever the test ran."""
    return request.config.stash[SAID].append


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hands over what a worker has to tell."""
    output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["said"] = session.config.stash[SAID]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Takes what a worker has to tell."""
    node.config.stash[SAID].extend(getattr(node, "workeroutput", {}).get("said", []))


def reason(report: pytest.TestReport) -> str:
    """Why a test failed, in one line."""
    crash = getattr(report.longrepr, "reprcrash", None)
    return " ".join(str(getattr(crash, "message", report.longrepr)).split())[:WHY_LENGTH]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Tells what tests had to say, and what one that was made once more had found the first time.

    Why tests failed, `{outcome: {test: why}}`, is left in pytest's cache, for `./kit test` to tell at its end.
    """
    if (cache := getattr(config, "cache", None)) is not None:
        outcomes = {"failed": ("failed", "error"), "rerun": ("rerun",)}
        told = {
            outcome: {report.nodeid: reason(report) for kind in kinds for report in terminalreporter.getreports(kind)}
            for outcome, kinds in outcomes.items()
        }
        cache.set(WHY, told)
    for text in config.stash[SAID]:
        terminalreporter.write_line(text)
    for report in terminalreporter.getreports("rerun"):
        terminalreporter.write_sep("_", f"made once more: {report.nodeid} ({report.when})")
        terminalreporter.write_line(report.longreprtext)
