"""Options that a whole run has."""

from __future__ import annotations

import pytest


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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tells what a test that was made once more had found the first time."""
    for report in terminalreporter.getreports("rerun"):
        terminalreporter.write_sep("_", f"made once more: {report.nodeid} ({report.when})")
        terminalreporter.write_line(report.longreprtext)
