"""Coverage by standard, and waivers: nothing that isn't proven is shown as if it were."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from datetime import date

import pytest

from gatehouse.proof import coverage, results, waiving
from gatehouse.proof.catalogue import FILE, Control, controls
from gatehouse.proof.results import Check, Run
from gatehouse.site import SiteError
from gatehouse.site.waivers import Waiver
from roles.base.version import ROOT
from tests.unit.test_site_model import Site, changed, description

TODAY = date(2026, 3, 1)
# What the lab's gateway can be asked, and so every check that there is: the controls that each names.
LIST_CONTROLS = """
import sys, pytest
from gatehouse.proof.plugin import named
class Lister:
    def pytest_collection_finish(self, session):
        print("", *(f"control {reference}" for item in session.items for reference in named(item)), sep="\\n")
sys.exit(pytest.main(["tests/compliance", "--site", "lab", "--collect-only", "-q"], plugins=[Lister()]))
"""
# Controls that a gateway can do alone (`kit = full`), in the whole catalogue, and those of them without a check.
FULL_ONES, GAPS, REVISED = 176, 0, 27
FULL, ETSI = "OWASP-IoT-Top10-2018:I2", "ETSI-EN-303-645-v3.1.3:5.6-1"


def check(name, verdict="proven", *named):
    reason = None if verdict == "proven" else "it answered"
    return Check(name, "A title", "gw", None, verdict, reason=reason, controls=named or (FULL,))


def run_with(*checks):
    return Run("home", "1", checks=list(checks))


def standing(run, reference=FULL):
    framework = controls()[reference].framework
    return next(c for c in coverage.covered(run)[framework] if c.control.reference == reference)


@pytest.mark.parametrize(
    ("verdicts", "stands"),
    [
        (("proven", "proven"), "proven"),
        (("proven", "failed"), "failed"),
        (("proven", "not_proven"), "proven"),
        (("not_proven",), "not_proven"),
        ((), "not_proven"),
    ],
)
def test_a_control_stands_as_the_worst_that_was_seen_of_it(verdicts, stands):
    found = standing(run_with(*(check(f"a.{i}", verdict) for i, verdict in enumerate(verdicts))))
    assert (found.standing, len(found.checks)) == (stands, len(verdicts))


def test_a_control_that_no_check_names_says_so():
    assert standing(run_with(check("a.b", "proven", ETSI))).reason == "no check speaks for it"


def test_what_a_gateway_cannot_reach_is_not_called_unproven_and_has_a_reason():
    out = [c for entries in coverage.covered(run_with()).values() for c in entries if c.standing == "out_of_reach"]
    assert out and all(c.reason and c.control.kit != "full" for c in out)


def test_a_check_speaks_even_for_what_is_mostly_elsewhere():
    mostly = next(
        c for c in controls().values() if c.framework in coverage.STANDARDS and (c.kit, c.scope) == ("none", "device")
    )
    assert standing(run_with(), mostly.reference).standing == "out_of_reach"
    found = standing(run_with(check("a.b", "proven", mostly.reference)), mostly.reference)
    assert found.standing == "proven" and "the gateway's part" in found.reason


def test_every_control_of_a_standard_is_counted_once():
    for framework, found in coverage.covered(run_with(check("a.b"))).items():
        if framework in coverage.CHECKLISTS:
            continue
        named: list[Control] = [entry.control for entry in found]
        assert named == [c for c in controls().values() if c.framework == framework] and named


def test_the_table_has_a_row_a_standard():
    text = coverage.table(run_with(check("a.b")))
    assert all(title in text for title in coverage.ROWS.values())
    assert len(text.splitlines()) == 1 + len(coverage.ROWS) + 1
    assert text.splitlines()[-1].startswith(f"{sum(map(len, coverage.gaps(run_with(check('a.b'))).values()))} controls")


def test_a_provision_speaks_for_the_one_of_the_same_number_in_the_former_edition():
    former = ETSI.replace("v3.1.3", "v2.1.1")
    assert coverage.spoken_for([ETSI, FULL]) == (ETSI, FULL, former)
    narrowed = ETSI.replace("5.6-1", "5.3-1")
    assert narrowed in controls() and coverage.spoken_for([narrowed]) == (narrowed,)
    found = coverage.controls_of(run_with(check("a.b", "proven", ETSI)))["ETSI-EN-303-645-v2.1.1"]
    assert [entry.standing for entry in found if entry.control.reference == former] == ["proven"]


def test_what_a_gateway_could_do_alone_and_no_check_speaks_for_is_a_gap_by_name():
    named = {c.reference for found in coverage.gaps(run_with(check("a.b"))).values() for c in found}
    assert FULL not in named and ETSI in named
    assert all(controls()[reference].kit == "full" for reference in named)


def test_every_control_that_a_gateway_can_do_alone_has_a_check_or_says_what_one_would_take():
    command = [sys.executable, "-c", LIST_CONTROLS]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert listed.returncode == 0, listed.stdout + listed.stderr
    spoken_for = {line.removeprefix("control ") for line in listed.stdout.splitlines() if line.startswith("control ")}
    without = coverage.gaps(run_with(check("a.b", "proven", *sorted(spoken_for))))
    named = {control.reference for found in without.values() for control in found}
    assert named == {reference for reference, control in controls().items() if control.needs}
    full = [control for control in controls().values() if control.kit == "full"]
    assert (len(full), len(named)) == (FULL_ONES, GAPS), "tell it in docs/proof.md, too"


def test_what_was_revised_in_the_catalogue_says_what_it_was_and_why():
    entries = tomllib.loads(FILE.read_text())["control"]
    revised = [entry for entry in entries if "was" in entry]
    assert len(revised) == REVISED
    assert all(entry["was"] == "full" and entry["kit"] in ("partial", "none") and entry["reason"] for entry in revised)
    assert all("was" in entry for entry in entries if "reason" in entry)


def test_a_reason_is_told_where_a_control_is_out_of_reach_and_what_it_takes_where_nothing_speaks_for_it():
    for found in (entry for entries in coverage.controls_of(run_with()).values() for entry in entries):
        control = found.control
        if control.reason and (control.kit == "none" or control.scope != "gateway"):
            assert (found.standing, found.reason) == ("out_of_reach", control.reason)
        elif control.needs:
            assert found.standing == "not_proven" and control.needs in found.reason


def point(run, name="TLS"):
    return next(e for found in coverage.covered(run).values() for e in found if e.control.id == name)


def updates(verdict="proven"):
    return run_with(check("host.updates", verdict), check("host.version"))


def test_a_point_of_a_checklist_is_proven_when_each_of_its_patterns_is():
    assert point(updates(), "Updates").standing == "proven"
    assert point(updates("failed"), "Updates").standing == "failed"
    half = point(run_with(check("host.updates")), "Updates")
    assert half.standing == "not_proven" and "host.version" in half.reason


def test_what_lies_in_the_devices_fuses_is_out_of_reach_and_says_which_command_shows_it():
    for name in ("Secure boot", "Flash encryption", "Debug interfaces"):
        found = point(updates(), name)
        assert found.standing == "out_of_reach" and "./kit firmware." in found.reason


def waiver(**more):
    given = {"reason": "its switch is replaced in April", "owner": "Ada", "expires": TODAY, "compensated_by": "b.c"}
    return Waiver(**{**given, **more})


def settled(*checks, waivers, whole=True):
    run = run_with(*checks)
    waiving.settle(run, waivers, TODAY, whole)
    return run


def test_a_waived_failure_lets_the_run_succeed_and_is_never_proven():
    run = settled(check("a.b", "failed"), check("b.c"), waivers={"a.b": waiver()})
    assert run.succeeded and run.summary == {"proven": 1, "failed": 1, "not_proven": 0}
    assert standing(run).standing == "failed" and "1 waived" in standing(run).reason
    text = results.table(run)
    assert "waived until 2026-03-01 by Ada (its switch is replaced in April): failed: a.b" in text
    assert "1 failed (1 waived)" in text


def test_junit_shows_a_waived_failure_as_skipped_with_the_word():
    text = results.junit(settled(check("a.b", "failed"), check("b.c"), waivers={"a.b": waiver()}))
    assert 'failures="0"' in text and 'message="waived: it answered"' in text


def test_a_failure_beside_a_waived_one_still_fails():
    run = settled(check("a.b", "failed"), check("b.c"), check("d.e", "failed"), waivers={"a.b": waiver()})
    assert not run.succeeded and run.waived == 1


@pytest.mark.parametrize(
    ("waivers", "words"),
    [
        ({"a.b": waiver(expires=date(2026, 2, 28))}, r"'a.b': expired on 2026-02-28"),
        ({"a.x": waiver()}, "'a.x': there is no such check"),
        ({"a.b": waiver(compensated_by="x.y")}, "there is no compensating check 'x.y'"),
        ({"a.b": waiver(compensated_by="a.b")}, "by the check that it waives"),
        ({"a.b": waiver(compensated_by="n.p")}, "compensating check n.p is not proven"),
    ],
)
def test_a_waiver_that_does_not_count_fails_the_run(waivers, words):
    run = settled(check("a.b", "failed"), check("b.c"), check("n.p", "not_proven"), waivers=waivers)
    assert not run.succeeded and run.waived == 0
    assert len(run.problems) == 1 and words in run.problems[0]
    assert f"failed: {run.problems[0]}" in results.table(run)


def test_an_expired_waiver_fails_even_where_its_check_is_proven_again():
    assert not settled(check("a.b"), check("b.c"), waivers={"a.b": waiver(expires=date(2026, 2, 28))}).succeeded


def test_a_run_of_some_checks_takes_no_offence_at_waivers_of_others():
    assert settled(check("b.c"), waivers={"a.x": waiver()}, whole=False).succeeded


def test_a_waiver_is_in_the_results_and_read_again(tmp_path):
    run = settled(check("a.b", "failed"), check("b.c"), waivers={"a.b": waiver(), "a.x": waiver()})
    again = results.read(results.write(results.new_folder(tmp_path, run), run))
    assert (again.waived, again.problems) == (1, run.problems) and len(run.problems) == 1


def test_a_site_takes_waivers():
    entry = waiver().model_dump(mode="json")
    assert Site(**{**description(), "waivers": {"a.b": entry}}).waivers["a.b"] == waiver()


@pytest.mark.parametrize(
    ("slip", "words"),
    [
        ({"reason": "no"}, "waiver 'a.b' reason"),
        ({"expires": "soon"}, "waiver 'a.b' expires"),
        ({"until": "2026-01-01"}, "waiver 'a.b' until: unknown key"),
    ],
)
def test_a_slip_in_a_waiver_is_said_with_its_place(slip, words):
    with pytest.raises(SiteError, match=words):
        Site(**changed("waivers", {"a.b": {**waiver().model_dump(mode="json"), **slip}}))


def test_a_waiver_without_an_owner_is_refused():
    entry = waiver().model_dump(mode="json")
    del entry["owner"]
    with pytest.raises(SiteError, match="waiver 'a.b' owner: missing"):
        Site(**changed("waivers", {"a.b": entry}))
