"""What turns a run of pytest into verdicts: each test that is marked `check` is a check, its docstring the title.

    @pytest.mark.check("segments.{segment}-to-{towards}")
    @pytest.mark.controls("ETSI-EN-303-645-v3.1.3:5.6-1")
    def test_a_segment_reaches_what_it_may_and_nothing_else(…, evidence): …

The id is filled in from the test's parameters. A test that passes is `proven`, one that fails is `failed`, one that
calls `cannot_prove` is `not_proven`; a check that could not be made because of an error is `not_proven` too, but the
run fails.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import pytest

from gatehouse.errors import GatehouseError
from gatehouse.proof import catalogue, coverage, oscal, page, results, waiving
from gatehouse.proof.lives import Life
from gatehouse.proof.threats import ThreatModel
from gatehouse.site.waivers import Waiver

EVIDENCE: pytest.StashKey[list[dict[str, Any]]] = pytest.StashKey()
WARNINGS: pytest.StashKey[list[str]] = pytest.StashKey()
MARKERS = (
    "check(id): this test is a check; {names} in the id are filled in from its parameters",
    "controls(*references): the controls of the catalogue that the check speaks for, FRAMEWORK:ID",
)


def cannot_prove(reason: str) -> NoReturn:
    """Ends a check as not proven: what would be needed for a proof is not there, and that is no success."""
    pytest.skip(reason)


class Plugin:
    """Collects verdicts while pytest runs, writes them when it ends, and decides the exit status."""

    def __init__(
        self,
        site: str,
        version: str,
        reports: Path,
        write: Callable[[str], None],
        colour: bool,
        as_json: bool,
        waivers: Mapping[str, Waiver] | None = None,
        lives: Callable[[], list[Life]] = list,
        models: Callable[[results.Run], list[ThreatModel]] = lambda _: [],
    ) -> None:
        """`lives` says at the end what of the site ends one day, `models` what the run means for its threat models."""
        self.run = results.Run(site=site, version=version)
        self.folder: Path | None = None
        self._reports, self._say, self._colour, self._as_json = reports, write, colour, as_json
        self._errors = 0
        self._waivers, self._whole = waivers or {}, True
        self._lives, self._models = lives, models

    def pytest_deselected(self) -> None:
        """Notes that not every check is made in this run."""
        self._whole = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Refuses checks without an id, a title or a control, and controls that the catalogue doesn't have."""
        for item in items:
            marker = item.get_closest_marker("check")
            if marker is None:
                continue
            if not (_title(item) and marker.args):
                raise pytest.UsageError(f"{item.nodeid}: a check needs an id and a docstring, which is its title")
            try:
                found = named(item)
            except catalogue.UnknownControl as error:
                raise pytest.UsageError(str(error)) from None
            if not found:
                raise pytest.UsageError(f"{item.nodeid}: a check needs the controls that it speaks for")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Notes a verdict at the end of a check's call, or of its setup when that is as far as it got."""
        report = yield
        if item.get_closest_marker("check") is None:
            self._errors += report.failed
            return report
        if report.when == "call" or (report.when == "setup" and not report.passed):
            self.run.add(self._check(item, report, call.excinfo))
        elif report.failed:
            self._errors += 1
        return report

    def _check(
        self, item: pytest.Item, report: pytest.TestReport, error: pytest.ExceptionInfo[BaseException] | None
    ) -> results.Check:
        values = _values(item)
        verdict: results.Verdict
        if report.passed:
            verdict, reason = "proven", None
        elif report.skipped:
            verdict, reason = "not_proven", _said(error)
        elif report.when == "setup" or (error is not None and isinstance(error.value, GatehouseError)):
            verdict, reason = "not_proven", f"could not be made: {_said(error)}"
            self._errors += 1
        else:
            verdict, reason = "failed", _said(error)
        noted: list[dict[str, Any]] = item.stash.get(EVIDENCE, [])
        warned: list[str] = item.stash.get(WARNINGS, [])
        return results.Check(
            id=identity(item),
            title=_title(item),
            gateway=values.get("gateway"),
            segment=values.get("segment"),
            verdict=verdict,
            evidence=results.merged(noted),
            reason=reason,
            controls=named(item),
            warnings=tuple(warned),
        )

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Writes the results. Nothing checked, an error, or a check that failed: the run fails."""
        if session.config.option.collectonly or exitstatus == pytest.ExitCode.USAGE_ERROR:
            return
        self.run.finished = datetime.now(UTC)
        asked = session.config.args
        whole = self._whole and not any("::" in path or path.endswith(".py") for path in asked)
        waiving.settle(self.run, self._waivers, self.run.finished.date(), whole)
        self.folder = self.folder or results.new_folder(self._reports, self.run)
        with contextlib.suppress(GatehouseError):  # the checks that need the vault say that it isn't there
            self.run.lives = self._lives()
        before = results.earlier(self.folder)
        shown = page.render(self.run, before[0] if before else None, before, self._models(self.run))
        results.write(self.folder, self.run, shown, oscal.document(self.run))
        if not self.run.succeeded or self._errors:
            session.exitstatus = max(int(exitstatus), 1)
        elif exitstatus == pytest.ExitCode.TESTS_FAILED and self.run.waived:
            session.exitstatus = pytest.ExitCode.OK
        if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        """Says last what an operator wants to know: the table, or all of it for a machine."""
        if self.folder is None or self.run.finished is None:
            return
        if self._as_json:
            self._say((self.folder / results.RESULTS).read_text())
        else:
            latest = self.folder.parent / results.LATEST / results.PAGE
            table = results.table(self.run, self._colour)
            self._say(f"\n{coverage.table(self.run)}\n\n{table}\nreport: {latest}\n")


def identity(item: pytest.Item) -> str:
    """The id of the check that a test makes, filled in from its parameters; the test's own name if it makes none."""
    marker = item.get_closest_marker("check")
    return str(marker.args[0]).format(**_values(item)) if marker is not None else item.name


def _values(item: pytest.Item) -> dict[str, Any]:
    parameters = getattr(item, "callspec", None)
    return {key: getattr(value, "name", value) for key, value in (parameters.params if parameters else {}).items()}


def _title(item: pytest.Item) -> str:
    text = getattr(getattr(item, "function", None), "__doc__", None) or ""
    return " ".join(text.split()).rstrip(".")


def named(item: pytest.Item) -> tuple[str, ...]:
    """The controls that the check of a test speaks for, each once. Raises `UnknownControl`."""
    found = [reference for marker in item.iter_markers("controls") for reference in marker.args]
    return catalogue.checked(dict.fromkeys(found), item.nodeid)


def _said(error: pytest.ExceptionInfo[BaseException] | None) -> str:
    """The first line of what was raised; pytest's own explanations of an assertion come after it."""
    if error is None:
        return "no word why"
    said = str(error.value).strip() or error.typename
    return said.splitlines()[0].removeprefix("AssertionError: ")
