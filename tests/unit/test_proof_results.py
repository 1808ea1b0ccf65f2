"""Results: verdicts, files that outlive a run, and what an operator reads."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from datetime import UTC, datetime

import pytest

from gatehouse.proof import catalogue, results
from gatehouse.proof.results import Check, ResultsError, Run


def check(name="segments.iot-to-guest", verdict="proven", reason=None, **more):
    return Check(id=name, title="A title", gateway="gw", segment="iot", verdict=verdict, reason=reason, **more)


def run_with(*checks):
    run = Run(site="home", version="1")
    for made in checks:
        run.add(made)
    return run


def test_a_run_with_proofs_only_succeeds():
    assert run_with(check()).succeeded


def test_a_run_with_a_failure_does_not_succeed():
    assert not run_with(check(), check("a.b", "failed", "seen")).succeeded


def test_a_run_that_proved_nothing_does_not_succeed():
    assert not run_with().succeeded
    assert not run_with(check(verdict="not_proven", reason="no link")).succeeded


def test_not_proven_does_not_count_as_proven():
    counts = run_with(check(), check("a.b", "not_proven", "no link")).summary
    assert counts == {"proven": 1, "failed": 0, "not_proven": 1}


@pytest.mark.parametrize("verdict", ["failed", "not_proven"])
def test_what_is_not_proven_says_why(verdict):
    with pytest.raises(ResultsError, match="without a reason"):
        check(verdict=verdict)
    assert check(verdict=verdict, reason="because").reason == "because"


def test_a_verdict_that_does_not_exist_is_refused():
    with pytest.raises(ResultsError, match="no verdict"):
        check(verdict="passed")


def test_two_checks_with_one_name_are_refused_and_the_same_check_elsewhere_is_not():
    run = run_with(check())
    run.add(Check("segments.iot-to-guest", "A title", "gw-2", "iot", "proven"))
    with pytest.raises(ResultsError, match="there are two"):
        run.add(check())


def test_results_can_be_read_again(tmp_path):
    run = run_with(check(evidence=({"from": "iot", "got": "silent"},), controls=("RFC-9325:3.2",), warnings=("old",)))
    written = results.write(results.new_folder(tmp_path, run), run)
    again = results.read(written)
    assert again.checks == run.checks
    assert again.summary == run.summary


def test_the_report_has_what_is_promised_of_it(tmp_path):
    run = run_with(check(), check("a.b", "failed", "it answered"))
    document = json.loads(results.write(results.new_folder(tmp_path, run), run).read_text())
    assert document["summary"] == {"proven": 1, "failed": 1, "not_proven": 0}
    assert {"id", "title", "segment", "verdict", "evidence", "controls"} <= document["checks"][0].keys()


def test_latest_leads_to_the_last_run_and_earlier_ones_are_kept(tmp_path):
    folders = []
    for _ in range(3):
        run = run_with(check())
        folders.append(results.new_folder(tmp_path, run))
        results.write(folders[-1], run)
    assert len(set(folders)) == 3
    assert (tmp_path / "home" / "latest").resolve() == folders[-1]
    assert all((folder / "results.json").exists() for folder in folders)


def test_of_very_many_runs_the_oldest_go(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "KEPT", 2)
    folders = []
    for number in range(4):
        run = run_with(check())
        run.started = datetime(2025, 1, 1, 12, number, tzinfo=UTC)
        folders.append(results.new_folder(tmp_path, run))
        results.write(folders[-1], run)
    assert [folder.exists() for folder in folders] == [False, False, True, True]


def test_reports_are_for_their_owner_only(tmp_path):
    run = run_with(check())
    folder = results.new_folder(tmp_path, run)
    assert folder.stat().st_mode & 0o077 == 0
    assert folder.parent.stat().st_mode & 0o077 == 0


def test_a_report_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "home").write_text("in the way")
    with pytest.raises(ResultsError, match="home"):
        results.new_folder(tmp_path, run_with(check()))


def test_no_results_are_one_line(tmp_path):
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(ResultsError, match="no results of a run"):
        results.read(tmp_path / "results.json")


def test_junit_tells_the_three_verdicts_apart():
    run = run_with(check(), check("b.c", "failed", "<open>"), check("c.d", "not_proven", "x"))
    suite = ET.fromstring(results.junit(run))  # noqa: S314  made here
    kinds = [[child.tag for child in case if child.tag in ("failure", "skipped")] for case in suite]
    assert kinds == [[], ["failure"], ["skipped"]]
    assert suite.get("failures") == suite.get("skipped") == "1"


def test_the_table_ends_with_the_verdict_and_names_what_is_not_proven():
    text = results.table(
        run_with(check(), check("b.c", "failed", "it answered"), check("c.d", "not_proven", "no link"))
    )
    assert text.splitlines()[-1] == "home: FAILED: 1 of 3 checks proven, 1 failed, 1 not proven"
    assert "failed: b.c (gw/iot): it answered" in text
    assert "not proven: c.d (gw/iot): no link" in text


def test_a_warning_is_told_and_the_check_is_proven_all_the_same():
    run = run_with(check("a.b", warnings=("the list has 9 days left",)), check("b.c"))
    assert run.succeeded
    assert "warning: a.b (gw/iot): the list has 9 days left" in results.table(run)
    assert results.table(run).count("warning:") == 1


def test_colour_is_for_those_who_ask_for_it():
    run = run_with(check())
    assert "\033" not in results.table(run)
    assert "\033" in results.table(run, colour=True)


def test_no_checks_are_said_to_be_none():
    assert results.conclusion(run_with()) == "home: FAILED: no check was made"


def test_the_catalogue_knows_its_controls_and_no_others():
    assert catalogue.checked(["ETSI-EN-303-645-v3.1.3:5.6-1"], "here")
    with pytest.raises(catalogue.UnknownControl, match="here: no control 'ETSI-EN-303-645-v3.1.3:99'"):
        catalogue.checked(["ETSI-EN-303-645-v3.1.3:99"], "here")


def test_controls_of_two_frameworks_with_one_id_are_told_apart():
    known = catalogue.controls()
    assert known["ETSI-EN-303-645-v2.1.1:5.6-1"] != known["ETSI-EN-303-645-v3.1.3:5.6-1"]
