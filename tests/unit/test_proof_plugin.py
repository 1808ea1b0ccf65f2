"""From tests to verdicts: what pytest ran becomes checks, and the exit status says whether the site is proven."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

CONFTEST = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from gatehouse.proof.plugin import MARKERS, Plugin

def pytest_configure(config):
    for line in MARKERS:
        config.addinivalue_line("markers", line)
    out = sys.stdout
    config.pluginmanager.register(Plugin("home", "1", Path("reports"), out.write, False, False))
"""

HEAD = """
import pytest
from gatehouse.errors import GatehouseError
from gatehouse.proof.plugin import EVIDENCE, WARNINGS, cannot_prove

def check(name):
    return lambda test: pytest.mark.controls("OWASP-IoT-Top10-2018:I2")(pytest.mark.check(name)(test))
"""


@pytest.fixture
def suite(pytester):
    def run(text):
        pytester.makeconftest(CONFTEST.format(root=str(Path(__file__).resolve().parents[2])))
        pytester.makepyfile(HEAD + text)
        status = pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider").ret
        report = pytester.path / "reports" / "home" / "latest" / "results.json"
        return int(status), json.loads(report.read_text()) if report.exists() else None

    return run


def test_a_test_that_passes_is_proven(suite):
    status, report = suite("@check('a.b')\ndef test_x():\n    'It holds.'\n")
    assert status == 0
    assert [(c["id"], c["title"], c["verdict"]) for c in report["checks"]] == [("a.b", "It holds", "proven")]


def test_a_test_that_fails_is_failed_with_what_was_seen(suite):
    status, report = suite("@check('a.b')\ndef test_x():\n    'It holds.'\n    assert 1 == 2, 'it answered'\n")
    assert status == 1
    assert [(c["verdict"], c["reason"]) for c in report["checks"]] == [("failed", "it answered")]


def test_a_warning_stands_beside_the_verdict_and_changes_neither_it_nor_the_status(suite):
    status, report = suite(
        "@check('a.b')\ndef test_x(request):\n    'It holds.'\n"
        "    request.node.stash.setdefault(WARNINGS, []).append('soon over')\n\n"
        "@check('a.c')\ndef test_y():\n    'It holds, too.'\n"
    )
    assert status == 0
    assert [(c["verdict"], c["warnings"]) for c in report["checks"]] == [("proven", ["soon over"]), ("proven", [])]


def test_what_cannot_be_proven_is_neither_success_nor_failure(suite):
    status, report = suite(
        "@check('a.b')\ndef test_x():\n    'It holds.'\n\n"
        "@check('a.c')\ndef test_y():\n    'It may hold.'\n    cannot_prove('no link')\n"
    )
    assert status == 0
    assert report["summary"] == {"proven": 1, "failed": 0, "not_proven": 1}
    assert report["checks"][1]["reason"] == "no link"


def test_a_run_that_proves_nothing_fails(suite):
    status, report = suite("@check('a.c')\ndef test_y():\n    'It may hold.'\n    cannot_prove('no link')\n")
    assert status == 1
    assert report["summary"]["proven"] == 0


def test_a_run_without_checks_fails(suite):
    status, report = suite("")
    assert status != 0
    assert report["checks"] == []


def test_a_check_that_cannot_be_made_is_not_proven_and_fails_the_run(suite):
    status, report = suite(
        "@pytest.fixture\ndef gateway():\n    raise GatehouseError('gw: no answer')\n\n"
        "@check('a.b')\ndef test_x(gateway):\n    'It holds.'\n\n"
        "@check('a.c')\ndef test_y():\n    'It holds, too.'\n    raise GatehouseError('gw: went away')\n\n"
        "@check('a.d')\ndef test_z():\n    'It holds as well.'\n"
    )
    assert status == 1
    assert [(c["verdict"], c["reason"]) for c in report["checks"]] == [
        ("not_proven", "could not be made: gw: no answer"),
        ("not_proven", "could not be made: gw: went away"),
        ("proven", None),
    ]


def test_ids_are_filled_in_from_the_parameters(suite):
    _, report = suite(
        "@pytest.mark.parametrize(('gateway', 'segment'), [('gw', 'iot'), ('gw', 'guest')])\n"
        "@check('a.from-{segment}')\ndef test_x(gateway, segment):\n    'It holds.'\n"
    )
    assert [(c["id"], c["gateway"], c["segment"]) for c in report["checks"]] == [
        ("a.from-iot", "gw", "iot"),
        ("a.from-guest", "gw", "guest"),
    ]


def test_evidence_stands_in_the_report_once(suite):
    _, report = suite(
        "@check('a.b')\ndef test_x(request):\n    'It holds.'\n"
        "    request.node.stash.setdefault(EVIDENCE, []).extend([{'got': 'silent'}, {'got': 'silent'}])\n"
    )
    assert report["checks"][0]["evidence"] == [{"got": "silent"}]


def test_a_check_without_title_and_a_control_that_is_unknown_are_refused(suite):
    status, report = suite("@check('a.b')\ndef test_x():\n    pass\n")
    assert status == pytest.ExitCode.USAGE_ERROR
    assert report is None
    status, report = suite("@pytest.mark.controls('CIS:none')\n@check('a.b')\ndef test_x():\n    'It holds.'\n")
    assert status == pytest.ExitCode.USAGE_ERROR
    assert report is None


def test_a_check_without_a_control_is_refused_before_anything_runs(suite):
    status, report = suite("@pytest.mark.check('a.b')\ndef test_x():\n    'It holds.'\n")
    assert (status, report) == (4, None)


def test_coverage_by_standard_is_printed_before_the_verdict(pytester, suite):
    suite("@check('a.b')\ndef test_x():\n    'It holds.'\n")
    said = pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider").stdout.str()
    assert "ETSI EN 303 645 v3.1.3" in said
    assert said.index("OWASP IoT Top 10") < said.index("1 of 1 checks proven")


def test_a_waived_failure_exits_with_0_and_an_expired_waiver_does_not(pytester, suite):
    text = "@check('a.b')\ndef test_x():\n    'It holds.'\n    assert False, 'it answered'\n\n"
    text += "@check('b.c')\ndef test_y():\n    'It holds.'\n"
    for expires, expected in (("2999-01-01", 0), ("2020-01-01", 1)):
        given = (
            f"{{'a.b': Waiver(reason='until it is replaced', owner='Ada', expires='{expires}', compensated_by='b.c')}}"
        )
        made = CONFTEST.replace("False, False)", f"False, False, {given})".replace("{", "{{").replace("}", "}}"))
        made = made.replace(
            "from gatehouse.proof", "from gatehouse.site.waivers import Waiver\nfrom gatehouse.proof", 1
        )
        pytester.makeconftest(made.format(root=str(Path(__file__).resolve().parents[2])))
        pytester.makepyfile(HEAD + text)
        assert int(pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider").ret) == expected
