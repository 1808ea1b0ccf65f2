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
